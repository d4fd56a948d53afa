"""Where in a block the pages of each use stand, for whoever asks about a single page.

The model counts pages and does not place them; asked for one, it answers as if those of a use stood together: the
block's own memory map first, then huge pages, the kernel's pages, those of user space, free ones, and at the end what
boot reserved.  The answer changes only when the counts do.
"""

from collections.abc import Collection, Iterator

from memhpfs.kernel.pages import Use
from memhpfs.kernel.state import Block, Kernel, Zone

__all__ = ["extent_of", "first_page", "use_at"]

#: Huge pages first, so that they are aligned.
_ORDER = (
    Use.HUGE_1G, Use.HUGE_2M, Use.HUGE_2M_FREE, Use.SLAB, Use.PAGETABLES, Use.KERNEL, Use.CMA, Use.BALLOON, Use.PINNED,
    Use.MLOCK, Use.ANON, Use.SHM, Use.FILE, Use.FREE,
)


def extent_of(kernel: Kernel, block: Block, pfn: int) -> tuple[Zone, int]:
    """Zone and extent that count a page of an online block."""
    if block.zone is not None:
        return block.zone, block.extents[0]
    zones = dict(zip(dict.fromkeys(zone for zone, _, _ in block.parts), block.extents, strict=True))
    zone = next((zone for zone, first, last in block.parts if first <= pfn < last), block.parts[-1][0])
    return zone, zones[zone]


def use_at(kernel: Kernel, block: Block, pfn: int) -> Use | None:
    """What a page of an online block is used for; None where the allocator never had it.

    In a block of several zones or nodes that has reserved pages all count as such: nothing tells where they are.
    """
    if block.zone is None and block.unmanaged_pages:
        return None
    zone, extent = extent_of(kernel, block, pfn)
    start = block.id * kernel.pages_per_block
    if block.zone is None:
        start = next(first for held, first, _ in block.parts if held is zone)
    offset = pfn - start
    if offset < block.vmemmap_pages or offset >= block.present_pages - block.unmanaged_pages:
        return None
    last = None
    for use, first, end in _runs(kernel, extent, block.vmemmap_pages):
        if first <= offset < end:
            return use
        last = use
    return last


def first_page(kernel: Kernel, block: Block, uses: Collection[Use]) -> tuple[int, Use | None]:
    """The first page, as a pfn, that has one of these uses; without any, the first of what boot reserved."""
    start = block.id * kernel.pages_per_block
    for use, first, _ in _runs(kernel, block.extents[0], block.vmemmap_pages):
        if use in uses:
            return start + first, use
    return start + block.present_pages - block.unmanaged_pages, None


def _runs(kernel: Kernel, extent: int, offset: int) -> Iterator[tuple[Use, int, int]]:
    """The uses of an extent that have pages, each with the offsets of its first page and after its last."""
    for use in _ORDER:
        count = kernel.pages.get(extent, use)
        if count:
            yield use, offset, offset + count
            offset += count
