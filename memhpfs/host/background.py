"""Going on in the background, as daemons do: the caller waits until what it started is usable.

    caller: waits ── daemon: a session of its own, which works, says when it is ready, and works on

Until it is ready the daemon has the caller's streams and working directory, so errors and paths are what they are in
the foreground; and it ends when the caller does.  From then on it has nothing of the caller's.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from memhpfs.errors import UserError
from memhpfs.host.syscalls import die_with_parent

__all__ = ["in_background", "let_go"]

#: Signals that end a caller who waits, and then the daemon.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def in_background(work: Callable[[Callable[[], None]], int]) -> int:
    """Do work in a daemon, and wait until it is ready.  Call it before there are threads or event loops.

    It returns in both processes, and both end with what it returns; so the daemon tells its errors as everybody does.

    Args:
        work: gets a function to call when it is ready, after it has said so on the caller's streams.

    Returns:
        The exit code: in the daemon that of `work`; in the caller 0 when the daemon is ready, else the daemon's.

    Raises:
        UserError: in the caller: the daemon ended without a word.
        whatever `work` raises, in the daemon.
    """
    _fill_streams()
    _flush()
    caller = os.getpid()
    told, tells = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    child = os.fork()
    if child:
        os.close(tells)
        return _wait_for(child, told, mask)
    os.close(told)
    os.setsid()
    die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if os.getppid() != caller:
        return 1
    _close_inherited()
    return work(lambda: _ready(tells))


def let_go() -> None:
    """Let go of the caller's streams, also in other processes of a daemon that were started with them."""
    _flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)


def _ready(tells: int) -> None:
    """The daemon: from now on it does without the caller; one that is gone by now did not want it any more."""
    die_with_parent(0)
    os.chdir("/")
    let_go()
    try:
        os.write(tells, b"\n")
    except BrokenPipeError:
        os.kill(os.getpid(), signal.SIGTERM)
    os.close(tells)


def _wait_for(child: int, told: int, mask: set[signal.Signals | int]) -> int:
    """The caller: wait until the daemon is ready or ends; a signal that ends this process ends the daemon first."""
    got: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        got.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)

    # Whoever ignores a signal, as nohup has it, goes on ignoring it.
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ready = os.read(told, 1)
    # Either a signal ends both, or it comes too late: this process goes its way to exit code 0.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    if ready and not got:
        return 0
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if got:
        signal.signal(got[0], signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.kill(os.getpid(), got[0])
    if code <= 0:
        how = f" ({signal.strsignal(-code)})" if code else ""
        raise UserError(f"what was started in the background ended before it was ready{how}")
    return code


def _fill_streams() -> None:
    """Let no other descriptor take the place of a stream that the caller has closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(descriptor)


def _close_inherited() -> None:
    """Close what the caller had open besides its streams: what Python opens is not inherited by programs."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if descriptor > 2 and os.get_inheritable(descriptor):
                os.close(descriptor)


def _flush() -> None:
    """Write out what Python still holds of the streams; a stream that takes nothing has had its error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
