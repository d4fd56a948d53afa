"""A directory's names in the order in which sysfs lists them.

Directories of devices have thousands of names, so a listing keeps two numbers for each and makes the rest when asked.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import overload

from attrs import frozen

from memhpfs.sysfs.names import name_hash

__all__ = ["Dirent", "Listing"]


@frozen
class Dirent:
    """One name of a directory; `hash` is its offset in the listing."""

    name: str
    ino: int
    hash: int


class Listing(Sequence[Dirent]):
    """The names of a directory, by hash, then by name.

    Args:
        inos: inode numbers of what is in it, in any order.
        name_of: the name that leads to such a number; asked again for each Dirent.
    """

    def __init__(self, inos: Iterable[int], name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        found = sorted((name_hash(name), name, ino) for ino in inos for name in (name_of(ino),))
        self._hashes = array("L", [item[0] for item in found])
        self._inos = array("Q", [item[2] for item in found])

    def __len__(self) -> int:
        return len(self._inos)

    @overload
    def __getitem__(self, index: int) -> Dirent: ...
    @overload
    def __getitem__(self, index: slice) -> list[Dirent]: ...
    def __getitem__(self, index: int | slice) -> Dirent | list[Dirent]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        ino = self._inos[index]
        return Dirent(self._name_of(ino), ino, self._hashes[index])
