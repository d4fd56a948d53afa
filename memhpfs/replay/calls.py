"""System calls on files, as the steps of a transcript need them: the interface, and the real ones on a mount.

Two classes have it: `RealCalls` asks the host's kernel, `vfs.Vfs` is a small model of what that does.  Whatever is
refused is an exception with an `errno`: OSError or SysError.
"""

import ctypes
import errno
import mmap
import os
import select
import signal
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Protocol

__all__ = ["Calls", "RealCalls"]


class Calls(Protocol):
    """System calls; paths are those of the recorded machine, descriptors are numbers."""

    def open(self, path: str, flags: int, mode: int = 0) -> int: ...

    def close(self, fd: int) -> None: ...

    def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
        """read(2), or pread(2) with an offset."""

    def write(self, fd: int, data: bytes, offset: int | None = None, timeout_ms: int = 0) -> int:
        """write(2), or pwrite(2) with an offset; where there is a timeout, a signal comes after it."""

    def lseek(self, fd: int, offset: int, whence: int) -> int: ...

    def poll(self, fd: int, events: int, timeout_ms: int) -> int:
        """What poll(2) tells of one descriptor."""

    def truncate(self, path: str, length: int) -> None: ...

    def fallocate(self, path: str) -> None:
        """fallocate(2) of 100 bytes on a descriptor for reading and writing."""

    def fsync(self, path: str) -> None:
        """fsync(2) on a descriptor for reading."""

    def mmap(self, path: str, protection: int, shared: bool) -> None:
        """mmap(2) of a page, on a descriptor for what the protection needs."""

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def rename(self, old: str, new: str) -> None: ...

    def symlink(self, target: str, path: str) -> None: ...

    def link(self, old: str, new: str) -> None: ...

    def mknod(self, path: str) -> None:
        """mknod(2) of a regular file."""

    def chmod(self, path: str, mode: int) -> None: ...

    def chown(self, path: str, uid: int, gid: int) -> None: ...

    def utime(self, path: str, atime_s: int, mtime_s: int) -> None: ...

    def access(self, path: str, mode: int) -> None: ...

    def listxattr(self, path: str) -> bytes:
        """The names, each with a NUL behind it."""

    def getxattr(self, path: str, name: str) -> bytes: ...

    def setxattr(self, path: str, name: str, value: bytes) -> None: ...

    def lstat(self, path: str) -> tuple[int, int, int, int, int, int, int]:
        """Mode, size, links, user, group, blocks, block size."""

    def statfs(self, path: str) -> tuple[int, int, int, int]:
        """Type, block size, blocks, longest name."""

    def readlink(self, path: str) -> str: ...

    def listdir(self, path: str) -> list[str]: ...

    def contents(self, path: str) -> bytes:
        """Open, read to the end, close."""

    def as_user(self, uid: int) -> AbstractContextManager[None]:
        """Be another user, of the group with the same number, for a while."""


_LIBC = ctypes.CDLL(None, use_errno=True)
_PAGE = 4096


class RealCalls:
    """The host's system calls; `/sys` and `/proc` are those below a root directory."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _path(self, path: str) -> str:
        return self._root + path if path.startswith(("/sys", "/proc")) else path

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        return os.open(self._path(path), flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
        return os.read(fd, size) if offset is None else os.pread(fd, size, offset)

    def write(self, fd: int, data: bytes, offset: int | None = None, timeout_ms: int = 0) -> int:
        with _signal_after(timeout_ms):
            return os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(fd, offset, whence)

    def poll(self, fd: int, events: int, timeout_ms: int) -> int:
        poller = select.poll()
        poller.register(fd, events)
        return sum(mask for _, mask in poller.poll(timeout_ms))

    def truncate(self, path: str, length: int) -> None:
        os.truncate(self._path(path), length)

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        fd = self.open(path, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def fallocate(self, path: str) -> None:
        with self._opened(path, os.O_RDWR) as fd:
            _checked(_LIBC.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(100)))

    def fsync(self, path: str) -> None:
        with self._opened(path, os.O_RDONLY) as fd:
            os.fsync(fd)

    def mmap(self, path: str, protection: int, shared: bool) -> None:
        flags = os.O_RDWR if protection & mmap.PROT_WRITE else os.O_RDONLY
        with self._opened(path, flags) as fd:
            _LIBC.mmap.restype = ctypes.c_void_p
            kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
            address = _LIBC.mmap(None, ctypes.c_size_t(_PAGE), protection, kind, fd, ctypes.c_long(0))
            if address == ctypes.c_void_p(-1).value:
                _checked(-1)
            _LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE))

    def mkdir(self, path: str) -> None:
        os.mkdir(self._path(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self._path(path))

    def unlink(self, path: str) -> None:
        os.unlink(self._path(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._path(old), self._path(new))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._path(path))

    def link(self, old: str, new: str) -> None:
        os.link(self._path(old), self._path(new))

    def mknod(self, path: str) -> None:
        os.mknod(self._path(path), stat.S_IFREG | 0o644)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._path(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._path(path), uid, gid)

    def utime(self, path: str, atime_s: int, mtime_s: int) -> None:
        os.utime(self._path(path), (atime_s, mtime_s))

    def access(self, path: str, mode: int) -> None:
        _checked(_LIBC.access(os.fsencode(self._path(path)), mode))

    def listxattr(self, path: str) -> bytes:
        return b"".join(os.fsencode(name) + b"\0" for name in os.listxattr(self._path(path)))

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._path(path), name)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        os.setxattr(self._path(path), name, value)

    def lstat(self, path: str) -> tuple[int, int, int, int, int, int, int]:
        found = os.lstat(self._path(path))
        return (found.st_mode, found.st_size, found.st_nlink, found.st_uid, found.st_gid, found.st_blocks,
                found.st_blksize)

    def statfs(self, path: str) -> tuple[int, int, int, int]:
        """As statfs(2), except that Python does not tell the type: it is 0."""
        found = os.statvfs(self._path(path))
        return 0, found.f_bsize, found.f_blocks, found.f_namemax

    def readlink(self, path: str) -> str:
        return os.readlink(self._path(path))

    def listdir(self, path: str) -> list[str]:
        return os.listdir(self._path(path))

    def contents(self, path: str) -> bytes:
        with self._opened(path, os.O_RDONLY) as fd:
            pieces = list(iter(lambda: os.read(fd, 1 << 16), b""))
        return b"".join(pieces)

    @contextmanager
    def as_user(self, uid: int) -> Iterator[None]:
        groups, group, user = os.getgroups(), os.getegid(), os.geteuid()
        os.setgroups([])
        os.setegid(uid)
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(user)
            os.setegid(group)
            os.setgroups(groups)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def _signal_after(timeout_ms: int) -> Iterator[None]:
    """Let SIGALRM come after a time, and an interrupted call fail with EINTR instead of starting over."""
    if not timeout_ms:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
