"""FUSE requests: each handler asks the tree and answers.

Lives here: the Operations of pyfuse3, open descriptors, extended attributes, the one translation of errors.
Must not: texts, modes and rules of sysfs (sysfs/), waiting (driver.py), mounting (daemon.py).

Nothing is stored per file: inode numbers say what a file is.  Names and attributes are cached by the kernel for ever
and dropped when the model changes them (invalidate.py).  Every descriptor is direct_io, so each read and write arrives
here and the size stays what sysfs tells.  Permission bits are checked by the kernel (default_permissions).

What FUSE cannot express: the type in statfs, ENODEV from a private mmap and from lseek, an empty write (it never
arrives), the limit of 2 GiB on lseek.
"""

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError

from memhpfs.errors import SysError
from memhpfs.host.alias import Aliases
from memhpfs.host.driver import Driver
from memhpfs.host.interrupt import Interrupts
from memhpfs.sysfs.files import OpenFile
from memhpfs.sysfs.names import END_OF_DIRECTORY, FIRST_HASH
from memhpfs.sysfs.tree import Stale, Tree

__all__ = ["FOREVER_S", "Requests"]

P = ParamSpec("P")
T = TypeVar("T")
#: How long the kernel may keep names and attributes, in seconds.
FOREVER_S = 10 * 365 * 86400
ACCESS_MODE, READ_ONLY, WRITE_ONLY, DIRECT = os.O_ACCMODE, os.O_RDONLY, os.O_WRONLY, os.O_DIRECT
#: Largest size that truncate takes.  Linux: MAX_NON_LFS.
MAX_SIZE = 0x7FFFFFFF


