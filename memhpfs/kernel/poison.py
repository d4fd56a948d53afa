"""Poisoned pages: soft and hard offlining by address, and what they leave behind.

Source: soft_offline_page, memory_failure (mm/memory-failure.c), hard_offline_page_store (drivers/base/memory.c);
transcript poison.plain.  A poisoned page stays in MemTotal; its block may not go online again (6.2 and newer).
"""

from memhpfs.errors import Busy, CannotOfflinePage, OutsideControl, Poisoned
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import MOVABLE_USES, Use
from memhpfs.kernel.state import Block, BlockState, Kernel, Zone

__all__ = ["forget_poison", "hard_offline_page", "lost_pages", "soft_offline_page"]

#: Uses whose pages the allocator can lose to poison: the others stay with whoever has them.
_LOSABLE = (Use.FREE, *MOVABLE_USES)


def soft_offline_page(kernel: Kernel, address: int) -> None:
    """Move the contents of a page elsewhere and never use it again.

    Args:
        address: any byte of the page.

    Raises:
        OutsideControl: there is no memory map for it.
        CannotOfflinePage: its block is offline, or it cannot move.
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
    if _is_kernel_page(kernel, block, pfn):
        raise CannotOfflinePage()
    _poison(kernel, block, pfn, lost=True)


def hard_offline_page(kernel: Kernel, address: int) -> None:
    """Pretend that the hardware reported the page as broken.

    Args:
        address: any byte of the page.

    Raises:
        OutsideControl: there is no memory map for it, or its block is offline.
        Poisoned: it is poisoned already.
        Busy: the kernel itself uses it; it counts as poisoned all the same.
    """
    pfn = address // PAGE_SIZE
    block = kernel.blocks.get(pfn // kernel.pages_per_block)
    if block is None or block.state is BlockState.OFFLINE:
        _refuse_outside(kernel, pfn)
    assert block is not None
    if pfn in kernel.poisoned:
        kernel.journal.log("memory-failure", pfn=pfn, what="already poisoned page", result="Failed")
        raise Poisoned()
    unhandlable = _is_kernel_page(kernel, block, pfn)
    _poison(kernel, block, pfn, lost=not unhandlable)
    if unhandlable:
        kernel.journal.log("memory-failure-unhandlable", pfn=pfn)
        _count(kernel, block, pfn, "get hwpoison page", "Ignored", "ignored")
        raise Busy()
    _count(kernel, block, pfn, "free buddy page", "Recovered", "recovered")


def forget_poison(kernel: Kernel, block: Block) -> None:
    """The block is removed, and its broken pages with it.  Linux: memblk_nr_poison, clear_hwpoisoned_pages."""
    for pfn in _poisoned_of(kernel, block):
        del kernel.poisoned[pfn]


def lost_pages(kernel: Kernel, block: Block) -> int:
    """Poisoned pages of a block that its allocator does not have."""
    return sum(kernel.poisoned[pfn] for pfn in _poisoned_of(kernel, block))


def _poisoned_of(kernel: Kernel, block: Block) -> list[int]:
    if not block.nr_hwpoison:
        return []
    return [pfn for pfn in kernel.poisoned if pfn // kernel.pages_per_block == block.id]


def _refuse_outside(kernel: Kernel, pfn: int) -> None:
    kernel.journal.log("memory-failure-outside", pfn=pfn)
    if kernel.features.hard_offline_outside_busy:
        raise Busy()
    raise OutsideControl()


def _count(kernel: Kernel, block: Block, pfn: int, what: str, result: str, counter: str) -> None:
    kernel.journal.log("memory-failure", pfn=pfn, what=what, result=result)
    failures = kernel.nodes[block.node_id].memory_failure
    failures[counter] += 1
    failures["total"] += 1


def _poison(kernel: Kernel, block: Block, pfn: int, *, lost: bool) -> None:
    """Mark a page; if the allocator loses it, what it held is lost too, or has moved to a free page."""
    kernel.poisoned[pfn] = lost
    block.nr_hwpoison += 1
    if lost:
        zone, extent = extent_of(kernel, block, pfn)
        use = next(use for use in _LOSABLE if kernel.pages.get(extent, use))
        kernel.pages.add(zone.pages, extent, use, -1)


def _is_kernel_page(kernel: Kernel, block: Block, pfn: int) -> bool:
    """Boot reservations stand in block 0 and at the end of each other block that has any; memmaps at its start."""
    offset = pfn - block.id * kernel.pages_per_block
    if offset < block.vmemmap_pages or offset >= block.present_pages - block.unmanaged_pages:
        return True
    if block.id == 0 and block.unmanaged_pages:
        return True
    _, extent = extent_of(kernel, block, pfn)
    return not kernel.pages.total(extent, _LOSABLE)


def extent_of(kernel: Kernel, block: Block, pfn: int) -> tuple[Zone, int]:
    """Zone and extent that count a page of an online block."""
    if block.zone is not None:
        return block.zone, block.extents[0]
    zones = dict(zip(dict.fromkeys(zone for zone, _, _ in block.parts), block.extents, strict=True))
    zone = next((zone for zone, first, last in block.parts if first <= pfn < last), block.parts[-1][0])
    return zone, zones[zone]
