"""Huge page pools: 2 MiB pages counted per extent, gigantic pages one by one.

Free pages of a pool may be reserved: promised to programs that have not used them yet.  Linux reserves pages of the
machine, not of a node.
Source: set_max_huge_pages, dissolve_free_hugetlb_folio, alloc_hugetlb_folio_nodemask, hugetlb_acct_memory
(mm/hugetlb.c).
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from memhpfs.errors import CannotDissolve, StillReserved
from memhpfs.kernel.alloc import allocate
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hvo import optimize_memmap, restore_memmap
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.kernel.pause import Op, Pause, run_now
from memhpfs.kernel.state import Block, BlockState, Gigantic, Kernel, Zone
from memhpfs.units import GIB

__all__ = [
    "GIGANTIC_PAGES", "allocate_huge_2m", "available_2m", "dissolve", "dissolve_gigantic", "dissolve_huge_2m",
    "free_huge_2m", "gigantic_at", "gigantic_pool", "move_gigantic", "move_huge_2m", "pool_2m", "reserved_2m",
    "resize_gigantic_pool", "set_gigantic_pool", "set_pool_2m", "take_from_pool_2m", "used_gigantic",
]

GIGANTIC_PAGES = GIB // PAGE_SIZE


def pool_2m(kernel: Kernel, node_id: int) -> tuple[int, int]:
    """2 MiB pages of a node: all, and free ones."""
    zones = kernel.nodes[node_id].zones.values()
    free = sum(zone.pages.totals[Use.HUGE_2M_FREE] for zone in zones) // HUGE_2M_PAGES
    return free + sum(zone.pages.totals[Use.HUGE_2M] for zone in zones) // HUGE_2M_PAGES, free


def reserved_2m(kernel: Kernel) -> int:
    """2 MiB pages that are promised.  Linux: resv_huge_pages."""
    return sum(work.nr_pages for work in kernel.workloads.values() if work.reserved) // HUGE_2M_PAGES


def available_2m(kernel: Kernel) -> int:
    """Free 2 MiB pages of all pools that are not promised.  Linux: available_huge_pages."""
    return sum(pool_2m(kernel, node_id)[1] for node_id in kernel.nodes) - reserved_2m(kernel)


def set_pool_2m(kernel: Kernel, node_id: int, wanted: int) -> None:
    """Grow or shrink a node's pool of 2 MiB pages as far as memory, and pages that are used or reserved, allow."""
    total, free = pool_2m(kernel, node_id)
    if wanted > total:
        allocate_huge_2m(kernel, Use.HUGE_2M_FREE, (wanted - total) * HUGE_2M_PAGES, [node_id])
    elif wanted < total:
        count = max(0, min(total - wanted, free, available_2m(kernel)))
        free_huge_2m(kernel, Use.HUGE_2M_FREE, count * HUGE_2M_PAGES, [node_id])


