"""The first process of a private machine: mounts, the daemon, udevd, the command, and waiting for all of them.

Order: the private /proc, /dev and /run; the daemon; the private /sys, checked to be FUSE before anything else runs;
then udevd if wanted; then the command.  The command's end is the machine's end.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from attrs import frozen

from memhpfs.errors import UserError
from memhpfs.host.namespaces import Channel, exit_code_of
from memhpfs.host.skeleton import build_sys, cover_proc
from memhpfs.host.syscalls import (
    FUSE_SUPER_MAGIC,
    bind,
    die_with_parent,
    file_system_type,
    make_read_only,
    make_slave,
    mount,
    move,
)
from memhpfs.host.udevd import UdevOptions, start_udevd

__all__ = ["QMP_INSIDE", "Inside"]

_ROOT = Path("/run/memhpfs")
_MODEL = _ROOT / "f"
_SYS = _ROOT / "sys"
_HOST = _ROOT / "host"
#: The machine's socket, as seen from inside.
QMP_INSIDE = str(_HOST / "qmp")
_PROC_FLAGS = 2 | 4 | 8
_EXIT_CANNOT, _EXIT_NOT_FOUND, _EXIT_NOT_EXECUTABLE = 125, 127, 126


@frozen
class Inside:
    """What runs inside.

    Attributes:
        command: program and arguments.
        serve: runs the daemon for a mount point and calls back when the tree is usable; never returns early.
        host_dir: a directory of the host that holds the machine's socket.
        proc: whether /proc files are covered too.
        udev: a udevd of the machine's own, or None.
    """

    command: Sequence[str]
    serve: Callable[[str, Callable[[], None]], None]
    host_dir: str
    proc: bool = True
    udev: UdevOptions | None = None

    def __call__(self, channel: Channel) -> int:
        """Be init: build the machine, run the command, reap everything."""
        where = os.getcwd()
        try:
            self._private_mounts()
            daemon = self._start_daemon()
            self._private_sys()
            udevd = start_udevd(self.udev) if self.udev is not None else 0
        except (OSError, UserError) as error:
            channel.tell(f"failed: {_say(error)}")
            return _EXIT_CANNOT
        command = self._start_command(where)
        channel.tell("built")
        return _reap(command, daemon, udevd)

    def _private_mounts(self) -> None:
        """/proc of the new process namespace, /dev read-only, /run empty."""
        host = os.open(self.host_dir, os.O_PATH | os.O_CLOEXEC)
        make_slave()
        mount("proc", "/proc", "proc", _PROC_FLAGS)
        bind("/dev", "/dev")
        make_read_only("/dev", recursive=False)
        mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
        for path in (_MODEL, _SYS, _HOST, Path("/run/udev/rules.d"), Path("/run/lock")):
            path.mkdir(parents=True)
        bind(f"/proc/self/fd/{host}", str(_HOST))
        os.close(host)

    def _start_daemon(self) -> int:
        """Start the daemon and wait until its tree is usable; its pid.

        Raises:
            UserError: it ended; its reason is on stderr.
        """
        ready_r, ready_w = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ready_r)
            _as_daemon(self.serve, ready_w)
        os.close(ready_w)
        with open(ready_r, "rb", buffering=0) as ready:
            if ready.read(1):
                return pid
        os.waitpid(pid, 0)
        raise UserError("the file system could not be mounted", _EXIT_CANNOT)

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

    def _start_command(self, where: str) -> int:
        pid = os.fork()
        if not pid:
            with contextlib.suppress(OSError):
                os.chdir(where)
            exec_command(self.command)
        return pid


def exec_command(command: Sequence[str]) -> NoReturn:
    """Become the command; ends with 127 or 126 where there is none."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                   signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.environ["MEMHPFS_QMP"] = QMP_INSIDE
    os.environ["SYSTEMD_DEVICE_VERIFY_SYSFS"] = "0"
    if shutil.which("memhpfs") is None:
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    code = _EXIT_NOT_EXECUTABLE
    try:
        os.execvp(command[0], list(command))
    except (OSError, ValueError) as error:
        code = _EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else code
        print(f"memhpfs: {command[0]}: {_say(error)}", file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _as_daemon(serve: Callable[[str, Callable[[], None]], None], ready: int) -> NoReturn:
    """The daemon's process: a session of its own, so that Ctrl-C does not reach it."""
    code = _EXIT_CANNOT
    try:
        die_with_parent()
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        serve(str(_MODEL), lambda: _close_after(ready))
        code = 0
    except UserError as error:
        print(f"memhpfs: {error}", file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _close_after(ready: int) -> None:
    os.write(ready, b"1")
    os.close(ready)


def _reap(command: int, daemon: int, udevd: int) -> int:
    """Wait for everybody; the command's exit code, or 125 when the daemon ends first."""
    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(command, number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    while True:
        pid, status = os.wait()
        if pid == command:
            return exit_code_of(status)
        if pid == daemon:
            with contextlib.suppress(ProcessLookupError):
                os.kill(command, signal.SIGKILL)
            print("memhpfs: the machine's file system ended; the command was killed", file=sys.stderr)
            sys.stderr.flush()
            return _EXIT_CANNOT
        if pid == udevd:
            print("memhpfs: udevd ended; the machine goes on without it", file=sys.stderr)
            sys.stderr.flush()


def _say(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    return str(error)
