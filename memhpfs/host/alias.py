"""Second inode numbers for files that several have open for writing, so that each writer can be killed while it waits.

Lives here: which numbers are open for writing, and who is to find a file under another one.
Must not: attributes and requests (fuse.py).

The kernel holds an inode's lock while a write to it lasts.  Whoever else writes to that inode sleeps until then: no
signal ends it, and nobody tells the daemon.  On sysfs it would get its turn at the hotplug lock, and could be killed.
So every writer gets a number of its own, which the kernel takes for another inode with a lock of its own.  Who opens a
number for writing that somebody else has open for writing is told that it is stale.  The kernel then looks the name up
once more (do_filp_open, LOOKUP_REVAL), finds an alias, and opens that.  Readers and the first writer never see one.
Invariant: nobody is refused twice in a row, so what is opened without a name (/proc/self/fd/N) opens as well; such a
descriptor shares its lock.
"""

from collections import Counter

from attrs import define, field

__all__ = ["Aliases"]

#: The tree's own numbers lie below; the number of the alias stands above.
_SHIFT = 48
_OWN = (1 << _SHIFT) - 1
_LAST = (1 << 64 - _SHIFT) - 1


@define(eq=False)
class Aliases:
    """The aliases of one mounted tree."""

    _written: Counter[int] = field(factory=Counter, init=False)
    _refused: dict[int, int] = field(factory=dict, init=False)
    _last: int = field(default=0, init=False)

    @staticmethod
    def own(ino: int) -> int:
        """The tree's number of a file, whatever it was found under."""
        return ino & _OWN

    def found(self, ino: int, thread: int) -> int:
        """The number under which a thread finds a file: its own, or an alias for who was refused."""
        alias = self._refused.get(thread, 0)
        return alias if alias & _OWN == ino else ino

    def opens(self, ino: int, thread: int) -> bool:
        """Open a number for writing; False refuses, and has an alias ready for the thread's next look at the name.

        Args:
            thread: its number, 0 if it has none here, as in another process namespace; then the lock is shared.
        """
        refused = self._refused.pop(thread, 0)
        if thread and self._written[ino] and refused & _OWN != ino & _OWN:
            self._last = self._last % _LAST + 1
            self._refused[thread] = self._last << _SHIFT | ino & _OWN
            return False
        self._written[ino] += 1
        return True

    def closes(self, ino: int) -> None:
        """The last copy of a descriptor that was open for writing was closed."""
        self._written[ino] -= 1
        if not self._written[ino]:
            del self._written[ino]
