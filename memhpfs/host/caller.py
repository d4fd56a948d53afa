"""The process behind a request, as far as an Op that waits must know it: has it a signal, is it dying?

Lives here: a sleep that a signal ends, and the look into /proc that finds signals without help from libfuse.
Must not: how libfuse tells of a signal (interrupt.py), what an Op does with one (driver.py).

A task that waits for a FUSE reply is in state S.  When it gets a signal, the kernel sends FUSE_INTERRUPT, once, and
lets it go on waiting in state D, whatever the signal; the signal stays pending until the reply.
Source: request_wait_answer (fs/fuse/dev.c); complete_signal (kernel/signal.c).
"""

import signal

import trio

__all__ = ["LOOK_EVERY_S", "Caller"]

#: How often a caller is looked at where libfuse does not tell of signals, in seconds.
LOOK_EVERY_S = 0.003

_KILL = 1 << (signal.SIGKILL - 1)
#: Signals whose default action is a core dump.  Every other fatal signal becomes SIGKILL when it is sent.
_CORE = sum(1 << (number - 1) for number in (
    signal.SIGQUIT, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV,
    signal.SIGXCPU, signal.SIGXFSZ, signal.SIGSYS,
))


class Caller:
    """Who waits for the reply to one request.

    Attributes:
        tid: its thread id, 0 if it is not visible from here.
        signalled: it has a signal pending that ends an interruptible sleep.
    """

    def __init__(self, tid: int, *, watched: bool = False) -> None:
        """`watched`: nobody calls `signal`, so look at the thread while it waits."""
        self.tid = tid
        self.signalled = False
        self._watched = watched
        self._handled = 0
        self._sleep: trio.CancelScope | None = None

    def signal(self) -> None:
        """Tell of a signal; ends a sleep."""
        self.signalled = True
        if self._sleep is not None:
            self._sleep.cancel()

    async def sleep(self, seconds: float, lot: trio.lowlevel.ParkingLot | None = None) -> None:
        """Sleep, but not longer than until a signal, or until `lot` wakes its tasks."""
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + seconds
            self._sleep = nursery.cancel_scope
            if self.signalled:
                nursery.cancel_scope.cancel()
            if self._watched and self.tid:
                nursery.start_soon(self._watch)
            if lot is None:
                await trio.sleep_forever()
            else:
                await lot.park()
            nursery.cancel_scope.cancel()
        self._sleep = None

    def dying(self) -> bool:
        """Whether a pending signal ends the process; also when it is gone, or not visible from here."""
        masks = _signals(self.tid)
        if masks is None:
            return True
        pending, blocked, ignored, caught = masks
        return bool(pending & _KILL or pending & _CORE & ~blocked & ~ignored & ~caught)

    def restart(self) -> None:
        """The system call starts over: Linux would now run the handlers of the signals there are.

        They do not interrupt what follows.  Further ones are not told of by the kernel, so they are looked for.
        """
        masks = _signals(self.tid)
        self._handled |= masks[0] if masks else 0
        self._watched, self.signalled = True, False

    async def _watch(self) -> None:
        while not self.signalled:
            if _state(self.tid) == "D":
                masks = _signals(self.tid)
                if masks and masks[0] & ~masks[1] & ~self._handled:
                    self.signal()
            await trio.sleep(LOOK_EVERY_S)


def _state(tid: int) -> str:
    """State letter of a thread, "" if it is gone.  Linux: /proc/TID/stat."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1].decode()
    except OSError:
        return ""


def _signals(tid: int) -> tuple[int, int, int, int] | None:
    """Signals of a thread: pending (its own and its process's), blocked, ignored, caught; None if it cannot be seen."""
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            lines = dict(line.split(b":\t", 1) for line in file.read().splitlines() if b":\t" in line)
    except OSError:
        return None
    own, shared, blocked, ignored, caught = (
        int(lines[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")
    )
    return own | shared, blocked, ignored, caught
