"""The request loop: who waits for the next FUSE request, and how.

Lives here: a replacement for the waiting of pyfuse3, which goes through trio's epoll, a lock and a task switch for each
request.  This one polls the descriptor first.  Must not: what a request does (fuse.py), when an Op goes on (driver.py).

A worker is a task that takes requests one after the other.  At any time a worker is

    hot      running: it polls the descriptor itself, without going through trio; at most one
    on guard waiting for the descriptor in trio, so that a request is taken while the hot worker's handler waits
    parked   spare
    away     inside a handler that waits

Invariants: whoever leaves with a request leaves a guard behind (else a handler that waits would stop the file system);
the hot worker lets trio run at least every SLICE_S; only the hot worker polls while it lets trio run; with no request
for GRACE_MS nobody polls any more.

The descriptor is made non-blocking, because a request that was there at poll() can be gone at read(), when its caller
was killed; pyfuse3 then raises EAGAIN, and the worker starts over.
"""

import errno
import os
import select
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pyfuse3
import trio

__all__ = ["GRACE_MS", "MAX_TASKS", "SLICE_S", "SPARES", "PollFirst", "serve_requests"]

#: How long the hot worker keeps trio from running, in seconds.
SLICE_S = 0.002
#: How long the hot worker sleeps in poll() before it gives up being hot, in milliseconds.
GRACE_MS = 1
#: How many parked workers are kept.
SPARES = 4
#: Limit of the stock loop on handlers that wait at the same time.
MAX_TASKS = 2000

#: No number of tasks is below it, so pyfuse3 starts no worker on its own.
NEVER = -(1 << 31)

_fuse: Any = pyfuse3


class PollFirst:
    """The workers of one FUSE descriptor.

    Args:
        fd: the descriptor; readable when there is a request.
        session: takes requests until `wait` says no: `while await wait(): take and handle one`.
    """

    def __init__(self, fd: int, session: Callable[[], Awaitable[None]]) -> None:
        self._fd = fd
        self._session = session
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        self._poll = poller.poll
        self._until = 0.0
        self._guarded = False
        self._yielding = False
        self._retiring = False
        self._spares = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Serve until the session ends, as it does when the file system is unmounted; then cancel what still waits."""
        os.set_blocking(self._fd, False)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._worker)

    async def wait(self) -> bool:
        """Wait for a request to read.  False tells the worker to end, because there are enough others."""
        if self._guarded and not self._yielding and monotonic() < self._until and self._poll(0):
            return True
        return await self._turn()

    async def _turn(self) -> bool:
        while True:
            if self._yielding:
                if self._guarded:
                    await self._park()
                else:
                    await self._guard()
            elif monotonic() >= self._until:
                await self._yield()
            elif self._poll(GRACE_MS):
                self._leave_guard()
                return True
            elif not self._guarded:
                await self._guard()
            elif len(self._spares) < SPARES:
                await self._park()
            else:
                self._retiring = True
                return False

    async def _yield(self) -> None:
        self._yielding = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._yielding = False
        self._until = monotonic() + SLICE_S

    async def _guard(self) -> None:
        self._guarded = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        finally:
            self._guarded = False
        if not self._yielding:
            self._until = monotonic() + SLICE_S

    async def _park(self) -> None:
        await self._spares.park()
        self._guarded = False

    def _leave_guard(self) -> None:
        """Have a guard, or one on its way: it gives up the promise `_guarded` when it runs, and then looks for itself."""
        if self._guarded:
            return
        self._guarded = True
        if self._spares:
            self._spares.unpark()
        else:
            self._nursery.start_soon(self._worker)

    async def _worker(self) -> None:
        self._guarded = False
        while True:
            try:
                await self._session()
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
            else:
                break
        if self._retiring:
            self._retiring = False
        else:
            self._nursery.cancel_scope.cancel()


async def serve_requests(fd: int, kind: str = "poll") -> None:
    """Serve the mounted pyfuse3 session until it is unmounted.

    Args:
        fd: descriptor of the session.
        kind: "poll" for this loop, "stock" for that of pyfuse3.  A pyfuse3 without the names that this loop replaces
            gets the stock loop.
    """
    if kind == "stock" or not (hasattr(_fuse, "_wait_fuse_readable") and hasattr(_fuse, "_session_loop")):
        await pyfuse3.main(max_tasks=MAX_TASKS)
        return
    loop = PollFirst(fd, lambda: _fuse._session_loop(None, 1, NEVER))
    stock_wait, _fuse._wait_fuse_readable = _fuse._wait_fuse_readable, loop.wait
    try:
        await loop.run()
    finally:
        _fuse._wait_fuse_readable = stock_wait
