"""Poisoned pages: soft and hard offlining by address, and what they leave behind.

Source: soft_offline_page, memory_failure (mm/memory-failure.c), hard_offline_page_store (drivers/base/memory.c);
transcript poison.plain.  A poisoned page stays in MemTotal; its block may not go online again (6.2 and newer).
"""

from memhpfs.errors import Busy, CannotOfflinePage, OutsideControl, Poisoned
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import UNMOVABLE_USES, Use
from memhpfs.kernel.state import Block, BlockState, Kernel, Zone

__all__ = ["forget_poison", "hard_offline_page", "soft_offline_page"]


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
    _poison(kernel, block, pfn)


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
    _poison(kernel, block, pfn)
    if _is_kernel_page(kernel, block, pfn):
        kernel.journal.log("memory-failure-unhandlable", pfn=pfn)
        _count(kernel, block, pfn, "get hwpoison page", "Ignored", "ignored")
        raise Busy()
    _count(kernel, block, pfn, "free buddy page", "Recovered", "recovered")


def forget_poison(kernel: Kernel, block: Block) -> None:
    """The block is removed, and its broken pages with it.  Linux: memblk_nr_poison, clear_hwpoisoned_pages."""
    start_pfn = block.id * kernel.pages_per_block
    if block.nr_hwpoison:
        kernel.poisoned -= set(range(start_pfn, start_pfn + kernel.pages_per_block))


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


def _poison(kernel: Kernel, block: Block, pfn: int) -> None:
    """The page leaves the allocator; what it held is lost or has moved to a free page."""
    kernel.poisoned.add(pfn)
    block.nr_hwpoison += 1
    zone, extent = extent_of(kernel, block, pfn)
    if kernel.pages.get(extent, Use.FREE):
        kernel.pages.add(zone.pages, extent, Use.FREE, -1)
    else:
        use = max(Use, key=lambda item: kernel.pages.get(extent, item))
        kernel.pages.add(zone.pages, extent, use, -1)


def _is_kernel_page(kernel: Kernel, block: Block, pfn: int) -> bool:
    """Boot reservations stand in block 0 and at the end of each other block that has any; memmaps at its start."""
    offset = pfn - block.id * kernel.pages_per_block
    if offset < block.vmemmap_pages:
        return True
    _, extent = extent_of(kernel, block, pfn)
    if kernel.pages.get(extent, Use.FREE) == 0 and kernel.pages.total(extent, UNMOVABLE_USES):
        return True
    return bool(block.unmanaged_pages) and (block.id == 0 or offset >= kernel.pages_per_block - block.unmanaged_pages)


def extent_of(kernel: Kernel, block: Block, pfn: int) -> tuple[Zone, int]:
    """Zone and extent that count a page of an online block."""
    if block.zone is not None:
        return block.zone, block.extents[0]
    zones = dict(zip(dict.fromkeys(zone for zone, _, _ in block.parts), block.extents, strict=True))
    zone = next((zone for zone, first, last in block.parts if first <= pfn < last), block.parts[-1][0])
    return zone, zones[zone]
