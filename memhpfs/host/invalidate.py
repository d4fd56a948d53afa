"""What the kernel has cached of the tree, dropped when the model makes it wrong.

Lives here: the queue of stale names and the thread that works on it.  Must not: which names are stale (sysfs/tree.py).

Dropping attributes never waits.  Dropping a name takes the lock of its directory, which a client may hold while it
waits for our reply to a lookup; so a thread does it while requests go on being served.
"""

import trio
from pyfuse3 import invalidate_entry, invalidate_inode

from memhpfs.sysfs.tree import Stale

__all__ = ["Invalidator"]


class Invalidator:
    """Drops stale names and attributes from the kernel's caches, in order."""

    def __init__(self) -> None:
        self._names: list[tuple[int, bytes]] = []
        self._busy = False
        self._work = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()

    @property
    def settled(self) -> bool:
        """Whether nothing stale is left."""
        return not (self._names or self._busy)

    def drop(self, stale: Stale) -> None:
        """Drop attributes now, names soon."""
        for ino in stale.inodes:
            try:
                invalidate_inode(ino, attr_only=True)
            except FileNotFoundError:
                continue
        self._names += [(parent, name.encode()) for parent, name in stale.entries]
        self._work.unpark_all()

    async def run(self) -> None:
        """Work on the queue until cancelled."""
        while True:
            while not self._names:
                await self._work.park()
            names, self._names, self._busy = self._names, [], True
            try:
                await trio.to_thread.run_sync(_drop_names, names, abandon_on_cancel=True)
            finally:
                self._busy = False
                if self.settled:
                    self._idle.unpark_all()

    async def settle(self) -> None:
        """Wait until nothing stale is left."""
        while not self.settled:
            await self._idle.park()


def _drop_names(names: list[tuple[int, bytes]]) -> None:
    for parent, name in names:
        try:
            invalidate_entry(parent, name)
        except OSError:
            # Not in the cache; or the file system is being unmounted, which drops everything.
            continue
