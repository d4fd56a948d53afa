"""The request loop: who takes the next FUSE request, and how it waits for one.

Lives here: a replacement for the waiting of pyfuse3, which goes through trio's epoll, a lock and a task switch for each
request.  Here the worker on duty polls the descriptor itself.  Must not: what a request does (fuse.py), when an Op goes
on (driver.py).

A worker is a task that takes requests one after the other.  It is on duty, parked as a spare, or away: suspended inside
a handler.

Invariants: at most one worker is on duty; when its handler suspends, another one goes on duty before trio runs anything
else, so a handler that waits never stops the file system; the worker on duty lets trio run at least every SLICE_S; with
no request for GRACE_MS it waits in trio.

The descriptor is made non-blocking, because a request that was there at poll() can be gone at read() when its caller
was killed.  pyfuse3 then raises EAGAIN, and the worker starts over.
"""

import errno
import os
import select
from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from types import coroutine
from typing import Any

import pyfuse3
import trio

__all__ = ["GRACE_MS", "MAX_TASKS", "SLICE_S", "SPARES", "SPIN_S", "PollFirst", "serve_requests"]

#: How long the worker on duty keeps trio from running, in seconds.
SLICE_S = 0.002
#: How long it looks for the next request without sleeping, in seconds: a client on another processor is faster than
#: the interrupt that wakes this one.
SPIN_S = 0.00003
#: How long it then sleeps in poll() for a request before it waits in trio, in milliseconds.
GRACE_MS = 1
#: How many spare workers are kept.
SPARES = 4
#: Limit of the stock loop on handlers that wait at the same time.
MAX_TASKS = 2000
#: As a limit of tasks: no number of tasks is below it, so pyfuse3 starts none on its own.
NEVER = -(1 << 31)

_fuse: Any = pyfuse3
Session = Callable[[], Coroutine[Any, Any, None]]


class PollFirst:
    """The workers of one FUSE descriptor.

    Args:
        fd: the descriptor; readable when there is a request.
        session: takes requests until `wait` says no: `while await wait(): take and handle one`.
    """

    def __init__(self, fd: int, session: Session) -> None:
        self._fd = fd
        self._session = session
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        self._poll = poller.poll
        self._on_duty: trio.lowlevel.Task | None = None
        #: End of the slice, as long as the worker on duty is the running task; else 0.
        self._until = 0.0
        self._spares = trio.lowlevel.ParkingLot()
        self._retiring = False

    async def run(self) -> None:
        """Serve until the session ends, as it does when the file system is unmounted; then cancel what still waits."""
        os.set_blocking(self._fd, False)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._worker)

    async def wait(self) -> bool:
        """Wait for a request to read.  False tells the worker to end, because there are enough others."""
        if monotonic() < self._until and (self._poll(0) or self._spin()):
            return True
        return await self._turn()

    def _spin(self) -> bool:
        """Look for the next request a little longer; whoever shares the processor goes first."""
        end = monotonic() + SPIN_S
        while monotonic() < end:
            os.sched_yield()
            if self._poll(0):
                return True
        return False

    async def _turn(self) -> bool:
        me = trio.lowlevel.current_task()
        while self._on_duty is not me:
            if self._on_duty is None:
                self._on_duty = me
            elif len(self._spares) < SPARES:
                await self._spares.park()
            else:
                self._retiring = True
                return False
        while True:
            in_slice = monotonic() < self._until
            if in_slice and self._poll(GRACE_MS):
                return True
            self._until = 0.0
            if in_slice:
                await trio.lowlevel.wait_readable(self._fd)
            else:
                await trio.lowlevel.checkpoint()
            self._until = monotonic() + SLICE_S

    async def _worker(self) -> None:
        while True:
            try:
                await self._relay(self._session())
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
            else:
                break
        if self._retiring:
            self._retiring = False
        else:
            self._nursery.cancel_scope.cancel()

    @coroutine
    def _relay(self, session: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Await a session, and see when it suspends: inside a handler if it is on duty and not in `wait`."""
        resume, value = session.send, None
        while True:
            try:
                suspended = resume(value)
            except StopIteration:
                return
            if self._until:
                self._hand_over()
            try:
                resume, value = session.send, (yield suspended)
            except BaseException as error:
                resume, value = session.throw, error

    def _hand_over(self) -> None:
        self._on_duty, self._until = None, 0.0
        if self._spares:
            self._spares.unpark()
        else:
            self._nursery.start_soon(self._worker)


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
