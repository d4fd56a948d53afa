"""Where running machines leave word of themselves, so that other commands find them.

A machine has two files in the runtime directory, named after the process of memhpfs: PID.json says what it is,
PID.qmp is its socket; `run` has a directory PID.d for the socket instead.  They go when the machine ends; those of a
machine that was killed with all its processes are recognised by the dead process, and removed by whoever finds them.
Entries written in another process namespace are left alone: their pids mean nothing here.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from memhpfs.errors import UserError

__all__ = [
    "Entry", "Files", "alone", "entries", "find", "named", "runtime_dir", "socket_path", "wait_until_gone",
    "withdraw", "write_entry",
]

#: How long to wait for others who choose a name, and how often to look, in seconds.
_PATIENCE_S, _TICK_S = 1.0, 0.005


@frozen
class Entry:
    """A running machine.

    Attributes:
        pid: the process that ends with it (for `run` the machine's first process), as the host sees it.
        kind: "mount" or "run".
        machine: name of the machine file or preset.
        name: the same, with a number where that is taken: no other machine of this user has it.
        where: the mount point, or the command.
        qmp: path of its socket, as the host sees it.
        started: seconds since the epoch.
        pids: inode number of the process namespace that `pid` belongs to.
    """

    pid: int
    kind: str
    machine: str
    where: str
    qmp: str
    started: float
    pids: int = 0
    name: str = ""


def runtime_dir() -> Path:
    """The directory for sockets; made if need be, for its owner only.

    It is in $XDG_RUNTIME_DIR; without that root has /run/memhpfs, and whoever is not allowed there one in /tmp.

    Raises:
        UserError: it cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return _own_directory(Path(base) / "memhpfs")
    if os.geteuid() == 0:
        with contextlib.suppress(UserError):
            return _own_directory(Path("/run/memhpfs"))
    return _own_directory(Path(f"/tmp/memhpfs-{os.geteuid()}"))


def _own_directory(path: Path) -> Path:
    """A directory that only this user may write to; made if need be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; set XDG_RUNTIME_DIR to a directory of yours") from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UserError(f"{path} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of yours")
    return path


def socket_path() -> str:
    """Where the socket of this process's machine stands by default."""
    return str(runtime_dir() / f"{os.getpid()}.qmp")


class Files:
    """The files of one machine that `run` starts: word of it, and its socket.  Made by the process that starts it.

    They are reached from directories that were opened at first, so mounts made later do not hide them.

    Args:
        socket: path of the socket, if it is not to lie in a directory of its own.

    Attributes:
        socket: path of the socket.
    """

    def __init__(self, socket: str | None) -> None:
        runtime = runtime_dir()
        self._word = f"{os.getpid()}.json"
        self._own = None if socket else f"{os.getpid()}.d"
        self.socket = socket or f"{runtime}/{self._own}/qmp"
        self._runtime = os.open(runtime, os.O_PATH)
        self._place = os.open(os.path.dirname(socket), os.O_PATH) if socket else self._runtime
        self._name = os.path.basename(socket) if socket else f"{self._own}/qmp"

    def make(self) -> None:
        """Make the socket's directory.  One that is there is from a dead process."""
        self.remove()
        if self._own:
            os.mkdir(self._own, 0o700, dir_fd=self._runtime)

    def remove(self) -> None:
        """Remove what there is."""
        for name, place in ((self._word, self._runtime), (self._name, self._place)):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=place)
        if self._own:
            with contextlib.suppress(OSError):
                os.rmdir(self._own, dir_fd=self._runtime)


def write_entry(kind: str, machine: str, where: str, qmp: str, pid: int | None = None) -> Entry:
    """Leave word of a running machine, which gets its name by that, until this process does `withdraw`."""
    path = _word()
    with alone(path.parent, _PATIENCE_S):
        taken = {entry.name for entry in entries()}
        names = (f"{machine}-{number}" if number > 1 else machine for number in count(1))
        name = next(name for name in names if name not in taken)
        entry = Entry(pid or os.getpid(), kind, machine, where, qmp, time.time(), _pid_namespace(), name)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(entry)))
        draft.replace(path)
    return entry


def withdraw() -> None:
    """Take word of this process's machine back."""
    _word().unlink(missing_ok=True)


def _word() -> Path:
    """Where this process leaves word of its machine."""
    return runtime_dir() / f"{os.getpid()}.json"


@contextlib.contextmanager
def alone(directory: Path, patience_s: float | None = None) -> Iterator[None]:
    """Be the only one in such a block with the same directory; others wait.

    Args:
        patience_s: how long to wait for others, who may have been stopped; None: for ever.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    deadline = None if patience_s is None else time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if deadline is None else fcntl.LOCK_NB))
            except BlockingIOError:
                if deadline is not None and time.monotonic() < deadline:
                    time.sleep(_TICK_S)
                    continue
            break
        yield
    finally:
        os.close(descriptor)


def entries() -> list[Entry]:
    """All running machines of this user, oldest first; what dead ones left behind is removed."""
    found = []
    for path in sorted(runtime_dir().glob("*.json")):
        entry = _read(path)
        if entry is not None and entry.pids != _pid_namespace():
            continue
        if entry is not None and _alive(entry.pid):
            found.append(entry)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".qmp").unlink(missing_ok=True)
            shutil.rmtree(path.with_suffix(".d"), ignore_errors=True)
    return sorted(found, key=lambda entry: entry.started)


def wait_until_gone(entry: Entry) -> None:
    """Wait until a machine that ends has taken its word back, but not for ever."""
    deadline = time.monotonic() + _PATIENCE_S
    while entry in entries() and time.monotonic() < deadline:
        time.sleep(_TICK_S)


def named(name: str, kind: str | None = None, exit_code: int = 1) -> Entry:
    """The running machine of a name, a pid, or a mount point.

    Args:
        kind: "mount" or "run": only one of this kind; None: of any.
        exit_code: of the error.

    Raises:
        UserError: there is none, and which there are.
    """
    running = [entry for entry in entries() if kind in (None, entry.kind)]
    place = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
    for entry in running:
        if name in (entry.name, str(entry.pid)) or (entry.kind == "mount" and entry.where == place):
            return entry
    choices = ", ".join(f"{entry.name} ({entry.pid})" for entry in running) or "none"
    raise UserError(f"no running machine is called {name!r}; running are: {choices}", exit_code)


def find(explicit: str | None) -> str:
    """The socket a command talks to: the given one, else $MEMHPFS_QMP, else that of the only running machine.

    Raises:
        UserError: there is none, or more than one.
    """
    if explicit or os.environ.get("MEMHPFS_QMP"):
        return explicit or os.environ["MEMHPFS_QMP"]
    running = entries()
    if len(running) == 1:
        return running[0].qmp
    if not running:
        raise UserError("no machine is running; start one with 'memhpfs mount DIR' or 'memhpfs run'")
    choices = ", ".join(f"{entry.pid} ({entry.kind} {entry.where}): {entry.qmp}" for entry in running)
    raise UserError(f"{len(running)} machines are running; choose one with --qmp PATH or $MEMHPFS_QMP: {choices}")


def _read(path: Path) -> Entry | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        return Entry(**{"name": data["machine"], **data})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        return not select.select([process], [], [], 0)[0]
    finally:
        os.close(process)
