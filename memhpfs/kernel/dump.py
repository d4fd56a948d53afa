"""What the kernel tells of a page that stands in the way of an offlining.

Source: dump_page (mm/debug.c); transcripts load.small, fuzz.small (kmsg).
"""

from memhpfs.kernel.pages import MOVABLE_USES, UNMOVABLE_USES, Use
from memhpfs.kernel.state import Block, Kernel

__all__ = ["dump_migration_failure", "dump_unmovable"]


def dump_unmovable(kernel: Kernel, block: Block) -> None:
    """Log the first page that makes isolation fail: boot reserved it, or the kernel uses it."""
    uses = [use for use in UNMOVABLE_USES if kernel.pages.get(block.extents[0], use)]
    if uses or block.unmanaged_pages:
        pfn = (block.id + 1) * kernel.pages_per_block - block.unmanaged_pages
        if uses:
            pfn = block.id * kernel.pages_per_block + block.vmemmap_pages
        _dump(kernel, block, pfn, uses[0].name if uses else "RESERVED", "unmovable page")


def dump_migration_failure(kernel: Kernel, block: Block) -> None:
    """Log a page that could not be moved: it is pinned, or there is no memory to move it to."""
    extent, pfn = block.extents[0], block.id * kernel.pages_per_block + block.vmemmap_pages
    movable = [use for use in MOVABLE_USES if kernel.pages.get(extent, use)]
    pinned = kernel.pages.get(extent, Use.PINNED)
    if movable or pinned:
        kernel.journal.log("migration-failed", pfn=pfn, ret=-12 if movable else pinned)
        _dump(kernel, block, pfn, (movable or [Use.PINNED])[0].name, "migration failure")


def _dump(kernel: Kernel, block: Block, pfn: int, use: str, why: str) -> None:
    assert block.zone is not None
    journal = kernel.journal
    journal.log("page", pfn=pfn, use=use, with_pointer=kernel.features.page_dump_pointer)
    journal.log("page-flags", use=use, node=block.zone.node_id, zone=block.zone.index)
    if use == Use.SLAB.name:
        journal.log("page-type")
    journal.log("page-dumped", why=why)
