"""Poisoned pages: soft and hard offlining by address, and what they leave behind.

Source: soft_offline_page, memory_failure, action_page_types (mm/memory-failure.c), hard_offline_page_store
(drivers/base/memory.c); transcript poison.plain.  A poisoned page stays in MemTotal; its block may not go online again
(6.2 and newer), or comes back with pages like new (older).
"""

from typing import NoReturn

from memhpfs.errors import Busy, CannotDissolve, CannotOfflinePage, OutsideControl, Poisoned
from memhpfs.kernel.alloc import allocate, nodes_by_distance
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import (
    allocate_huge_2m,
    dissolve_gigantic,
    dissolve_huge_2m,
    gigantic_at,
    move_gigantic,
    take_from_pool_2m,
)
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.kernel.placement import extent_of, use_at
from memhpfs.kernel.state import Block, BlockState, Kernel, Zone

__all__ = ["forget_poison", "hard_offline_page", "lose_track_of_poison", "soft_offline_page"]

#: What memory_failure calls pages, by use; it can do nothing about others.
_NAMES = {
    Use.FREE: "free buddy page",
    Use.CMA: "free buddy page",
    Use.ANON: "dirty LRU page",
    Use.SHM: "dirty LRU page",
    Use.PINNED: "dirty LRU page",
    Use.MLOCK: "dirty mlocked LRU page",
    Use.FILE: "clean LRU page",
    Use.HUGE_2M: "huge page",
    Use.HUGE_1G: "huge page",
    Use.HUGE_2M_FREE: "free huge page",
}
_HUGE = (Use.HUGE_2M, Use.HUGE_2M_FREE, Use.HUGE_1G)
_COUNTERS = {"Recovered": "recovered", "Failed": "failed", "Ignored": "ignored"}


