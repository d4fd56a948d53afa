"""Huge page pools: 2 MiB pages counted per extent, gigantic pages one by one.

Source: set_max_huge_pages, dissolve_free_hugetlb_folio, alloc_and_dissolve_hugetlb_folio (mm/hugetlb.c),
hugetlb_vmemmap_restore_folio (mm/hugetlb_vmemmap.c).
"""

from collections.abc import Iterator

from memhpfs.errors import CannotDissolve
from memhpfs.kernel.alloc import allocate, nodes_by_distance, release_pages
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.kernel.pause import Op, Pause, run_now
from memhpfs.kernel.state import BlockState, Gigantic, Kernel, Zone
from memhpfs.units import GIB

__all__ = [
    "GIGANTIC_PAGES", "dissolve", "gigantic_pool", "move_gigantic", "pool_2m", "release_huge_2m",
    "resize_gigantic_pool", "set_gigantic_pool", "set_pool_2m", "used_gigantic",
]

GIGANTIC_PAGES = GIB // PAGE_SIZE
#: Pages of memory map that HVO gives back for a 2 MiB page, and needs again to split it.
_HVO_PAGES = 7


def pool_2m(kernel: Kernel, node_id: int) -> tuple[int, int]:
    """2 MiB pages of a node: all, and free ones."""
    zones = kernel.nodes[node_id].zones.values()
    free = sum(zone.pages.totals[Use.HUGE_2M_FREE] for zone in zones) // HUGE_2M_PAGES
    return free + sum(zone.pages.totals[Use.HUGE_2M] for zone in zones) // HUGE_2M_PAGES, free


def set_pool_2m(kernel: Kernel, node_id: int, wanted: int) -> None:
    """Grow or shrink a node's pool of 2 MiB pages as far as memory, and pages in use, allow."""
    total, free = pool_2m(kernel, node_id)
    if wanted > total:
        allocate(kernel, Use.HUGE_2M_FREE, (wanted - total) * HUGE_2M_PAGES, [node_id], movable=True,
                 chunk=HUGE_2M_PAGES)
    elif wanted < total:
        release_pages(kernel, Use.HUGE_2M_FREE, min(total - wanted, free) * HUGE_2M_PAGES, [node_id])


def gigantic_pool(kernel: Kernel, node_id: int) -> tuple[int, int]:
    """1 GiB pages of a node: all, and free ones."""
    pages = [page for page in kernel.gigantic if page.node_id == node_id]
    return len(pages), sum(not page.used for page in pages)


def set_gigantic_pool(kernel: Kernel, node_id: int, wanted: int) -> None:
    """Grow or shrink a node's pool of 1 GiB pages, at once."""
    run_now(resize_gigantic_pool(kernel, node_id, wanted))


def resize_gigantic_pool(kernel: Kernel, node_id: int, wanted: int) -> Op[None]:
    """Grow or shrink a node's pool of 1 GiB pages; each needs an aligned GiB of wholly free blocks in a kernel zone.

    While the kernel makes one, its blocks are isolated, so offlining them fails.  Linux: alloc_contig_range.
    """
    total, _ = gigantic_pool(kernel, node_id)
    for _ in range(max(0, wanted - total)):
        if (blocks := _free_gib(kernel, node_id)) is None:
            break
        page = Gigantic(node_id, blocks)
        yield from _isolated(kernel, page)
        if _is_free(kernel, page):
            kernel.gigantic.append(page)
            _convert(kernel, page, Use.FREE, Use.HUGE_1G)
    for page in [p for p in kernel.gigantic if p.node_id == node_id and not p.used][:max(0, total - wanted)]:
        _dissolve_gigantic(kernel, page)


