"""Making the namespaces of a private machine, and saying why when the system forbids it.

    caller ── keeper: makes the namespaces, then waits ── init: first process of the machine

A machine gets a user namespace, also root's: only then do no uevents of the host get in, and its root may do nothing
to the host that the caller may not.  Where /proc is masked, as in containers, namespaces for processes and mounts made
before the user namespace help; where user namespaces are forbidden, root does without.

Everybody dies with the parent, so nothing outlives the caller; init's death ends all of the machine.
"""

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attrs import define, field, frozen

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

__all__ = ["PLANS", "CannotBuild", "Channel", "Plan", "exit_code_of", "forward_signals", "spawn", "why_forbidden"]

_PRIVATE = NEWNS | NEWNET | NEWIPC | NEWUTS
#: Signals that end a command: whoever stands between the caller and the command passes them on.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Signals of the terminal reach the command by themselves.
_IGNORED = (signal.SIGINT, signal.SIGQUIT)
_CREDENTIALS = struct.Struct("3i")
_ALL_IDS = "0 0 4294967295"
#: nosuid, nodev, noexec
_PROC_FLAGS = 2 | 4 | 8
_EXIT_CANNOT = 125


class CannotBuild(Exception):
    """A step of building the machine failed; another plan may do."""


@frozen
class Plan:
    """One way to make the namespaces.

    Attributes:
        name: for logs.
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


@define
class Channel:
    """How keeper and init talk to the caller: short texts, which arrive with the sender's pid as the caller sees it."""

    _caller: socket.socket = field(init=False)
    _inside: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._caller, self._inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._caller.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def tell(self, text: str) -> None:
        """Inside: tell the caller something."""
        self._inside.send(text.encode())

    def wait(self) -> None:
        """Inside: wait until the caller answers; ends the process when the caller is gone."""
        if not self._inside.recv(16):
            os._exit(_EXIT_CANNOT)

    def leave_caller(self) -> None:
        """Caller, after the fork: only the others hold the inner end from now on."""
        self._inside.close()

    def enter_inside(self) -> None:
        """Inside, after the fork."""
        self._caller.close()

    def receive(self) -> tuple[str, int]:
        """Caller: the next text and its sender's pid; an empty text when everybody inside is gone."""
        data, ancillary, _, _ = self._caller.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        pid = _CREDENTIALS.unpack(ancillary[0][2])[0] if ancillary else 0
        return data.decode(), pid

    def answer(self) -> None:
        """Caller: let the one that waits go on."""
        self._caller.send(b"go")

    def close(self) -> None:
        """Caller: the talk is over."""
        self._caller.close()


def spawn(plan: Plan, init: Callable[[Channel], int], report: Callable[[int], None]) -> int:
    """Run `init` as the first process of new namespaces, and wait for it.

    Args:
        init: says "built" on the channel when the machine is ready, or "failed: WHY"; its result is the exit code.
        report: told init's pid when the machine is built.

    Returns:
        The exit code.

    Raises:
        CannotBuild: the machine could not be built this way.
    """
    channel = Channel()
    keeper = os.fork()
    if not keeper:
        channel.enter_inside()
        _as_process(lambda: _keep(plan, init, channel))
    channel.leave_caller()
    forward_signals(keeper)
    try:
        _accompany(plan, channel, report)
    except BaseException:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        raise
    finally:
        channel.close()
    return exit_code_of(os.waitpid(keeper, 0)[1])


def _accompany(plan: Plan, channel: Channel, report: Callable[[int], None]) -> None:
    """The caller's part until the machine is built."""
    while True:
        text, pid = channel.receive()
        if text == "unshared":
            if plan.flags & NEWUSER:
                _map_ids(pid)
            channel.answer()
        elif text == "built":
            report(pid)
            return
        else:
            raise CannotBuild(text.removeprefix("failed: ") or "the machine ended before it was built")


def _map_ids(pid: int) -> None:
    """Root keeps all ids; anybody else becomes root inside, and nobody but themselves outside."""
    proc = Path(f"/proc/{pid}")
    try:
        if os.geteuid() == 0:
            (proc / "uid_map").write_text(_ALL_IDS)
            (proc / "gid_map").write_text(_ALL_IDS)
        else:
            (proc / "setgroups").write_text("deny")
            (proc / "uid_map").write_text(f"0 {os.geteuid()} 1")
            (proc / "gid_map").write_text(f"0 {os.getegid()} 1")
    except OSError as error:
        raise CannotBuild(f"mapping user ids: {error.strerror}") from None


def _keep(plan: Plan, init: Callable[[Channel], int], channel: Channel) -> int:
    """The keeper: make the namespaces, start init in them and wait for it."""
    die_with_parent()
    try:
        if plan.first:
            unshare(plan.first)
            inner = os.fork()
            if inner:
                forward_signals(inner)
                return exit_code_of(os.waitpid(inner, 0)[1])
            die_with_parent()
            make_slave()
            mount("proc", "/proc", "proc", _PROC_FLAGS)
        unshare(plan.flags)
    except OSError as error:
        channel.tell(f"failed: {error.strerror}")
        return _EXIT_CANNOT
    channel.tell("unshared")
    channel.wait()
    # The new user namespace cleared it.
    die_with_parent()
    child = os.fork()
    if not child:
        _as_process(lambda: _start_init(init, channel))
    forward_signals(child)
    return exit_code_of(os.waitpid(child, 0)[1])


def _start_init(init: Callable[[Channel], int], channel: Channel) -> int:
    die_with_parent()
    os.setuid(0)
    os.setgid(0)
    return init(channel)


def _as_process(work: Callable[[], int]) -> NoReturn:
    """Be a child process: whatever happens, never return into the parent's code."""
    code = _EXIT_CANNOT
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code_of(status: int) -> int:
    """The exit code that a shell would tell: 128 plus the signal for a killed process."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def forward_signals(child: int) -> None:
    """Pass signals that end a command on to a child; leave those of the terminal to the command."""
    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)


def why_forbidden() -> str:
    """Which setting forbids user namespaces here, and what works instead; a guess where nothing tells."""
    settings = (
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
         "kernel.apparmor_restrict_unprivileged_userns=1"),
    )
    found = [name for path, bad, name in settings if _content(path) == bad]
    why = f"the setting {found[0]} forbids it" if found else "seccomp or a missing capability forbids it"
    root = "" if os.geteuid() == 0 else "run it as root, or "
    return f"{why}; {root}use 'memhpfs mount DIR' and --sysroot DIR instead"


def _content(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
