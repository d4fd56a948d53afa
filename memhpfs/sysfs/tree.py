"""The tree: rows and the kernel together answer every question about files.

Lives here: looking up, listing, attributes, opening, reading and writing by inode number.
Must not: descriptors and buffers (files.py), FUSE, clocks (the caller hands one in).
Invariants: an inode number is never used for two files; what chmod, chown and utime changed stays with the file until
its device is removed; a removed device's files answer Gone.
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field, frozen

from memhpfs.errors import DirectoryIsNotAFile, Gone, NoStore, NoSuchFile, NotAttribute
from memhpfs.kernel.journal import DeviceGone, DeviceNew, LinkGone, LinkNew
from memhpfs.kernel.journal import Entry as JournalEntry
from memhpfs.kernel.pause import Op
from memhpfs.kernel.state import Kernel
from memhpfs.parse import c_string, counted_string
from memhpfs.sysfs.attr import PAGE, Attr, Dir, Link
from memhpfs.sysfs.held import find_held, held_name, held_numbers, held_target
from memhpfs.sysfs.layout import BLOCK_DIR, MACHINE_DIR, NODE_DIR
from memhpfs.sysfs.listing import Dirent, Listing
from memhpfs.sysfs.plan import (
    BLOCK,
    INDEX_MASK,
    KIND_MASK,
    KIND_SHIFT,
    MACHINE,
    NODE,
    OWN,
    SERIAL_SHIFT,
    Entry,
    Plan,
    compile_plan,
    inode,
)

__all__ = ["Attributes", "Stale", "Tree"]

_LINK_MODE = stat.S_IFLNK | 0o777
#: Longer listings are kept, because they are asked for in pieces.
_SHORT = 100


@frozen
class Attributes:
    """What stat tells: full st_mode, bytes, nanoseconds."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


@frozen
class Stale:
    """Cached knowledge that a journal entry made wrong: names (directory inode, name) and attributes (inodes)."""

    entries: tuple[tuple[int, str], ...] = ()
    inodes: tuple[int, ...] = ()