def answers(
    handler: "Callable[Concatenate[Requests, P], T]",
) -> "Callable[Concatenate[Requests, P], Coroutine[Any, Any, T]]":
    """Make a request handler of a method that does not wait."""

    @wraps(handler)
    async def answer(self: "Requests", *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return handler(self, *args, **kwargs)
        except Exception as error:
            raise self.refusal(handler.__name__, error) from None

    return answer  # type: ignore[return-value]


def refuses(number: int) -> Any:
    """A request handler that refuses everything with one errno."""

    async def refuse(self: "Requests", *args: object) -> None:
        raise FUSEError(number)

    return refuse


class Requests(pyfuse3.Operations):
    """The request handlers of one mounted tree."""

    supports_dot_lookup = False

    def __init__(self, tree: Tree, driver: Driver, interrupts: Interrupts, on_ready: Callable[[], None]) -> None:
        self._tree = tree
        self._driver = driver
        self._interrupts = interrupts
        self._aliases = Aliases()
        self._on_ready = on_ready
        #: By handle; a closed one is None until its handle is used again.
        self._files: list[Any] = []
        self._closed: list[int] = []
        #: Of those open for writing: the inode number, perhaps an alias, and the thread that opened it.
        self._writers: dict[int, tuple[int, int]] = {}
        self._xattrs: dict[tuple[int, bytes], bytes] = {}
        # pyfuse3 copies all three before it runs another handler, so one of each is enough.
        self._entry, self._alias = EntryAttributes(), EntryAttributes()
        self._entry.entry_timeout = self._entry.attr_timeout = FOREVER_S
        self._alias.entry_timeout = self._alias.attr_timeout = 0
        self._opened = pyfuse3.FileInfo(direct_io=True, keep_cache=True)

    def refusal(self, where: str, error: Exception) -> FUSEError:
        """The answer to a request whose handler raised: the errno of a refusal, EIO and taint for everything else."""
        if isinstance(error, SysError):
            return FUSEError(error.errno)
        if isinstance(error, FUSEError):
            return error
        self._driver.bug(where, error)
        return FUSEError(errno.EIO)

    def init(self) -> None:
        """The kernel's first request is being handled."""
        self._interrupts.ready()
        self._on_ready()

    # -- names and attributes -----------------------------------------------------------------------------------

    @answers
    def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        found = self._tree.lookup(parent_inode, name.decode(errors="surrogateescape"))
        number = self._aliases.found(found, ctx.pid)
        entry = self._attributes(number)
        entry.st_ino = number
        return entry

    @answers
    def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        return self._attributes(inode)

    def _attributes(self, inode: int) -> EntryAttributes:
        own = self._aliases.own(inode)
        entry, known = self._entry if own == inode else self._alias, self._tree.attributes(own)
        entry.st_ino = own
        entry.st_mode = known.mode
        entry.st_nlink = known.nlink
        entry.st_uid = known.uid
        entry.st_gid = known.gid
        entry.st_size = known.size
        entry.st_atime_ns = known.atime_ns
        entry.st_mtime_ns = known.mtime_ns
        entry.st_ctime_ns = known.ctime_ns
        return entry

    @answers
    def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        if fields.update_size and attr.st_size > MAX_SIZE:
            raise FUSEError(errno.EFBIG)
        changes = {
            "mode": attr.st_mode if fields.update_mode else None,
            "uid": attr.st_uid if fields.update_uid else None,
            "gid": attr.st_gid if fields.update_gid else None,
            "atime_ns": attr.st_atime_ns if fields.update_atime else None,
            "mtime_ns": attr.st_mtime_ns if fields.update_mtime else None,
        }
        if any(value is not None for value in changes.values()):
            own = self._aliases.own(inode)
            self._tree.set_attributes(own, **changes)
            if own != inode:
                self._driver.drop(Stale(inodes=(own,)))
        return self._attributes(inode)

    @answers
    def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._tree.readlink(inode).encode()

    @answers
    def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    @answers
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """`.`, `..` and the names by hash; an entry's offset is the hash of the next one, as kernfs has it."""
        children = self._tree.children(fh)
        first = children[0].hash if children else END_OF_DIRECTORY
        for name, at, next_id in ((b".", 0, FIRST_HASH), (b"..", FIRST_HASH, first)):
            if start_id <= at and not pyfuse3.readdir_reply(token, name, self._attributes(fh), next_id):
                return
        for index in range(bisect_left(children, start_id, key=lambda child: child.hash), len(children)):
            child = children[index]
            next_id = children[index + 1].hash if index + 1 < len(children) else END_OF_DIRECTORY
            if not pyfuse3.readdir_reply(token, child.name.encode(), self._attributes(child.ino), next_id):
                return

    async def releasedir(self, fh: int) -> None:
        """Nothing was kept."""

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing was kept."""

    @answers
    def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    # -- open files ---------------------------------------------------------------------------------------------

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """A new descriptor, after the check that root cannot bypass."""
        try:
            wanted, own = flags & ACCESS_MODE, self._aliases.own(inode)
            self._tree.open(own, wanted != WRITE_ONLY, wanted != READ_ONLY)
            if flags & DIRECT:
                raise FUSEError(errno.EINVAL)
            if wanted and not self._aliases.opens(inode, ctx.pid):
                raise FUSEError(errno.ESTALE)
            file = OpenFile(self._tree, own)
            if self._closed:
                handle = self._closed.pop()
                self._files[handle] = file
            else:
                handle = len(self._files)
                self._files.append(file)
            if wanted:
                self._writers[handle] = inode, ctx.pid
                self._interrupts.opened()
            self._opened.fh = handle
            return self._opened
        except Exception as error:
            raise self.refusal("open", error) from None

    async def release(self, fh: int) -> None:
        """The last copy of the descriptor was closed."""
        self._files[fh] = None
        self._closed.append(fh)
        if self._writers and (writer := self._writers.pop(fh, None)) is not None:
            self._aliases.closes(writer[0])
            self._interrupts.closed()

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """The text, as far as it was asked for; waits where showing it waits for a lock."""
        try:
            text = self._files[fh].read(off, size)
            if isinstance(text, bytes):
                return text
            return await self._driver.run(text)
        except Exception as error:
            raise self.refusal("read", error) from None

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """One store; its effects are out before it is answered."""
        try:
            taken = self._files[fh].write(buf)
            if isinstance(taken, int):
                return taken
            return await self._driver.run(taken, partial(self._interrupts.caller, self._writers[fh][1]))
        except Exception as error:
            raise self.refusal("write", error) from None
        finally:
            self._driver.flush()

    @answers
    def poll(
        self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: pyfuse3.RequestContext
    ) -> int:
        file: OpenFile = self._files[fh]
        return file.poll()

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Nothing to write back."""

    fsyncdir = refuses(errno.EINVAL)

    # -- what sysfs does not let anybody do ---------------------------------------------------------------------

    create = refuses(errno.EACCES)
    mkdir = rmdir = unlink = symlink = link = refuses(errno.EPERM)

    @answers
    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        raise FUSEError(errno.EACCES if stat.S_ISREG(mode) else errno.EPERM)

    @answers
    def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        raise FUSEError(errno.EINVAL if flags else errno.EPERM)

    # -- extended attributes: those of root's name spaces stick, others do not exist ----------------------------

    @answers
    def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name.startswith(b"system."):
            raise FUSEError(errno.EOPNOTSUPP)
        value = self._xattrs.get((self._aliases.own(inode), name))
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value

    @answers
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        if not name.startswith((b"trusted.", b"security.")):
            raise FUSEError(errno.EOPNOTSUPP)
        self._xattrs[self._aliases.own(inode), name] = value

    @answers
    def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        if self._xattrs.pop((self._aliases.own(inode), name), None) is None:
            raise FUSEError(pyfuse3.ENOATTR)

    @answers
    def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return [name for owner, name in self._xattrs if owner == self._aliases.own(inode)]
