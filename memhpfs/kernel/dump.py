"""What the kernel tells of pages that stand in the way of an offlining, and of zones that have too few.

Source: dump_page (mm/debug.c), warn_alloc (mm/page_alloc.c), show_free_areas (mm/show_mem.c); transcripts load.small,
fuzz.small (kmsg).
"""

from memhpfs.kernel.alloc import free_pages
from memhpfs.kernel.pages import MOVABLE_USES, UNMOVABLE_USES, Use
from memhpfs.kernel.placement import first_page
from memhpfs.kernel.state import Block, Kernel
from memhpfs.kernel.watermarks import watermarks

__all__ = ["dump_migration_failure", "dump_unmovable", "warn_alloc"]

#: Uses that struct page names in a field of its own since 6.10; before it was a flag, or nothing.
_TYPED = frozenset({Use.SLAB.name, Use.PAGETABLES.name, Use.HUGE_2M.name, Use.HUGE_1G.name})
#: Uses whose pages can be left behind by a pass of migration.
_LEFT_BEHIND = (*MOVABLE_USES, Use.HUGE_2M, Use.HUGE_1G)


def dump_unmovable(kernel: Kernel, block: Block) -> None:
    """Log the first page that makes isolation fail: boot reserved it, or the kernel uses it."""
    uses = [use for use in UNMOVABLE_USES if kernel.pages.get(block.extents[0], use)]
    if uses or block.unmanaged_pages:
        pfn, use = first_page(kernel, block, uses)
        _dump(kernel, block, pfn, use.name if use is not None else "RESERVED", "unmovable page")


def dump_migration_failure(kernel: Kernel, block: Block) -> None:
    """Log a page that could not be moved: it is pinned, or there is no memory to move it to."""
    extent = block.extents[0]
    left = [use for use in _LEFT_BEHIND if kernel.pages.get(extent, use)]
    pinned = kernel.pages.get(extent, Use.PINNED)
    if left or pinned:
        pfn, use = first_page(kernel, block, left or [Use.PINNED])
        kernel.journal.log("migration-failed", pfn=pfn, ret=-12 if left else pinned)
        _dump(kernel, block, pfn, (use or Use.PINNED).name, "migration failure")


def warn_alloc(kernel: Kernel, who: str, what: str, gfp: str, order: int = 0) -> None:
    """Log that an allocation failed, and what is free in each zone.

    Args:
        who: the process that asked.
        what: "page allocation failure", or as other callers say it.
        gfp: how it asked: a key of the flags in sysfs/klog.py.
    """
    nodes = [node.id for node in kernel.nodes.values() if node.has_memory]
    kernel.journal.log("allocation-failure", who=who, what=what, gfp=gfp, order=order, nodes=nodes)
    kernel.journal.log("mem-info")
    for zone, marks in watermarks(kernel).items():
        if zone.present_pages:
            kernel.journal.log(
                "zone-free", node=zone.node_id, zone=zone.name, free=free_pages(kernel, zone), min=marks.min,
                low=marks.low, high=marks.high, present=zone.present_pages, managed=zone.managed_pages,
            )


def _dump(kernel: Kernel, block: Block, pfn: int, use: str, why: str) -> None:
    assert block.zone is not None
    journal, old = kernel.journal, kernel.features.page_dump_pointer
    journal.log("page", pfn=pfn, use=use, with_pointer=old)
    journal.log("page-flags", use=use, node=block.zone.node_id, zone=block.zone.index, old=old)
    if not old and use in _TYPED:
        journal.log("page-type", use=use)
    journal.log("page-dumped", why=why)
