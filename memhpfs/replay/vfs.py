"""A small model of the system calls in front of a file system, so that a transcript can be done without a mount.

Lives here: descriptors with position and flags, and what the VFS and kernfs decide for every file alike (open flags,
lseek, truncate, names that cannot be made or removed).  Must not: anything of a particular file: its attributes, its
text, its stores and whether it opens at all come from the tree.
Source: fs/namei.c, fs/open.c, fs/read_write.c, fs/kernfs/{file,dir,inode}.c; transcripts vfs.*.
"""

import errno
import mmap
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from attrs import define, field

from memhpfs.errors import Gone
from memhpfs.kernel.pause import Op
from memhpfs.replay.walk import EXECUTE, READ, WRITE, Place, Walker, refused
from memhpfs.sysfs.files import POLL_BASE, OpenFile
from memhpfs.sysfs.tree import Tree

__all__ = ["Finish", "Vfs"]

T = TypeVar("T")

#: Largest file position of a file system that sets no limit.  Linux: MAX_NON_LFS.
_MAX_POSITION = (1 << 31) - 1
_BLOCK_SIZE, _NAME_MAX, _SYSFS_MAGIC = 4096, 255, 0x62656572
_WHOLE = 1 << 16
_POLL_ALWAYS = 0x018


class Finish(Protocol):
    """Runs an Op to its end; a signal comes after `timeout_ms`, or never if that is 0."""

    def __call__(self, op: Op[T], timeout_ms: int) -> T: ...


@define(eq=False)
class _Descriptor:
    """An open file; `file` is None for a directory, and for O_PATH."""

    ino: int
    flags: int
    file: OpenFile | None
    position: int = 0

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY and not self.flags & os.O_PATH

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY and not self.flags & os.O_PATH