@define(eq=False)
class Tree:
    """The files of one machine.

    Attributes:
        kernel: the model.
        now_ns: a clock, for the times of files.
        uid, gid: owner of all files until somebody changes it.
    """

    kernel: Kernel
    now_ns: Callable[[], int]
    uid: int = 0
    gid: int = 0
    _plans: tuple[Plan, ...] = field(init=False)
    _changed: dict[int, Attributes] = field(factory=dict, init=False)
    _born_ns: dict[int, int] = field(factory=dict, init=False)
    _listings: dict[int, tuple[tuple[int, int], Listing]] = field(factory=dict, init=False)

    ROOT = OWN

    def __attrs_post_init__(self) -> None:
        features = self.kernel.features
        self._plans = tuple(compile_plan(top, features) for top in (MACHINE_DIR, BLOCK_DIR, NODE_DIR))
        self._born_ns[0] = self.now_ns()

    # -- finding ------------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: str) -> int:
        """The inode number of a name in a directory.

        Raises:
            NoSuchFile: no such name, or the directory's device is gone.
        """
        entry = self._entry(parent)
        subject = self._subject(parent)
        if entry is None or subject is None:
            raise NoSuchFile(name)
        index = entry.names.get(name)
        if index is not None and self._there(parent, index, subject):
            return parent & ~INDEX_MASK | index
        if isinstance(entry.row, Dir) and entry.row.holds:
            found = find_held(self.kernel, subject, entry.row.holds, name)
            if found:
                return found
        raise NoSuchFile(name)

    def children(self, ino: int) -> Sequence[Dirent]:
        """The names of a directory in the order sysfs lists them, without `.` and `..`; none once it is gone."""
        subject, entry = self._subject(ino), self._entry(ino)
        if subject is None or entry is None or not isinstance(entry.row, Dir):
            return ()
        version = (self.kernel.next_serial, len(self.kernel.blocks))
        listing = self._listings.get(ino)
        if listing is None or listing[0] != version:
            listing = version, Listing(self._held(ino, entry, subject), self._name)
            if len(listing[1]) > _SHORT:
                self._listings[ino] = listing
        return listing[1]

    def _held(self, ino: int, entry: Entry, subject: Any) -> Iterator[int]:
        base = ino & ~INDEX_MASK
        yield from (base | index for index in entry.names.values() if self._there(ino, index, subject))
        assert isinstance(entry.row, Dir)
        if entry.row.holds:
            yield from held_numbers(self.kernel, subject, entry.row.holds)

    def _name(self, ino: int) -> str:
        """The name of a file or link in its directory."""
        entry = self._entry(ino)
        if entry is not None and entry.parent:
            return entry.row.name
        return held_name(self._subject(ino), ino >> KIND_SHIFT & KIND_MASK, ino & INDEX_MASK)

    def _there(self, parent: int, index: int, subject: Any) -> bool:
        """Whether an optional link exists now."""
        child = self._plans[parent >> KIND_SHIFT & KIND_MASK].entries[index]
        row = child.row if child is not None else None
        return not isinstance(row, Link) or row.exists is None or row.exists(self.kernel, subject)

    def _subject(self, ino: int) -> Any:
        """The kernel, block or node that a file belongs to, or None once that is gone."""
        serial = ino >> SERIAL_SHIFT
        return self.kernel.devices.get(serial) if serial else self.kernel

    def _entry(self, ino: int) -> Entry | None:
        entries = self._plans[ino >> KIND_SHIFT & KIND_MASK].entries
        index = ino & INDEX_MASK
        return entries[index] if index < len(entries) else None

    # -- attributes ---------------------------------------------------------------------------------------------

    def attributes(self, ino: int) -> Attributes:
        """What stat tells of a file, also once its device is gone."""
        changed = self._changed.get(ino)
        serial, entry = ino >> SERIAL_SHIFT, self._entry(ino)
        mode, size = (entry.mode, entry.size) if entry is not None else (_LINK_MODE, 0)
        if changed is not None:
            return evolve(changed, nlink=self._nlink(ino, entry))
        born = self._born_ns.get(serial, self._born_ns[0])
        return Attributes(ino, mode, self._nlink(ino, entry), self.uid, self.gid, size, born, born, born)

    def _nlink(self, ino: int, entry: Entry | None) -> int:
        """Links: 1 for files, 2 plus its subdirectories for a directory; less once the device is gone."""
        alive = self._subject(ino) is not None
        if not alive and self.kernel.features.removed_nlink_zero:
            return 0
        if entry is None or not isinstance(entry.row, Dir):
            return 1
        if not alive:
            return 2
        held = {"blocks": len(self.kernel.blocks), "nodes": sum(node.online for node in self.kernel.nodes.values())}
        return 2 + entry.subdirectories + held.get(entry.row.holds, 0)

    def set_attributes(
        self, ino: int, *, mode: int | None = None, uid: int | None = None, gid: int | None = None,
        atime_ns: int | None = None, mtime_ns: int | None = None,
    ) -> None:
        """chmod, chown and utime: kept until the file's device is removed.  `mode` is permission bits."""
        now = self.attributes(ino)
        self._changed[ino] = evolve(
            now,
            mode=now.mode if mode is None else stat.S_IFMT(now.mode) | stat.S_IMODE(mode),
            uid=now.uid if uid is None else uid,
            gid=now.gid if gid is None else gid,
            atime_ns=now.atime_ns if atime_ns is None else atime_ns,
            mtime_ns=now.mtime_ns if mtime_ns is None else mtime_ns,
            ctime_ns=self.now_ns(),
        )

    def readlink(self, ino: int) -> str:
        """The target of a link, always relative.

        Raises:
            NoSuchFile: its device is gone.
        """
        subject = self._subject(ino)
        if subject is None:
            raise NoSuchFile()
        entry = self._entry(ino)
        if entry is not None and isinstance(entry.row, Link):
            return entry.row.target(self.kernel, subject)
        return held_target(subject, ino >> KIND_SHIFT & KIND_MASK, ino & INDEX_MASK)

    # -- opening, reading, writing ------------------------------------------------------------------------------

    def exists(self, ino: int) -> bool:
        """Whether the file's device is still there."""
        return self._subject(ino) is not None

    def is_binary(self, ino: int) -> bool:
        """Whether the file is a binary attribute."""
        entry = self._entry(ino)
        return entry is not None and isinstance(entry.row, Attr) and entry.row.binary

    def open(self, ino: int, read: bool, write: bool) -> None:
        """The check after the permission check, which root cannot bypass.  Linux: kernfs_fop_open.

        Raises:
            NoStore: no permission bit at all, or no method, for what is wanted.
            NoSuchFile: the device is gone.
            DirectoryIsNotAFile: a directory.
        """
        entry = self._entry(ino)
        if entry is None or not self.exists(ino):
            raise NoSuchFile()
        row = entry.row
        if not isinstance(row, Attr):
            raise DirectoryIsNotAFile()
        if not row.kernfs:
            return
        changed = self._changed.get(ino)
        mode = entry.mode if changed is None else changed.mode
        if (read and not mode & 0o444) or (write and (row.binary or not mode & 0o222)):
            raise NoStore()

    def read(self, ino: int) -> "bytes | Op[bytes]":
        """The whole text of a file as it is now; an Op where the kernel would wait for a lock.

        Raises:
            Gone: its device was removed.
            NotAttribute, NotReadable: EIO.
        """
        subject = self._subject(ino)
        if subject is None:
            raise Gone()
        row = self._plans[ino >> KIND_SHIFT & KIND_MASK].entries[ino & INDEX_MASK].row  # type: ignore[union-attr]
        if row.show is None:  # type: ignore[union-attr]
            raise NotAttribute()
        text = row.show(self.kernel, subject)  # type: ignore[union-attr]
        return text.encode() if isinstance(text, str) else _encoded(text)

    def write(self, ino: int, data: bytes) -> "Op[int] | int":
        """One store: `data` is cut to 4096 bytes, and most parsers see it up to the first NUL.  An empty write does
        nothing, but on a removed device.

        Returns:
            How many bytes were taken, or an Op that returns it.

        Raises:
            Gone: its device was removed.
            SysError: the store refused.
        """
        subject = self._subject(ino)
        if subject is None:
            raise Gone()
        entry = self._entry(ino)
        row = entry.row if entry is not None else None
        if not data and isinstance(row, Attr) and row.kernfs:
            return 0
        if not isinstance(row, Attr) or row.store is None:
            raise NotAttribute()
        data = data[:PAGE]
        op = row.store(self.kernel, subject, counted_string(data) if row.counted else c_string(data))
        return len(data) if op is None else _counted(op, len(data))

    # -- the kernel's changes -----------------------------------------------------------------------------------

    def stale(self, entry: JournalEntry) -> Stale:
        """Take note of a device or link that came or went, and tell what others may have cached of it.

        Call it once for each entry of the journal, in order.
        """
        if isinstance(entry, DeviceNew):
            if entry.serial in self.kernel.devices:
                self._born_ns[entry.serial] = self.now_ns()
            return Stale(inodes=(self._holder(entry.subsystem),))
        if isinstance(entry, DeviceGone):
            return self._forget(entry)
        if isinstance(entry, LinkNew | LinkGone):
            return self._stale_link(entry.block_id, entry.node_id)
        return Stale()

    def _forget(self, gone: DeviceGone) -> Stale:
        self._born_ns.pop(gone.serial, None)
        for ino in [ino for ino in self._changed if ino >> SERIAL_SHIFT == gone.serial]:
            del self._changed[ino]
        for ino in [ino for ino in self._listings if ino >> SERIAL_SHIFT == gone.serial]:
            del self._listings[ino]
        name = f"{gone.subsystem}{gone.number}"
        holder = self._holder(gone.subsystem)
        names = [(holder, name), (inode(0, MACHINE, self._plans[MACHINE].holders[f"{gone.subsystem}-bus"]), name)]
        names += [(node_ino, name) for node_ino in map(self._node_inode, gone.node_ids) if node_ino]
        return Stale(tuple(names), (holder,))

    def _stale_link(self, block_id: int, node_id: int) -> Stale:
        block, names = self.kernel.blocks.get(block_id), []
        if self._node_inode(node_id):
            names.append((self._node_inode(node_id), f"memory{block_id}"))
        if block is not None:
            names.append((inode(block.serial, BLOCK, OWN), f"node{node_id}"))
        return Stale(tuple(names))

    def _holder(self, subsystem: str) -> int:
        return inode(0, MACHINE, self._plans[MACHINE].holders["blocks" if subsystem == "memory" else "nodes"])

    def _node_inode(self, node_id: int) -> int:
        node = self.kernel.nodes[node_id]
        return inode(node.serial, NODE, OWN) if node.online else 0


def _encoded(op: Op[str]) -> Op[bytes]:
    return (yield from op).encode()


def _counted(op: Op[None], taken: int) -> Op[int]:
    yield from op
    return taken
