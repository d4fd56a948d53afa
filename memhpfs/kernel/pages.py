"""What fills the memory: how many pages of each use lie in each extent.

An extent is the part of a block that belongs to one zone; nearly every block is one extent.  Pages have no identity:
counts per extent and use stand in one flat array, the totals of a zone in the zone itself.  Poisoned pages, boot
reservations and self-hosted memmaps are counted in the block's record.
Invariant: the counts of an extent add up to the pages the allocator manages there; a zone's totals are the sums over
its extents.
"""

from array import array
from collections.abc import Iterable
from enum import IntEnum

from attrs import define, field

__all__ = ["HUGE_2M_PAGES", "MOVABLE_USES", "NR_USES", "UNMOVABLE_USES", "PageCounts", "Use", "ZonePages"]

HUGE_2M_PAGES = 512


class Use(IntEnum):
    """What a page is used for."""

    FREE = 0
    ANON = 1
    FILE = 2
    SHM = 3
    MLOCK = 4
    SLAB = 5
    PAGETABLES = 6
    KERNEL = 7
    HUGE_2M = 8
    HUGE_2M_FREE = 9
    HUGE_1G = 10
    PINNED = 11
    BALLOON = 12
    CMA = 13


NR_USES = len(Use)

#: Uses that make isolation of a block fail.  Linux: has_unmovable_pages.
UNMOVABLE_USES = (Use.SLAB, Use.PAGETABLES, Use.KERNEL, Use.CMA)
#: Uses whose pages migrate one by one, in the order the scan finds them.
MOVABLE_USES = (Use.ANON, Use.FILE, Use.SHM, Use.MLOCK)


@define(eq=False)
class ZonePages:
    """The allocator's view of a zone.

    Attributes:
        totals: pages by use.
        extents: extents of the zone in the order they came online; newly onlined memory is used last.
        with_free: those that have free pages, in the order they are used.
        with_kernel: those that hold, or held, pages of the kernel, which attract more of them.
        isolated: extents that are being offlined: nothing is allocated there.
    """

    totals: list[int] = field(factory=lambda: [0] * NR_USES)
    extents: dict[int, None] = field(factory=dict)
    with_free: dict[int, None] = field(factory=dict)
    with_kernel: dict[int, None] = field(factory=dict)
    isolated: set[int] = field(factory=set)


@define(eq=False)
class PageCounts:
    """The flat array of counts, and the numbers of unused extents.

    Args:
        pages_per_block: decides the width of a count.
    """

    pages_per_block: int
    counts: "array[int]" = field(init=False)
    _unused: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = array("H" if self.pages_per_block < 1 << 16 else "I")

    def new_extent(self, zone: ZonePages, nr_free: int) -> int:
        """Give free pages to a zone; the number of the extent."""
        if self._unused:
            extent = self._unused.pop()
        else:
            extent = len(self.counts) // NR_USES
            self.counts.extend([0] * NR_USES)
        zone.extents[extent] = None
        self.add(zone, extent, Use.FREE, nr_free)
        return extent

    def drop_extent(self, zone: ZonePages, extent: int) -> None:
        """Take an extent with all its pages away from its zone."""
        base = extent * NR_USES
        for use in range(NR_USES):
            zone.totals[use] -= self.counts[base + use]
            self.counts[base + use] = 0
        zone.extents.pop(extent)
        zone.with_free.pop(extent, None)
        zone.with_kernel.pop(extent, None)
        zone.isolated.discard(extent)
        self._unused.append(extent)

    def get(self, extent: int, use: Use) -> int:
        """Pages of one use in an extent."""
        return self.counts[extent * NR_USES + use]

    def row(self, extent: int) -> list[int]:
        """Pages of all uses in an extent."""
        return list(self.counts[extent * NR_USES:(extent + 1) * NR_USES])

    def total(self, extent: int, uses: Iterable[Use]) -> int:
        """Pages of some uses in an extent."""
        base = extent * NR_USES
        return sum(self.counts[base + use] for use in uses)

    def add(self, zone: ZonePages, extent: int, use: Use, nr_pages: int) -> None:
        """Count pages in (or, negative, out) without changing any other use."""
        self.counts[extent * NR_USES + use] += nr_pages
        zone.totals[use] += nr_pages
        if use is Use.FREE:
            self._note_free(zone, extent)
        elif use in UNMOVABLE_USES and nr_pages > 0:
            zone.with_kernel[extent] = None

    def convert(self, zone: ZonePages, extent: int, old: Use, new: Use, nr_pages: int) -> None:
        """Use pages of an extent for something else: allocate, free, pin, dissolve."""
        self.add(zone, extent, old, -nr_pages)
        self.add(zone, extent, new, nr_pages)

    def isolate(self, zone: ZonePages, extent: int) -> None:
        """Stop allocating from an extent."""
        zone.isolated.add(extent)
        zone.with_free.pop(extent, None)

    def undo_isolate(self, zone: ZonePages, extent: int) -> None:
        """Allow allocating from it again; its free pages are used last."""
        zone.isolated.discard(extent)
        self._note_free(zone, extent)

    def _note_free(self, zone: ZonePages, extent: int) -> None:
        if self.counts[extent * NR_USES] and extent not in zone.isolated:
            zone.with_free[extent] = None
        else:
            zone.with_free.pop(extent, None)
