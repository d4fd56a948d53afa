"""Making the namespaces of a private machine, and saying why when the system forbids it.

    caller ── keeper: makes the namespaces, then waits ── init: first process of the machine

A machine gets a user namespace, also root's: only then do no uevents of the host get in, and its root may do nothing
to the host that the caller may not.  Where /proc is masked, as in containers, namespaces for processes and mounts made
before the user namespace help; where user namespaces are forbidden, root does without.

Everybody dies with the parent, so nothing outlives the caller; init's death ends all of the machine.  Its files on the
host are removed by keeper and caller, so that one of them may be killed.

Signals: until the machine is built they end the caller, and with it everything.  From then on those of the terminal are
the command's own affair, and those that end a command are passed on to it.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attrs import frozen

from memhpfs.errors import UserError
from memhpfs.host.background import let_go
from memhpfs.host.channel import SAY, Channel
from memhpfs.host.complain import complain
from memhpfs.host.ids import map_ids
from memhpfs.host.registry import Files
from memhpfs.host.syscalls import (
    NEWIPC,
    NEWNET,
    NEWNS,
    NEWPID,
    NEWUSER,
    NEWUTS,
    die_with_parent,
    make_slave,
    mount,
    unshare,
)

__all__ = [
    "PLANS", "CannotBuild", "Plan", "exit_code_of", "fork_forwarding", "run_child", "spawn", "why_forbidden",
]

_PRIVATE = NEWNS | NEWNET | NEWIPC | NEWUTS
#: Signals that end a command: whoever stands between the caller and the command passes them on.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Signals of the terminal reach the command by themselves.
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
#: Tells a process that its parent is dead.
_ORPHANED = signal.SIGRTMIN
#: Settings that forbid user namespaces, and the value that does.
_SETTINGS = (
    ("user.max_user_namespaces", "0"),
    ("kernel.unprivileged_userns_clone", "0"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
)
#: nosuid, nodev, noexec
_PROC_FLAGS = 2 | 4 | 8
_EXIT_CANNOT = 125


class CannotBuild(Exception):
    """A step of building the machine failed; another plan may do.

    Attributes:
        forbidden: the system does not allow what the plan needs.
    """

    def __init__(self, why: str, *, forbidden: bool = False) -> None:
        super().__init__(why)
        self.forbidden = forbidden


@frozen
class Plan:
    """One way to make the namespaces.

    Attributes:
        name: for messages.
        first: namespaces made before the others, with a /proc of their own.
        flags: the machine's own namespaces.
        needs_root: whether only root can do it.
    """

    name: str
    first: int
    flags: int
    needs_root: bool = False


PLANS = (
    Plan("with a user namespace", 0, NEWUSER | NEWPID | _PRIVATE),
    Plan("with a user namespace inside a process namespace", NEWNS | NEWPID, NEWUSER | NEWPID | _PRIVATE, True),
    Plan("without a user namespace", 0, NEWPID | _PRIVATE, True),
)


def spawn(
    plan: Plan, init: Callable[[Channel], int], report: Callable[[int], str], files: Files, *, detached: bool
) -> int:
    """Run `init` as the first process of new namespaces, and wait for it.

    Args:
        init: says "built" on the channel when the machine is ready and waits for the answer, or refuses; its result is
            the exit code.
        report: told init's pid when the machine is built; the machine's name.
        files: made and removed by the keeper; the caller removes them once more, as the keeper may be killed.
        detached: the machine gets none of the caller's streams.

    Returns:
        The exit code.

    Raises:
        CannotBuild: the machine could not be built this way.
        UserError: nor in any other way: what the caller wants cannot be used.
    """
    channel = Channel()
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)
    keeper = _fork_keeper(plan, init, channel, files, detached=detached)
    channel.leave_caller()
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        name = _accompany(plan, channel, report)
        forward_signals(keeper)
        channel.answer(name)
    except BaseException:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        raise
    finally:
        channel.close()
    return exit_code_of(os.waitpid(keeper, 0)[1])


def _fork_keeper(
    plan: Plan, init: Callable[[Channel], int], channel: Channel, files: Files, *, detached: bool
) -> int:
    """Start the keeper, with the signals of the terminal blocked: one that comes meanwhile is the caller's, and none
    finds the keeper, nor what it starts, without a handler.
    """
    caller = os.getpid()
    keeper = os.fork()
    if not keeper:
        _leave_to_command()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINAL)
        channel.enter_inside()
        if detached:
            let_go()
        _as_process(lambda: _keep(plan, init, channel, files, caller))
    return keeper


def _accompany(plan: Plan, channel: Channel, report: Callable[[int], str]) -> str:
    """The caller's part until the machine is built."""
    while True:
        text, pid = channel.receive()
        if text == "unshared":
            if plan.flags & NEWUSER:
                _map_ids(pid)
            channel.answer()
        elif text == "built":
            return report(pid)
        elif text.startswith(SAY):
            complain(text.removeprefix(SAY))
        else:
            kind, _, why = text.partition(": ")
            if kind == "misused":
                raise UserError(why, 2)
            raise CannotBuild(why or "the machine ended before it was built", forbidden=kind == "forbidden")