@define(eq=False)
class Vfs:
    """System calls on a tree; see `calls.Calls`.  They start as root.

    Attributes:
        finish: how a call that sleeps gets to its end.
    """

    tree: Tree
    finish: Finish
    _walker: Walker = field(init=False)
    _open: dict[int, _Descriptor] = field(factory=dict, init=False)
    _next_fd: int = field(default=3, init=False)

    def __attrs_post_init__(self) -> None:
        self._walker = Walker(self.tree)

    @contextmanager
    def as_user(self, uid: int) -> Iterator[None]:
        before, self._walker.uid = self._walker.uid, uid
        try:
            yield
        finally:
            self._walker.uid = before

    # -- descriptors ------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """open(2), in the order of do_last and do_dentry_open."""
        place = self._walker.find(path, follow=not flags & os.O_NOFOLLOW and not flags & os.O_EXCL)
        if flags & os.O_CREAT and place.ino is None:
            raise refused(errno.EACCES)
        ino = place.must_exist()
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise refused(errno.EEXIST)
        if flags & os.O_DIRECTORY and not stat.S_ISDIR(place.mode):
            raise refused(errno.ENOTDIR)
        file = None if flags & os.O_PATH else self._opened(ino, place.mode, flags)
        self._next_fd += 1
        self._open[self._next_fd] = _Descriptor(ino, flags, file)
        return self._next_fd

    def _opened(self, ino: int, kind: int, flags: int) -> OpenFile | None:
        if stat.S_ISLNK(kind):
            raise refused(errno.ELOOP)
        access = flags & os.O_ACCMODE
        read, write = access != os.O_WRONLY, access != os.O_RDONLY
        if stat.S_ISDIR(kind) and (write or flags & (os.O_TRUNC | os.O_CREAT)):
            raise refused(errno.EISDIR)
        self._walker.must(ino, READ * read | WRITE * bool(write or flags & os.O_TRUNC))
        if flags & os.O_NOATIME:
            self._walker.must_own(ino)
        if not stat.S_ISDIR(kind):
            self.tree.open(ino, read, write)
        if flags & os.O_DIRECT:
            raise refused(errno.EINVAL)
        return None if stat.S_ISDIR(kind) else OpenFile(self.tree, ino)

    def close(self, fd: int) -> None:
        self._descriptor(fd)
        del self._open[fd]

    def _descriptor(self, fd: int) -> _Descriptor:
        if fd not in self._open:
            raise refused(errno.EBADF)
        return self._open[fd]

    def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
        held = self._descriptor(fd)
        if not held.readable:
            raise refused(errno.EBADF)
        if held.file is None:
            raise refused(errno.EISDIR)
        if offset is not None and offset < 0:
            raise refused(errno.EINVAL)
        if not size:
            return b""
        result = held.file.read(held.position if offset is None else offset, size)
        data = self._finished(result, 0)
        if offset is None:
            held.position += len(data)
        return data

    def write(self, fd: int, data: bytes, offset: int | None = None, timeout_ms: int = 0) -> int:
        """write(2) and pwrite(2); a sysfs descriptor without write access cannot even seek for writing."""
        held = self._descriptor(fd)
        if not held.writable:
            raise refused(errno.EBADF if offset is None else errno.ESPIPE)
        if offset is not None and offset < 0:
            raise refused(errno.EINVAL)
        assert held.file is not None
        taken = self._finished(held.file.write(data), timeout_ms)
        if offset is None:
            held.position += taken
        return taken

    def _finished(self, result: "T | Op[T]", timeout_ms: int) -> T:
        if isinstance(result, Generator):
            done: T = self.finish(result, timeout_ms)
            return done
        return result

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """lseek(2) as generic_file_llseek does it: the size is what stat tells."""
        held = self._descriptor(fd)
        if not self.tree.exists(held.ino) and self.tree.kernel.features.lseek_gone:
            raise Gone()
        size = self.tree.attributes(held.ino).size
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            if not 0 <= offset < size:
                raise refused(errno.ENXIO)
            offset = size if whence == os.SEEK_HOLE else offset
        elif whence != os.SEEK_SET:
            offset += held.position if whence == os.SEEK_CUR else size
        if not 0 <= offset <= _MAX_POSITION:
            raise refused(errno.EINVAL)
        held.position = offset
        return offset

    def poll(self, fd: int, events: int, timeout_ms: int) -> int:
        held = self._descriptor(fd)
        mask = held.file.poll() if held.file is not None else POLL_BASE
        return mask & (events | _POLL_ALWAYS)

    def contents(self, path: str) -> bytes:
        fd = self.open(path, os.O_RDONLY)
        try:
            return b"".join(iter(lambda: self.read(fd, _WHOLE), b""))
        finally:
            self.close(fd)

    # -- files that are there -----------------------------------------------------------------------------------

    def truncate(self, path: str, length: int) -> None:
        """truncate(2): allowed by the mode, and without effect."""
        if length < 0:
            raise refused(errno.EINVAL)
        place = self._walker.find(path)
        ino = place.must_exist()
        if stat.S_ISDIR(place.mode):
            raise refused(errno.EISDIR)
        self._walker.must(ino, WRITE)
        if length > _MAX_POSITION:
            raise refused(errno.EFBIG)

    def fallocate(self, path: str) -> None:
        self.close(self.open(path, os.O_RDWR))
        raise refused(errno.EOPNOTSUPP)

    def fsync(self, path: str) -> None:
        """fsync(2): nothing to do for a file, and no such operation on a directory."""
        fd = self.open(path, os.O_RDONLY)
        is_file = self._descriptor(fd).file is not None
        self.close(fd)
        if not is_file:
            raise refused(errno.EINVAL)

    def mmap(self, path: str, protection: int, shared: bool) -> None:
        self.close(self.open(path, os.O_RDWR if protection & mmap.PROT_WRITE else os.O_RDONLY))
        raise refused(errno.ENODEV)

    def chmod(self, path: str, mode: int) -> None:
        ino = self._walker.find(path).must_exist()
        self._walker.must_own(ino)
        self.tree.set_attributes(ino, mode=mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        ino = self._walker.find(path).must_exist()
        if self._walker.uid:
            raise refused(errno.EPERM)
        self.tree.set_attributes(ino, uid=None if uid < 0 else uid, gid=None if gid < 0 else gid)

    def utime(self, path: str, atime_s: int, mtime_s: int) -> None:
        ino = self._walker.find(path).must_exist()
        self._walker.must_own(ino)
        self.tree.set_attributes(ino, atime_ns=atime_s * 10**9, mtime_ns=mtime_s * 10**9)

    def access(self, path: str, mode: int) -> None:
        self._walker.must(self._walker.find(path).must_exist(), mode)

    def listxattr(self, path: str) -> bytes:
        """listxattr(2): there are none."""
        self._walker.find(path).must_exist()
        return b""

    def getxattr(self, path: str, name: str) -> bytes:
        """getxattr(2) of a user attribute: there are none."""
        self._walker.find(path).must_exist()
        raise refused(errno.ENODATA)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        """setxattr(2) of a user attribute, which kernfs does not keep."""
        self._walker.find(path).must_exist()
        raise refused(errno.EOPNOTSUPP)

    def lstat(self, path: str) -> tuple[int, int, int, int, int, int, int]:
        found = self.tree.attributes(self._walker.find(path, follow=False).must_exist())
        return found.mode, found.size, found.nlink, found.uid, found.gid, 0, _BLOCK_SIZE

    def statfs(self, path: str) -> tuple[int, int, int, int]:
        """statfs(2) of sysfs."""
        self._walker.find(path).must_exist()
        return _SYSFS_MAGIC, _BLOCK_SIZE, 0, _NAME_MAX

    def readlink(self, path: str) -> str:
        place = self._walker.find(path, follow=False)
        ino = place.must_exist()
        if not stat.S_ISLNK(place.mode):
            raise refused(errno.EINVAL)
        return self.tree.readlink(ino)

    def listdir(self, path: str) -> list[str]:
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        ino = self._descriptor(fd).ino
        self.close(fd)
        return [item.name for item in self.tree.children(ino)]

    # -- names: no directory of sysfs lets anybody make or remove one -------------------------------------------

    def mkdir(self, path: str) -> None:
        self._new_name(path)
        raise refused(errno.EPERM)

    def symlink(self, target: str, path: str) -> None:
        self._new_name(path)
        raise refused(errno.EPERM)

    def mknod(self, path: str) -> None:
        self._new_name(path)
        raise refused(errno.EACCES)

    def link(self, old: str, new: str) -> None:
        self._walker.find(old, follow=False).must_exist()
        if not _inside(new):
            raise refused(errno.EXDEV)
        self._new_name(new)
        raise refused(errno.EPERM)

    def _new_name(self, path: str) -> None:
        """Check that a name is new, and its directory may be written.  Linux: filename_create, may_create."""
        place = self._walker.find(path, follow=False)
        if place.ino is not None:
            raise refused(errno.EEXIST)
        self._walker.must(place.parent, WRITE | EXECUTE)

    def unlink(self, path: str) -> None:
        place = self._old_name(path)
        if stat.S_ISDIR(place.mode):
            raise refused(errno.EISDIR)
        raise refused(errno.EPERM)

    def rmdir(self, path: str) -> None:
        place = self._old_name(path)
        if not stat.S_ISDIR(place.mode):
            raise refused(errno.ENOTDIR)
        raise refused(errno.EPERM)

    def rename(self, old: str, new: str) -> None:
        if not _inside(new):
            raise refused(errno.EXDEV)
        source, target = self._walker.find(old, follow=False), self._walker.find(new, follow=False)
        if source.must_exist() == target.ino:
            return
        self._walker.must(source.parent, WRITE | EXECUTE)
        self._walker.must(target.parent, WRITE | EXECUTE)
        raise refused(errno.EPERM)

    def _old_name(self, path: str) -> Place:
        """Check that a name is there, and its directory may be written.  Linux: may_delete."""
        place = self._walker.find(path, follow=False)
        place.must_exist()
        self._walker.must(place.parent, WRITE | EXECUTE)
        return place


def _inside(path: str) -> bool:
    """Whether a path is on the same file system."""
    return path.startswith("/sys/")