def _isolated(kernel: Kernel, page: Gigantic) -> Op[None]:
    """Keep the blocks of a page to be isolated for as long as its contents take to move."""
    places = [(zone.pages, extent) for zone, extent in _places(kernel, page)]
    for pages, extent in places:
        kernel.pages.isolate(pages, extent)
    try:
        rate = kernel.spec.migration_rate
        yield Pause("allocating a gigantic page", cost_ns=GIB * 1_000_000_000 // rate if rate else 0)
    finally:
        for pages, extent in places:
            kernel.pages.undo_isolate(pages, extent)


def used_gigantic(kernel: Kernel, extent: int) -> list[Gigantic]:
    """Gigantic pages in use that overlap an extent."""
    return [p for p in kernel.gigantic if p.used and any(extent in kernel.blocks[b].extents for b in p.block_ids)]


def move_gigantic(kernel: Kernel, page: Gigantic) -> bool:
    """Move a gigantic page into a free one that is not being offlined; whether there was one."""
    for other in kernel.gigantic:
        online = all(kernel.blocks[b].state is BlockState.ONLINE for b in other.block_ids)
        if not other.used and online:
            page.used, other.used = False, True
            return True
    return False


def dissolve(kernel: Kernel, zone: Zone, extent: int) -> None:
    """Give the free huge pages of an extent back to the allocator: the pools shrink.

    Raises:
        CannotDissolve: the memory map of a page cannot be restored for want of memory.
    """
    for page in [p for p in kernel.gigantic if any(extent in kernel.blocks[b].extents for b in p.block_ids)]:
        _dissolve_gigantic(kernel, page)
    while kernel.pages.get(extent, Use.HUGE_2M_FREE):
        if kernel.spec.hugetlb_free_vmemmap:
            _restore_memmap(kernel, zone)
        kernel.pages.convert(zone.pages, extent, Use.HUGE_2M_FREE, Use.FREE, HUGE_2M_PAGES)


def release_huge_2m(kernel: Kernel, zone: Zone, extent: int, nr_pages: int) -> None:
    """Free 2 MiB pages whose contents have moved away.

    One whose memory map cannot be restored stays in the pool as a free one.  Linux: update_and_free_hugetlb_folio.
    """
    for _ in range(nr_pages // HUGE_2M_PAGES):
        left = Use.FREE
        if kernel.spec.hugetlb_free_vmemmap:
            try:
                _restore_memmap(kernel, zone)
            except CannotDissolve:
                left = Use.HUGE_2M_FREE
        kernel.pages.convert(zone.pages, extent, Use.HUGE_2M, left, HUGE_2M_PAGES)


def _restore_memmap(kernel: Kernel, zone: Zone) -> None:
    nodes = [node.id for node in nodes_by_distance(kernel, zone.node_id)]
    found = allocate(kernel, Use.KERNEL, _HVO_PAGES, nodes, movable=False)
    if found < _HVO_PAGES:
        release_pages(kernel, Use.KERNEL, found, nodes)
        raise CannotDissolve()


def _free_gib(kernel: Kernel, node_id: int) -> tuple[int, ...] | None:
    """The blocks of the first aligned GiB of a node that is wholly free and lies in one zone."""
    count = max(1, GIB // kernel.block_size_bytes)
    for first in sorted(kernel.nodes[node_id].links):
        blocks = [kernel.blocks.get(first + i) for i in range(count)] if first % count == 0 else [None]
        zones = {block.zone for block in blocks if block is not None}
        page = Gigantic(node_id, tuple(range(first, first + count)))
        if None not in blocks and None not in zones and len(zones) == 1 and _is_free(kernel, page):
            return page.block_ids
    return None


def _is_free(kernel: Kernel, page: Gigantic) -> bool:
    """Whether all memory of a page to be is free, in a kernel zone, and nobody else is about to take it."""
    return all(
        not zone.movable and extent not in zone.pages.isolated
        and kernel.pages.get(extent, Use.FREE) >= min(GIGANTIC_PAGES, kernel.pages_per_block)
        for zone, extent in _places(kernel, page)
    )


def _places(kernel: Kernel, page: Gigantic) -> Iterator[tuple[Zone, int]]:
    """The zone and the extent of each block of a page."""
    for block_id in page.block_ids:
        block = kernel.blocks[block_id]
        assert block.zone is not None
        yield block.zone, block.extents[0]


def _convert(kernel: Kernel, page: Gigantic, old: Use, new: Use) -> None:
    for zone, extent in _places(kernel, page):
        kernel.pages.convert(zone.pages, extent, old, new, min(GIGANTIC_PAGES, kernel.pages_per_block))


def _dissolve_gigantic(kernel: Kernel, page: Gigantic) -> None:
    _convert(kernel, page, Use.HUGE_1G, Use.FREE)
    kernel.gigantic.remove(page)
