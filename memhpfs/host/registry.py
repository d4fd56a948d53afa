"""Where running machines leave word of themselves, so that other commands find them.

A machine has two files in the runtime directory: PID.qmp, its socket, and PID.json, what it is.  Both go when it ends;
those of a machine that was killed are recognised by their dead process, and removed by whoever finds them.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from memhpfs.errors import UserError

__all__ = ["Entry", "entries", "find", "runtime_dir", "socket_path", "withdraw", "write_entry"]


@frozen
class Entry:
    """A running machine.

    Attributes:
        pid: the process that ends with it (for `run` the machine's first process), as the host sees it.
        kind: "mount" or "run".
        machine: name of the machine file or preset.
        where: the mount point, or the command.
        qmp: path of its socket, as the host sees it.
        started: seconds since the epoch.
        name: what people call it; by default the pid.
    """

    pid: int
    kind: str
    machine: str
    where: str
    qmp: str
    started: float
    name: str = ""


def runtime_dir() -> Path:
    """The directory for sockets; made if need be, for its owner only.

    Raises:
        UserError: it cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        path = Path(base) / "memhpfs"
    else:
        path = Path("/run/memhpfs") if os.geteuid() == 0 else Path(f"/tmp/memhpfs-{os.geteuid()}")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; set XDG_RUNTIME_DIR to a directory of yours") from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UserError(f"{path} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of yours")
    return path


def socket_path(pid: int | None = None) -> str:
    """Where the socket of a machine stands by default."""
    return str(runtime_dir() / f"{pid or os.getpid()}.qmp")


def write_entry(kind: str, machine: str, where: str, qmp: str, pid: int | None = None, name: str = "") -> Path:
    """Leave word of a running machine; the file to take back with `withdraw`."""
    entry = Entry(pid or os.getpid(), kind, machine, where, qmp, time.time(), name)
    path = runtime_dir() / f"{entry.pid}.json"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(entry)))
    draft.replace(path)
    return path


def withdraw(path: Path) -> None:
    """Take word of a machine back."""
    path.unlink(missing_ok=True)


def entries() -> list[Entry]:
    """All running machines of this user, oldest first; what dead ones left behind is removed."""
    found = []
    for path in sorted(runtime_dir().glob("*.json")):
        entry = _read(path)
        if entry is not None and _alive(entry.pid):
            found.append(entry)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".qmp").unlink(missing_ok=True)
    return sorted(found, key=lambda entry: entry.started)


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
        return Entry(**data)
    except (OSError, ValueError, TypeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
