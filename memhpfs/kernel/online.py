"""Bringing a block online.

Source: memory_block_online (drivers/base/memory.c), online_pages (mm/memory_hotplug.c).
A failure leaves the zone, the node and the block as they were.
"""

from memhpfs.errors import Poisoned, Vetoed
from memhpfs.kernel.alloc import take_from_zone
from memhpfs.kernel.faults import strike
from memhpfs.kernel.notify import GOING_ONLINE, notify
from memhpfs.kernel.pages import Use
from memhpfs.kernel.poison import lose_track_of_poison
from memhpfs.kernel.policy import block_zone
from memhpfs.kernel.spec import OnlineType
from memhpfs.kernel.state import Block, BlockState, Kernel, Zone
from memhpfs.kernel.zonelists import log_demotion_targets, log_zonelists
from memhpfs.kernel.zones import adjust_present, grow_span, set_node_masks, shrink_span

__all__ = ["memory_block_online"]

#: What slab takes at once from a kernel zone that was empty.
_FIRST_SLAB_PAGES = 64


def memory_block_online(kernel: Kernel, block: Block, online_type: OnlineType) -> None:
    """Give the pages of an offline block to the zone that the type and the policy choose.

    Raises:
        Poisoned: the block has poisoned pages (6.2 and newer).
        Vetoed: a notifier refused; nothing has changed.
    """
    if block.nr_hwpoison and kernel.features.poison_blocks_online:
        raise Poisoned()
    zone, nr_pages = block_zone(kernel, online_type, block.id), kernel.pages_per_block
    start_pfn, was_populated = block.id * nr_pages, zone.present_pages > 0
    grow_span(zone, start_pfn, nr_pages)
    try:
        strike(kernel, "online", range(block.id, block.id + 1))
        notify(kernel, GOING_ONLINE)
    except Vetoed:
        kernel.journal.log("online-failed", start=start_pfn, nr_pages=nr_pages)
        shrink_span(kernel, zone, start_pfn, nr_pages)
        raise
    adjust_present(block, zone, nr_pages)
    managed = nr_pages - block.vmemmap_pages
    zone.managed_pages += managed
    lose_track_of_poison(kernel, block)
    block.extents = (kernel.pages.new_extent(zone.pages, managed),)
    block.zone, block.state = zone, BlockState.ONLINE
    node = kernel.nodes[block.node_id]
    node.zone_ever_online.add(zone.name)
    had_memory = node.has_memory
    set_node_masks(node)
    if not was_populated:
        if node.cpus or (kernel.features.kswapd_on_node and not had_memory):
            _kernel_moves_in(kernel, zone)
        log_zonelists(kernel)
    if not had_memory:
        log_demotion_targets(kernel)


def _kernel_moves_in(kernel: Kernel, zone: Zone) -> None:
    """A kernel zone that was empty comes first in the node's zone list from now on, so slab takes pages at once.

    Processes allocate on the node of their CPU, so a node without CPUs gets nothing but its own kswapd, and that only
    where the kernel makes it there (kswapd_run in 6.14 and newer).
    Source: transcript fuzz.small: the first block of such a zone refuses to go offline.
    """
    if not zone.movable:
        take_from_zone(kernel, zone, Use.SLAB, _FIRST_SLAB_PAGES)