def _map_ids(pid: int) -> None:
    try:
        map_ids(pid)
    except OSError as error:
        raise CannotBuild(f"mapping user ids: {error.strerror}", forbidden=True) from None


def _keep(plan: Plan, init: Callable[[Channel], int], channel: Channel, files: Files, caller: int) -> int:
    """The keeper: start the machine, wait for it, and tidy up, as the caller may not live to do it."""
    signal.signal(_ORPHANED, lambda *_: None)
    try:
        die_with_parent(_ORPHANED)
        files.make()
        if plan.first:
            unshare(plan.first)
            return run_child(lambda: _keep_inner(plan, init, channel), caller)
        _unshare(plan, channel)
        return run_child(lambda: _start_init(init, channel), caller)
    except OSError as error:
        return channel.refuse(error)
    finally:
        files.remove()


def _keep_inner(plan: Plan, init: Callable[[Channel], int], channel: Channel) -> int:
    """The first process of the namespaces that a plan makes before the others."""
    try:
        die_with_parent()
        make_slave()
        mount("proc", "/proc", "proc", _PROC_FLAGS)
        _unshare(plan, channel)
        # The new user namespace cleared it.
        die_with_parent()
        return _wait_for(fork_forwarding(lambda: _start_init(init, channel)))
    except OSError as error:
        return channel.refuse(error)


def _unshare(plan: Plan, channel: Channel) -> None:
    """Make the machine's namespaces; the caller maps the ids."""
    unshare(plan.flags)
    channel.tell("unshared")
    channel.wait()


def _start_init(init: Callable[[Channel], int], channel: Channel) -> int:
    die_with_parent()
    os.setuid(0)
    os.setgid(0)
    return init(channel)


def fork_forwarding(main: Callable[[], int]) -> int:
    """Fork, and pass signals on to the child from its first moment on; its pid.

    Args:
        main: what the child does; its result is the exit code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        _as_process(main)
    forward_signals(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    return child


def run_child(main: Callable[[], int], parent: int) -> int:
    """Run a child process and wait for it; the parent's death is its death.

    Who dies with the parent at once leaves the child to somebody else, and a namespace ends only when its last process
    was waited for.

    Args:
        main: what the child does; its result is the exit code.
        parent: pid of this process's parent.

    Returns:
        The child's exit code.
    """
    child = 0

    def end(*_: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)

    signal.signal(_ORPHANED, end)
    die_with_parent(_ORPHANED)
    child = fork_forwarding(main)
    if os.getppid() != parent:
        end()
    return _wait_for(child)


def _as_process(work: Callable[[], int]) -> NoReturn:
    """Be a child process: whatever happens, never return into the parent's code."""
    code = _EXIT_CANNOT
    try:
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _wait_for(child: int) -> int:
    return exit_code_of(os.waitpid(child, 0)[1])


def exit_code_of(status: int) -> int:
    """The exit code that a shell would tell: 128 plus the signal for a killed process."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def forward_signals(child: int) -> None:
    """Pass signals that end a command on to a child; leave those of the terminal to the command.

    Whoever ignores a signal, as nohup has it, goes on ignoring it.
    """
    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        _handle(number, forward)
    _leave_to_command()


def _leave_to_command() -> None:
    """Do nothing at a signal of the terminal.  Unlike an ignored one it is back to its default in the command."""
    for number in _OF_TERMINAL:
        _handle(number, lambda *_: None)


def _handle(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


def why_forbidden() -> str:
    """Which setting forbids user namespaces here, and what works instead; a guess where nothing tells."""
    found = [f"{name}={bad}" for name, bad in _SETTINGS if _content(f"/proc/sys/{name.replace('.', '/')}") == bad]
    why = f"the setting {found[0]} forbids it" if found else "seccomp or a missing capability forbids it"
    if os.geteuid() != 0:
        return f"{why}; run it as root, or use 'memhpfs mount DIR' and --sysroot DIR instead"
    return f"{why}; 'memhpfs help containers' tells what a container must be allowed"


def _content(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
