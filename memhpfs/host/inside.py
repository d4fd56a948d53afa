"""The first process of a private machine: mounts, the daemon, udevd, the command, and waiting for all of them.

Order: the private /proc, /dev and /run; the daemon; the private /sys, checked to be FUSE before anything else runs;
then udevd if wanted; then the command.  The command's end is the machine's end.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from attrs import frozen

from memhpfs.errors import UserError
from memhpfs.host.channel import Channel
from memhpfs.host.complain import complain
from memhpfs.host.namespaces import exit_code_of, fork_forwarding
from memhpfs.host.shell import set_environment, shell_command
from memhpfs.host.skeleton import build_sys, cover_proc
from memhpfs.host.syscalls import (
    FUSE_SUPER_MAGIC,
    bind,
    bring_up,
    die_with_parent,
    file_system_type,
    make_read_only,
    make_slave,
    mount,
    move,
)
from memhpfs.host.udevd import UdevOptions, start_udevd

__all__ = ["Inside", "exec_command", "qmp_inside", "working_directory"]

_ROOT = Path("/run/memhpfs")
_MODEL = _ROOT / "f"
_SYS = _ROOT / "sys"
_HOST = _ROOT / "host"
_READY = b"ready"
_PROC_FLAGS = 2 | 4 | 8
_EXIT_CANNOT, _EXIT_NOT_FOUND, _EXIT_NOT_EXECUTABLE = 125, 127, 126

_log = logging.getLogger(__name__)


@frozen
class Inside:
    """What runs inside.

    Attributes:
        command: program and arguments; none: the user's shell.
        serve: runs the daemon for a mount point and calls back when the tree is usable; never returns early.
        socket: path of the machine's socket on the host; the directory must be there.
        proc: whether /proc files are covered too.
        udev: a udevd of the machine's own, or None.
    """

    command: Sequence[str]
    serve: Callable[[str, Callable[[], None]], None]
    socket: str
    proc: bool = True
    udev: UdevOptions | None = None

    def __call__(self, channel: Channel) -> int:
        """Be init: build the machine, run the command, reap everything."""
        where = working_directory()
        try:
            self._private_mounts()
            daemon = self._start_daemon()
            self._private_sys()
            udevd = start_udevd(self.udev, channel.say) if self.udev is not None else 0
            channel.tell("built")
            name = channel.wait()
        except (OSError, UserError) as error:
            return channel.refuse(error)
        return _reap(self._start_command(where, name), daemon, udevd)

    def _private_mounts(self) -> None:
        """/proc of the new process namespace, /dev read-only, /run empty, the loopback interface up."""
        host = os.open(os.path.dirname(self.socket), os.O_PATH | os.O_CLOEXEC)
        make_slave()
        mount("proc", "/proc", "proc", _PROC_FLAGS)
        bind("/dev", "/dev")
        make_read_only("/dev", recursive=False)
        mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
        for path in (_MODEL, _SYS, _HOST, Path("/run/udev/rules.d"), Path("/run/lock")):
            path.mkdir(parents=True)
        bind(f"/proc/self/fd/{host}", str(_HOST))
        os.close(host)
        try:
            bring_up("lo")
        except OSError as error:
            # Without a user namespace it takes CAP_NET_ADMIN, which containers seldom have.
            _log.info("the loopback interface stays down: %s", error.strerror)

    def _start_daemon(self) -> int:
        """Start the daemon and wait until its tree is usable; its pid.

        Raises:
            UserError: it ended, with its reason.
        """
        ready_r, ready_w = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ready_r)
            _as_daemon(self.serve, ready_w)
        os.close(ready_w)
        with open(ready_r, "rb") as ready:
            said = ready.read()
        if said == _READY:
            return pid
        os.waitpid(pid, 0)
        raise UserError(said.decode(errors="replace") or "the daemon ended", _EXIT_CANNOT)

    def _private_sys(self) -> None:
        """Put the tree at the real paths.

        Raises:
            UserError: what is at /sys/devices/system/memory is not the model; nothing may run then.
        """
        mount("memhpfs-sys", str(_SYS), "tmpfs", 0, "mode=755,size=1m")
        build_sys(str(_SYS), "/sys", str(_MODEL / "sys"))
        move(str(_SYS), "/sys")
        make_read_only("/sys", recursive=False)
        if file_system_type("/sys/devices/system/memory") != FUSE_SUPER_MAGIC:
            raise UserError("/sys/devices/system/memory is not the machine's", _EXIT_CANNOT)
        if self.proc:
            cover_proc(str(_MODEL / "proc"))

    def _start_command(self, where: str, name: str) -> int:
        return fork_forwarding(lambda: exec_command(self.command or shell_command(name), where, self.socket, name))


def qmp_inside(socket: str) -> str:
    """Where a machine's socket is seen from inside."""
    return str(_HOST / os.path.basename(socket))


def working_directory() -> str:
    """Where the caller is; / where that directory is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def exec_command(command: Sequence[str], where: str, socket: str, machine: str) -> NoReturn:
    """Become the command; ends with 127 or 126 where there is none.

    Args:
        where: the directory to start it in, if that is there.
        socket: path of the machine's socket on the host.
        machine: the machine's name.
    """
    # Python ignores these; handlers are gone after exec by themselves.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.chdir(where)
    set_environment(machine, qmp_inside(socket))
    code = _EXIT_NOT_EXECUTABLE
    try:
        os.execvp(command[0], list(command))
    except (OSError, ValueError) as error:
        code = _EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else code
        complain(f"{command[0]}: {error.strerror if isinstance(error, OSError) else error}")
    finally:
        os._exit(code)


def _as_daemon(serve: Callable[[str, Callable[[], None]], None], ready: int) -> NoReturn:
    """The daemon's process: a session of its own, so that Ctrl-C does not reach it.

    Args:
        ready: a pipe that tells init once that the tree is usable, or why it is not.
    """
    told = False

    def tell(what: bytes) -> None:
        nonlocal told
        told = True
        os.write(ready, what)
        os.close(ready)

    code = _EXIT_CANNOT
    try:
        die_with_parent()
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        serve(str(_MODEL), lambda: tell(_READY))
        code = 0
    except UserError as error:
        if told:
            complain(str(error))
        else:
            tell(str(error).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap(command: int, daemon: int, udevd: int) -> int:
    """Wait for everybody; the command's exit code, or 125 when the daemon ends first.

    A dying daemon lets go of those who wait for it before it can be waited for.
    """
    while True:
        pid, status = os.wait()
        if pid == command and not _dying(daemon):
            return exit_code_of(status)
        if pid == daemon:
            complain("the machine's file system ended; the command was killed")
            return _EXIT_CANNOT
        if pid == udevd:
            complain("udevd ended; the machine goes on without it")


def _dying(pid: int) -> bool:
    """Whether a child is on its way out.  Linux: PF_EXITING among the flags in /proc/PID/stat."""
    return bool(int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[6]) & 4)
