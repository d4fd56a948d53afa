"""The directory to mount at: what may be wrong with it, and how it is mounted and unmounted.

Lives here: checks before a mount, the repair of a dead mount, the options for libfuse.  Must not: requests, tasks.
Every mistake becomes one line that names the directory.
"""

import ctypes
import errno
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
from attrs import frozen

from memhpfs.errors import UserError
from memhpfs.host.interrupt import Interrupts

__all__ = [
    "FS_NAME", "Mount", "allow_other", "check_fuse", "make_directory", "mounted", "mounts_at", "prepare",
]

#: Source of the mount, and with "fuse." before it its type.
FS_NAME = "memhpfs"
_MNT_DETACH = 2

_log = logging.getLogger(__name__)


@frozen
class Mount:
    """A line of /proc/self/mountinfo: type and source of a mount."""

    type: str
    source: str


def mounts_at(directory: str) -> list[Mount]:
    """What is mounted at a directory, topmost last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if _unescape(place.split(" ")[4]) == directory:
            words = kind.split(" ")
            found.append(Mount(words[0], _unescape(words[1])))
    return found


def _unescape(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def check_fuse() -> None:
    """See that this machine can mount FUSE file systems.

    Raises:
        UserError: what is missing, and how to get it.
    """
    if not os.path.exists("/dev/fuse"):
        raise UserError("no /dev/fuse: load the module (modprobe fuse), or start the container with --device /dev/fuse")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise UserError("no permission to open /dev/fuse: it needs mode 0666, or memhpfs root")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise UserError("no fusermount3, which mounts for ordinary users: install the package fuse3, or run as root")


def make_directory(directory: str) -> bool:
    """Make the directory if nothing of this name is there; whether it was made.

    Raises:
        UserError: it cannot be made; exit code 2 where its parent is not there.
    """
    try:
        os.mkdir(directory)
    except FileExistsError:
        return False
    except FileNotFoundError:
        parent = os.path.dirname(directory.rstrip("/"))
        what = f"no directory {parent} to make it in" if parent else "no such directory"
        raise UserError(f"{directory}: {what}", 2) from None
    except OSError as error:
        raise UserError(f"{directory}: {_why(error)}") from None
    return True


def prepare(directory: str) -> str:
    """Check the directory, and repair it if a memhpfs that was killed left its mount there.

    Returns:
        Its absolute path without links.

    Raises:
        UserError: what is wrong with it.
    """
    path = os.path.realpath(directory)
    try:
        if [mount.source for mount in mounts_at(path)][-1:] == [FS_NAME]:
            _repair(directory, path)
        names = os.listdir(directory)
    except OSError as error:
        raise UserError(f"{directory}: {_why(error)}") from None
    if names:
        raise UserError(f"{directory}: not empty (it has {min(names)!r}); an empty directory is needed")
    if not os.access(path, os.W_OK):
        raise UserError(f"{directory}: no write permission, which mounting needs")
    return path


def _repair(directory: str, path: str) -> None:
    """Unmount what a killed daemon of ours left.  Only a request shows that it is dead: attributes are cached."""
    try:
        os.statvfs(path)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    else:
        raise UserError(f"{directory}: a memhpfs is mounted there already")
    _log.info("%s: unmounting what a memhpfs that was killed left", directory)
    unmount_lazily(path)


def _why(error: OSError) -> str:
    return {
        errno.ENOENT: "no such directory",
        errno.ENOTDIR: "not a directory",
        errno.ENOTCONN: "a dead mount of another file system is there; unmount it first (umount -l)",
    }.get(error.errno or 0, (error.strerror or "unusable").lower())


def unmount_lazily(path: str) -> None:
    """Take a mount out of the tree, whoever still uses it.

    Raises:
        UserError: it does not let itself be unmounted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        return
    reason = os.strerror(ctypes.get_errno())
    helper = shutil.which("fusermount3")
    if helper is not None:
        done = subprocess.run([helper, "-u", "-z", "--", path], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        reason = done.stderr.strip()
    raise UserError(f"{path}: cannot be unmounted: {reason}")


def allow_other(wanted: bool | None) -> bool:
    """Whether other users are let in: as wanted, by default where it is permitted.

    Raises:
        UserError: it is wanted and not permitted.
    """
    permitted = os.geteuid() == 0 or _user_allow_other()
    if wanted and not permitted:
        raise UserError("--allow-other is for root, unless /etc/fuse.conf has the line user_allow_other")
    return permitted if wanted is None else wanted


def _user_allow_other() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return "user_allow_other" in [line.strip() for line in lines]


@contextmanager
def mounted(
    operations: pyfuse3.Operations, path: str, interrupts: Interrupts, *, others: bool
) -> Iterator[int]:
    """Mount for the time of the block; yields the descriptor of the session.

    Unmounting closes the descriptor first, which ends every request that still waits, and is lazy.

    Raises:
        UserError: libfuse could not mount, with its reason.
    """
    options = {"default_permissions", "noexec", f"fsname={FS_NAME}", f"subtype={FS_NAME}", *interrupts.options}
    if others:
        options.add("allow_other")
    before = _fuse_descriptors()
    with _captured_stderr() as helper_said:
        try:
            pyfuse3.init(operations, path, options)
        except RuntimeError as error:
            failed: RuntimeError | None = error
        else:
            failed = None
    if failed is not None:
        said = [line for line in [*interrupts.complaints, *helper_said] if line] or [str(failed)]
        raise UserError(f"{path}: cannot mount: {said[-1]}")
    try:
        (descriptor,) = _fuse_descriptors() - before
        yield descriptor
    finally:
        pyfuse3.close()


def _fuse_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                found.add(int(name))
        except OSError:
            continue
    return found


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Take what a child process writes to stderr; filled when the block ends."""
    lines: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
