"""Taking a block offline: the long story of offline_pages.

Source: memory_block_offline (drivers/base/memory.c), offline_pages (mm/memory_hotplug.c).
The state is `going-offline` while it runs; any way out but success puts it back.
"""

from memhpfs.errors import HasHoles, NotOneZone, SysError, Unmovable
from memhpfs.kernel.dump import dump_migration_failure, dump_unmovable
from memhpfs.kernel.faults import strike
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.iomem import ram_bytes_in
from memhpfs.kernel.migrate import migrate_extent
from memhpfs.kernel.notify import GOING_OFFLINE, notify
from memhpfs.kernel.pages import UNMOVABLE_USES
from memhpfs.kernel.pause import Op
from memhpfs.kernel.state import Block, BlockState, Kernel
from memhpfs.kernel.zonelists import log_demotion_targets, log_zonelists
from memhpfs.kernel.zones import adjust_present, set_node_masks, shrink_span

__all__ = ["memory_block_offline"]


def memory_block_offline(kernel: Kernel, block: Block) -> Op[None]:
    """Take all pages of an online block out of its zone.

    Raises:
        NotOneZone, HasHoles, Unmovable, Vetoed, Interrupted: the block is online as before.
    """
    if block.zone is None:
        raise NotOneZone()
    block.state = BlockState.GOING_OFFLINE
    try:
        yield from _offline_pages(kernel, block)
    except SysError as error:
        _log_failure(kernel, block, error)
        raise
    finally:
        if block.state is BlockState.GOING_OFFLINE:
            block.state = BlockState.ONLINE


def _offline_pages(kernel: Kernel, block: Block) -> Op[None]:
    """The steps of offline_pages, in its order."""
    zone, node, nr_pages = block.zone, kernel.nodes[block.node_id], kernel.pages_per_block
    assert zone is not None
    start_pfn = block.id * nr_pages
    start, end = start_pfn * PAGE_SIZE, (start_pfn + nr_pages) * PAGE_SIZE
    if ram_bytes_in(kernel, start, end) != end - start:
        raise HasHoles()
    extent = block.extents[0]
    if extent in zone.pages.isolated:
        raise Unmovable()
    if block.unmanaged_pages or kernel.pages.total(extent, UNMOVABLE_USES):
        dump_unmovable(kernel, block)
        raise Unmovable()
    kernel.pages.isolate(zone.pages, extent)
    try:
        strike(kernel, "offline", range(block.id, block.id + 1))
        notify(kernel, GOING_OFFLINE)
        yield from migrate_extent(kernel, zone, extent, lambda: dump_migration_failure(kernel, block))
    except BaseException:
        kernel.pages.undo_isolate(zone.pages, extent)
        raise

    kernel.pages.drop_extent(zone.pages, extent)
    block.extents = ()
    zone.managed_pages -= nr_pages - block.vmemmap_pages
    adjust_present(block, zone, -nr_pages)
    block.state, block.zone = BlockState.OFFLINE, None
    shrink_span(kernel, zone, start_pfn, nr_pages)
    set_node_masks(node)
    kernel.journal.log("offlined-pages", nr_pages=nr_pages - block.vmemmap_pages)
    if not zone.present_pages:
        log_zonelists(kernel)
    if not node.has_memory:
        log_demotion_targets(kernel)


def _log_failure(kernel: Kernel, block: Block, error: SysError) -> None:
    start = block.id * kernel.block_size_bytes
    kernel.journal.log("offline-failed", start=start, end=start + kernel.block_size_bytes, reason=error.reason)