def allocate_huge_2m(kernel: Kernel, use: Use, nr_pages: int, node_ids: list[int]) -> int:
    """Make 2 MiB pages, free or used, of free memory; how many pages that were."""
    found = allocate(kernel, use, nr_pages, node_ids, movable=True, chunk=HUGE_2M_PAGES)
    optimize_memmap(kernel, node_ids[0], HUGE_2M_PAGES, found // HUGE_2M_PAGES)
    kernel.events["htlb_buddy_alloc_success"] += found // HUGE_2M_PAGES
    kernel.events["htlb_buddy_alloc_fail"] += found < nr_pages
    return found


def take_from_pool_2m(kernel: Kernel, nr_pages: int, node_ids: list[int]) -> int:
    """Use free 2 MiB pages that are not reserved; how many pages that were."""
    wanted = left = max(0, min(nr_pages, available_2m(kernel) * HUGE_2M_PAGES))
    for zone, extent in _holders(kernel, Use.HUGE_2M_FREE, node_ids):
        if extent not in zone.pages.isolated:
            found = min(left, kernel.pages.get(extent, Use.HUGE_2M_FREE))
            kernel.pages.convert(zone.pages, extent, Use.HUGE_2M_FREE, Use.HUGE_2M, found)
            left -= found
    return wanted - left


def free_huge_2m(kernel: Kernel, use: Use, nr_pages: int, node_ids: list[int]) -> int:
    """Split 2 MiB pages, last made first; how many pages that were.

    One whose memory map cannot be restored stays in the pool as a free one.  Linux: update_and_free_hugetlb_folio.
    """
    left = nr_pages
    for zone, extent in reversed(list(_holders(kernel, use, node_ids))):
        while left and kernel.pages.get(extent, use):
            _split_huge_2m(kernel, zone, extent, use)
            left -= HUGE_2M_PAGES
    return nr_pages - left


def _split_huge_2m(kernel: Kernel, zone: Zone, extent: int, use: Use) -> None:
    after = Use.FREE
    try:
        restore_memmap(kernel, zone.node_id, HUGE_2M_PAGES)
    except CannotDissolve:
        after = Use.HUGE_2M_FREE
    kernel.pages.convert(zone.pages, extent, use, after, HUGE_2M_PAGES)


def _holders(kernel: Kernel, use: Use, node_ids: Iterable[int]) -> Iterator[tuple[Zone, int]]:
    """The extents that have pages of a use, each with its zone."""
    for node_id in node_ids:
        for zone in kernel.nodes[node_id].zones.values():
            for extent in list(zone.pages.extents) if zone.pages.totals[use] else ():
                if kernel.pages.get(extent, use):
                    yield zone, extent


def move_huge_2m(kernel: Kernel, zone: Zone, extent: int, nr_pages: int, node_ids: list[int]) -> int:
    """Move used 2 MiB pages out of an extent, into free ones of the pool or else new ones; how many pages moved.

    The pool keeps its size: a page whose place in the pool another took stays behind as a free one.
    """
    wanted = nr_pages // HUGE_2M_PAGES * HUGE_2M_PAGES
    dequeued = take_from_pool_2m(kernel, wanted, node_ids)
    kernel.pages.convert(zone.pages, extent, Use.HUGE_2M, Use.HUGE_2M_FREE, dequeued)
    made = allocate_huge_2m(kernel, Use.HUGE_2M, wanted - dequeued, node_ids)
    for _ in range(made // HUGE_2M_PAGES):
        _split_huge_2m(kernel, zone, extent, Use.HUGE_2M)
    return dequeued + made


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
            optimize_memmap(kernel, node_id, GIGANTIC_PAGES)
    for page in [p for p in kernel.gigantic if p.node_id == node_id and not p.used][:max(0, total - wanted)]:
        with suppress(CannotDissolve):
            dissolve_gigantic(kernel, page)


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

    Those before the first that cannot be given back are gone from the pool.

    Raises:
        StillReserved: no free page can be spared.
        CannotDissolve: the memory map of a page cannot be restored for want of memory.
    """
    for page in [p for p in kernel.gigantic if any(extent in kernel.blocks[b].extents for b in p.block_ids)]:
        dissolve_gigantic(kernel, page)
    while kernel.pages.get(extent, Use.HUGE_2M_FREE):
        dissolve_huge_2m(kernel, zone, extent, Use.HUGE_2M_FREE)


def dissolve_huge_2m(kernel: Kernel, zone: Zone, extent: int, use: Use) -> None:
    """Give one 2 MiB page of an extent back to the allocator; its use tells whether it is a free one.

    Raises:
        StillReserved: no free page can be spared.
        CannotDissolve: its memory map cannot be restored.
    """
    if use is Use.HUGE_2M_FREE and available_2m(kernel) <= 0:
        raise StillReserved()
    restore_memmap(kernel, zone.node_id, HUGE_2M_PAGES)
    kernel.pages.convert(zone.pages, extent, use, Use.FREE, HUGE_2M_PAGES)


def gigantic_at(kernel: Kernel, block: Block) -> Gigantic | None:
    """The gigantic page that a block belongs to or holds first, if there is one."""
    return next((page for page in kernel.gigantic if block.id in page.block_ids), None)


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


def dissolve_gigantic(kernel: Kernel, page: Gigantic) -> None:
    """Give a gigantic page back to the allocator.

    Raises:
        CannotDissolve: its memory map cannot be restored.
    """
    restore_memmap(kernel, page.node_id, GIGANTIC_PAGES)
    _convert(kernel, page, Use.HUGE_1G, Use.FREE)
    kernel.gigantic.remove(page)
