"""Second inode numbers for files whose writers wait, so that other writers of the same file reach the daemon.

Lives here: which files have a writer that waits, and under which number others find them meanwhile.
Must not: attributes and requests (fuse.py).

The kernel holds an inode's lock while a write to it lasts.  Whoever else writes to that inode sleeps until then: no
signal ends it, and nobody tells the daemon.  On sysfs it would get its turn at the hotplug lock, and could be killed.
So while a writer waits, each new look at the file's name is answered with another number, which the kernel takes for
another inode with a lock of its own.
Invariant: what an alias was handed out for is not cached, so once nobody waits the next look finds the file's own
number.  A descriptor that was opened before the wait began shares the lock nevertheless.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from memhpfs.sysfs.tree import Stale, Tree

__all__ = ["Aliases"]

#: The tree's own numbers lie below; the number of the alias stands above.
_SHIFT = 48
_OWN = (1 << _SHIFT) - 1
_LAST = (1 << 64 - _SHIFT) - 1


@define(eq=False)
class Aliases:
    """The aliases of one mounted tree.

    Attributes:
        tree: knows where a file's name stands.
        drop: makes the kernel forget names and attributes.
    """

    tree: Tree
    drop: Callable[[Stale], None]
    _waiting: Counter[int] = field(factory=Counter, init=False)
    _last: int = field(default=0, init=False)

    @staticmethod
    def own(ino: int) -> int:
        """The tree's number of a file, whatever it was found under."""
        return ino & _OWN

    def found(self, ino: int) -> int:
        """The number to find a file under: its own, or a fresh alias while one of its writers waits."""
        if ino not in self._waiting:
            return ino
        self._last = self._last % _LAST + 1
        return self._last << _SHIFT | ino

    @contextmanager
    def waiting(self, ino: int) -> Iterator[None]:
        """A writer of the file waits."""
        self._waiting[ino] += 1
        if self._waiting[ino] == 1:
            self.drop(Stale(entries=(self.tree.place(ino),)))
        try:
            yield
        finally:
            self._waiting[ino] -= 1
            if not self._waiting[ino]:
                del self._waiting[ino]
