"""Runs Ops: decides how long a pause lasts, who is woken, and where effects go.

Lives here: stepping Ops, the queue for the hotplug lock, the guest's work queue, the journal's way out, taint.
Must not: FUSE requests (fuse.py), QMP (qmp_server.py), what a step does (kernel/).

Invariants: the journal is empty whenever a task may wait, so effects leave in the order the model made them, and before
the write that caused them is answered; an Op that does not end is closed, which undoes what it began.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Generic, Protocol, TypeVar

import trio
from attrs import define, field, frozen

from memhpfs.errors import Interrupted, SysError
from memhpfs.host.caller import Caller
from memhpfs.kernel.journal import Entry, LogRecord, Uevent
from memhpfs.kernel.pause import LOCK, Nudge, Op, Pause
from memhpfs.kernel.state import Kernel
from memhpfs.sysfs import klog, uevent
from memhpfs.sysfs.tree import Stale, Tree

__all__ = ["BUSY_S", "Driver", "LogSink", "UeventSink"]

T = TypeVar("T")
#: How long an Op runs through pauses that cost nothing before others get a turn, in seconds.
BUSY_S = 0.0005

_log = logging.getLogger(__name__)


class UeventSink(Protocol):
    """Where uevents go."""

    @property
    def settled(self) -> bool: ...
    def send(self, action: str, devpath: str, subsystem: str, extra: tuple[str, ...] = ()) -> None: ...
    async def settle(self) -> None: ...


class CacheSink(Protocol):
    """Where news of stale names goes."""

    @property
    def settled(self) -> bool: ...
    def drop(self, stale: Stale) -> None: ...
    async def settle(self) -> None: ...


class LogSink(Protocol):
    """Where lines of the kernel's log go, with the seconds since the machine's start."""

    def __call__(self, seconds: float, level: str, text: str) -> None: ...


@frozen
class _Done(Generic[T]):
    value: T


@define(eq=False)
class Driver:
    """The clock and the outside of one machine.

    Attributes:
        kernel, tree: the model and its files.
        uevents: where uevents go; None: nowhere.
        caches: where stale names go; None before the mount.
        work: Ops of the guest, run one after the other.
        guest_idle: called when the guest is through with one piece of work, after all its effects are out.
        kernel_log: where lines of the kernel's log go; None: nowhere but to the daemon's own log.
        tainted: what went wrong in the model itself, one line each.
    """

    kernel: Kernel
    tree: Tree
    uevents: UeventSink | None = None
    caches: CacheSink | None = None
    work: deque[Op[object]] = field(factory=deque)
    guest_idle: Callable[[], None] = lambda: None
    kernel_log: LogSink | None = None
    tainted: list[str] = field(factory=list, init=False)
    _started: float = field(factory=monotonic, init=False)
    _lock_queue: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _waking: bool = field(default=False, init=False)
    _guest_queue: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    async def run(self, op: Op[T], caller: Callable[[], AbstractContextManager[Caller]] | None = None) -> T:
        """Run an Op to its end, and wait until its effects are visible everywhere.

        Does not wait at all where the Op has no pause that lasts.

        Args:
            caller: makes the process that waits for it; called only if the Op really waits.

        Raises:
            Interrupted: the caller is dying, and the Op was still waiting for the hotplug lock.
            whatever the Op raises.
        """
        try:
            at = self._advance(op, None)
            if isinstance(at, Pause):
                with caller() if caller is not None else nullcontext() as who:
                    while isinstance(at, Pause):
                        at = self._advance(op, await self._wait(at, who))
        finally:
            op.close()
            self.flush()
            await self._settle()
        return at.value

    async def run_guest(self) -> None:
        """Run the guest's work in order, until cancelled."""
        while True:
            while not self.work:
                await self._guest_queue.park()
            try:
                await self.run(self.work.popleft())
            except SysError as refusal:
                _log.info("the guest: %s", refusal)
            except Exception as error:
                self.bug("the guest", error)
            self.guest_idle()

    def wake_guest(self) -> None:
        """The hardware may have work for the guest, or have changed the model itself."""
        self.flush()
        self._guest_queue.unpark_all()

    def flush(self) -> None:
        """Send out what the journal holds; let the next waiter try the hotplug lock if it is free."""
        if self.kernel.journal:
            for entry in self.kernel.journal.drain():
                if isinstance(entry, Uevent):
                    self._send(entry)
                elif isinstance(entry, LogRecord):
                    self._print(entry)
                else:
                    self._forget(entry)
        if self._lock_queue and self.kernel.lock.owner is None and not self._waking:
            self._waking = True
            self._lock_queue.unpark()

    def bug(self, where: str, error: Exception) -> None:
        """Note a mistake of the model itself: it is logged, and the machine goes on as tainted."""
        _log.error("%s: this is a bug in memhpfs; the machine is tainted", where, exc_info=error)
        self.tainted.append(f"{where}: {type(error).__name__}: {error}")
        self._say("err", f"BUG in memhpfs, the machine is tainted: {self.tainted[-1]}")

    def _advance(self, op: Op[T], nudge: Nudge | None) -> "Pause | _Done[T]":
        """Resume an Op up to a pause that lasts, or to its end; pauses that cost nothing end after BUSY_S."""
        busy_until = monotonic() + BUSY_S
        try:
            while True:
                pause = op.send(nudge)  # type: ignore[arg-type]
                if pause.cost_ns or pause.for_lock or monotonic() >= busy_until:
                    return pause
                nudge = Nudge.GO
        except StopIteration as end:
            return _Done(end.value)
        finally:
            self.flush()

    async def _wait(self, pause: Pause, caller: Caller | None) -> Nudge:
        """Let a pause last, at least until what was removed is gone for everybody."""
        await self._settle()
        if pause is LOCK:
            await self._wait_for_lock(caller)
        elif caller is None or not pause.interruptible:
            await trio.sleep(pause.cost_ns / 1e9)
        else:
            await caller.sleep(pause.cost_ns / 1e9)
            if caller.signalled:
                return Nudge.SIGNAL
        return Nudge.GO

    async def _settle(self) -> None:
        for way in (self.uevents, self.caches):
            if way is not None and not way.settled:
                await way.settle()

    async def _wait_for_lock(self, caller: Caller | None) -> None:
        """Queue for the hotplug lock.

        Linux lets a writer sleep 5 ms and starts its system call over, which gives signal handlers a turn.  Here it
        sleeps until the lock is free.  Each flush while the lock is free wakes one waiter, in order.
        """
        try:
            if caller is None:
                await self._lock_queue.park()
            else:
                await caller.sleep(math.inf, self._lock_queue)
        finally:
            self._waking = False
        if caller is not None and caller.signalled:
            if caller.dying():
                raise Interrupted()
            caller.restart()

    def _send(self, event: Uevent) -> None:
        if self.uevents is not None:
            message = uevent.message(event)
            self.uevents.send(message.action, message.devpath, message.subsystem, message.extra)

    def _print(self, record: LogRecord) -> None:
        level, text = klog.line(record)
        _log.info("kernel: %s", text)
        self._say(level, text)

    def _say(self, level: str, text: str) -> None:
        if self.kernel_log is not None:
            self.kernel_log(monotonic() - self._started, level, text)

    def _forget(self, entry: Entry) -> None:
        self.drop(self.tree.stale(entry))

    def drop(self, stale: Stale) -> None:
        """Make the kernel forget names and attributes; gone for good once the caches are settled."""
        if self.caches is not None:
            self.caches.drop(stale)
