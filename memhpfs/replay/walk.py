"""Paths and permissions in front of the tree: what the kernel's VFS decides before a file system is asked.

Lives here: walking a path, discretionary access, what CAP_DAC_OVERRIDE lets root do.  Must not: descriptors (vfs.py).
Source: path_lookupat, link_path_walk (fs/namei.c), generic_permission.
"""

import errno
import os
import stat

from attrs import define, field, frozen

from memhpfs.errors import NoSuchFile
from memhpfs.sysfs.tree import Attributes, Tree

__all__ = ["EXECUTE", "READ", "WRITE", "Place", "Walker", "refused"]

READ, WRITE, EXECUTE = 4, 2, 1
_MAX_LINKS = 40


def refused(number: int) -> OSError:
    """The exception for a refusal that the VFS itself makes."""
    return OSError(number, os.strerror(number))


@frozen
class Place:
    """Where a path leads.

    Attributes:
        trail: directories from the root down to the one that the last component stands in.
        name: the last component.
        ino: what stands there, or None.
        mode: its full mode, or 0.
    """

    trail: tuple[int, ...]
    name: str
    ino: int | None
    mode: int = 0

    @property
    def parent(self) -> int:
        return self.trail[-1]

    def must_exist(self) -> int:
        """The inode.

        Raises:
            OSError: ENOENT.
        """
        if self.ino is None:
            raise refused(errno.ENOENT)
        return self.ino


@define
class Walker:
    """Looks up paths of a tree for a user.

    Attributes:
        uid: who asks; the group has the same number.

    Root may search every directory, so directories that it has found before are kept.
    """

    tree: Tree
    uid: int = 0
    _trails: dict[str, tuple[int, ...]] = field(factory=dict, init=False)

    def find(self, path: str, *, follow: bool = True) -> Place:
        """Walk a path; only its last component may be missing.

        Args:
            follow: whether a link at the end is followed.

        Raises:
            OSError: ENOENT, ENOTDIR, ELOOP, or EACCES for a directory that may not be searched.
        """
        directory, _, name = path.rpartition("/")
        if self.uid or name in ("", ".", ".."):
            return self._walk((self.tree.ROOT,), path.split("/"), follow)
        trail = self._trails.get(directory)
        if trail is None or not self.tree.exists(trail[-1]):
            trail = self._trails[directory] = self._directory(directory)
        return self._walk(trail, [name], follow)

    def _directory(self, path: str) -> tuple[int, ...]:
        """The trail that leads into a directory."""
        place = self._walk((self.tree.ROOT,), path.split("/"), True)
        ino = place.must_exist()
        if not stat.S_ISDIR(place.mode):
            raise refused(errno.ENOTDIR)
        return (*place.trail, ino)

    def _walk(self, trail: tuple[int, ...], words: list[str], follow: bool) -> Place:
        """Take the words one by one, from the directory that `trail` leads to."""
        left, links, name = _components(words), 0, ""
        while left:
            name = left.pop()
            if name == "..":
                trail = trail[:-1] or trail
                continue
            ino = self._step(trail[-1], name)
            if ino is None:
                if left:
                    raise refused(errno.ENOENT)
                return Place(trail, name, None)
            mode = self.tree.attributes(ino).mode
            if stat.S_ISLNK(mode) and (left or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise refused(errno.ELOOP)
                left += _components(self.tree.readlink(ino).split("/"))
            elif stat.S_ISDIR(mode):
                trail = (*trail, ino)
            elif left:
                raise refused(errno.ENOTDIR)
            else:
                return Place(trail, name, ino, mode)
        return Place(trail[:-1] or trail, name, trail[-1], self.tree.attributes(trail[-1]).mode)

    def _step(self, directory: int, name: str) -> int | None:
        if self.uid and not self.may(directory, EXECUTE):
            raise refused(errno.EACCES)
        try:
            return self.tree.lookup(directory, name)
        except NoSuchFile:
            return None

    def may(self, ino: int, wanted: int) -> bool:
        """Whether the user has these permissions, by mode and owner; root has all but executing what nobody may."""
        if self.uid == 0 and not wanted & EXECUTE:
            return True
        attributes = self.tree.attributes(ino)
        if self.uid == 0:
            return stat.S_ISDIR(attributes.mode) or bool(attributes.mode & 0o111)
        return not wanted & ~self._bits(attributes)

    def _bits(self, attributes: Attributes) -> int:
        if self.uid == attributes.uid:
            return attributes.mode >> 6 & 7
        return attributes.mode >> (3 if self.uid == attributes.gid else 0) & 7

    def must(self, ino: int, wanted: int) -> None:
        """Check permissions.

        Raises:
            OSError: EACCES.
        """
        if wanted and not self.may(ino, wanted):
            raise refused(errno.EACCES)

    def must_own(self, ino: int) -> None:
        """Check that the user owns the file or is root.

        Raises:
            OSError: EPERM.
        """
        if self.uid not in (0, self.tree.attributes(ino).uid):
            raise refused(errno.EPERM)


def _components(words: list[str]) -> list[str]:
    """The words of a path, the next one last."""
    return [word for word in reversed(words) if word not in ("", ".")]