def soft_offline_page(kernel: Kernel, address: int) -> None:
    """Move the contents of a page elsewhere and never use it again.

    Args:
        address: any byte of the page.

    Raises:
        OutsideControl: there is no memory map for it.
        CannotOfflinePage: its block is offline, or the kernel itself uses it.
        Busy: its contents cannot move.
    """
    pfn = address // PAGE_SIZE
    block = kernel.blocks.get(pfn // kernel.pages_per_block)
    if block is None:
        raise OutsideControl()
    if block.state is BlockState.OFFLINE:
        raise CannotOfflinePage()
    if pfn in kernel.poisoned:
        kernel.journal.log("soft-offline-again", pfn=pfn)
        return
    use = use_at(kernel, block, pfn)
    if use not in _NAMES and not (use is Use.BALLOON and kernel.balloon_compaction):
        kernel.journal.log("memory-failure-unhandlable", pfn=pfn)
        raise CannotOfflinePage()
    assert use is not None
    zone, extent = extent_of(kernel, block, pfn)
    try:
        freed = _empty(kernel, zone, extent, block, use)
    except Busy:
        kernel.journal.log("soft-offline-failed", pfn=pfn, huge=use in _HUGE, use=use.name, node=zone.node_id,
                           zone=zone.index, old=kernel.features.page_dump_pointer)
        raise
    _poison(kernel, block, pfn, freed)


def _empty(kernel: Kernel, zone: Zone, extent: int, block: Block, use: Use) -> Use:
    """Move what a page holds, or drop what can be read again; the use from which the page can be taken.

    Raises:
        Busy: it does not move, or there is no room.
    """
    nodes = [node.id for node in nodes_by_distance(kernel, zone.node_id)]
    if use is Use.PINNED:
        raise Busy()
    if use is Use.HUGE_2M:
        taken = take_from_pool_2m(kernel, HUGE_2M_PAGES, nodes)
        if not taken and not allocate_huge_2m(kernel, use, HUGE_2M_PAGES, nodes):
            raise Busy()
        kernel.pages.convert(zone.pages, extent, use, Use.HUGE_2M_FREE, HUGE_2M_PAGES)
        use = Use.HUGE_2M_FREE
    page = gigantic_at(kernel, block)
    if use is Use.HUGE_1G and page is not None and page.used and not move_gigantic(kernel, page):
        raise Busy()
    if use in _HUGE:
        _dissolve(kernel, zone, extent, block, use)
        return Use.FREE
    if use not in (Use.FREE, Use.CMA, Use.FILE) and not allocate(kernel, use, 1, nodes, movable=True):
        raise Busy()
    return use


def _dissolve(kernel: Kernel, zone: Zone, extent: int, block: Block, use: Use) -> None:
    """Split the huge page that a page belongs to.

    Raises:
        Busy: it is reserved, or its memory map cannot be restored.
    """
    try:
        if use is Use.HUGE_1G:
            page = gigantic_at(kernel, block)
            assert page is not None
            dissolve_gigantic(kernel, page)
        else:
            dissolve_huge_2m(kernel, zone, extent, use)
    except CannotDissolve as error:
        raise Busy() from error


def hard_offline_page(kernel: Kernel, address: int) -> None:
    """Pretend that the hardware reported the page as broken; whoever uses it loses it.

    Args:
        address: any byte of the page.

    Raises:
        OutsideControl: there is no memory map for it, or its block is offline.
        Poisoned: it is poisoned already.
        Busy: it cannot be given up, or 7.3 has no memory map for it; it counts as poisoned all the same.
    """
    pfn = address // PAGE_SIZE
    block = kernel.blocks.get(pfn // kernel.pages_per_block)
    if block is None and kernel.features.hard_offline_outside_busy:
        kernel.journal.log("memory-failure", pfn=pfn, what="non struct page pfn", result="Ignored")
        kernel.poisoned_elsewhere += 1
        raise Busy()
    if block is None or block.state is BlockState.OFFLINE:
        kernel.journal.log("memory-failure-outside", pfn=pfn)
        raise OutsideControl()
    if pfn in kernel.poisoned:
        kernel.journal.log("memory-failure", pfn=pfn, what="already poisoned page", result="Failed")
        raise Poisoned()
    _handle(kernel, block, pfn, use_at(kernel, block, pfn))


def _handle(kernel: Kernel, block: Block, pfn: int, use: Use | None) -> None:
    """Take a broken page away from whoever uses it.  Linux: identify_page_state, try_memory_failure_hugetlb.

    Raises:
        Busy: it cannot be taken.
    """
    if use is None or use not in _NAMES:
        kernel.journal.log("memory-failure-unhandlable", pfn=pfn)
        _fail(kernel, block, pfn, "get hwpoison page", "Ignored")
    what, page = _NAMES[use], gigantic_at(kernel, block)
    if use is Use.PINNED:
        _fail(kernel, block, pfn, what, "Failed")
    if use in _HUGE:
        if use is Use.HUGE_1G and page is not None and not page.used:
            what = _NAMES[Use.HUGE_2M_FREE]
        try:
            _dissolve(kernel, *extent_of(kernel, block, pfn), block, use)
        except Busy:
            _fail(kernel, block, pfn, what, "Failed")
        use = Use.FREE
    _poison(kernel, block, pfn, use)
    _count(kernel, block, pfn, what, "Recovered")


def forget_poison(kernel: Kernel, block: Block) -> None:
    """The block is removed, and its broken pages with it.  Linux: memblk_nr_poison, clear_hwpoisoned_pages."""
    for pfn in _poisoned_of(kernel, block):
        del kernel.poisoned[pfn]


def lose_track_of_poison(kernel: Kernel, block: Block) -> None:
    """The block goes online with pages like new, broken or not; what was counted stays counted.  Before 6.2."""
    kernel.poisoned_elsewhere += block.nr_hwpoison
    forget_poison(kernel, block)
    block.nr_hwpoison = 0


def _poisoned_of(kernel: Kernel, block: Block) -> list[int]:
    if not block.nr_hwpoison:
        return []
    return [pfn for pfn in kernel.poisoned if pfn // kernel.pages_per_block == block.id]


def _fail(kernel: Kernel, block: Block, pfn: int, what: str, result: str) -> NoReturn:
    """The page stays with whoever has it.

    Raises:
        Busy: always.
    """
    _poison(kernel, block, pfn, None)
    _count(kernel, block, pfn, what, result)
    raise Busy()


def _count(kernel: Kernel, block: Block, pfn: int, what: str, result: str) -> None:
    kernel.journal.log("memory-failure", pfn=pfn, what=what, result=result)
    failures = kernel.nodes[block.node_id].memory_failure
    failures[_COUNTERS[result]] += 1
    failures["total"] += 1


def _poison(kernel: Kernel, block: Block, pfn: int, use: Use | None) -> None:
    """Mark a page, and take it out of the use that it can be taken from."""
    kernel.poisoned[pfn] = use is not None
    block.nr_hwpoison += 1
    if use is not None:
        zone, extent = extent_of(kernel, block, pfn)
        kernel.pages.add(zone.pages, extent, use, -1)
