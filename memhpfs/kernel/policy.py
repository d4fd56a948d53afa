"""Which zone a block goes to.

Source: zone_for_pfn_range, default_zone_for_pfn, auto_movable_zone_for_pfn_range (mm/memory_hotplug.c).
Numbers in, a Zone out; nothing is changed.
"""

from memhpfs.kernel.spec import OnlinePolicy, OnlineType
from memhpfs.kernel.state import MOVABLE, BlockState, Group, Kernel, Zone
from memhpfs.kernel.zones import first_intersecting_kernel_zone
from memhpfs.units import align_down

__all__ = ["block_zone", "zone_for_pfn_range"]


def zone_for_pfn_range(
    kernel: Kernel, online_type: OnlineType, node_id: int, group: Group | None, start_pfn: int, nr_pages: int
) -> Zone:
    """The zone that a range is onlined to.  Never fails: any block may go to Movable.

    Args:
        online_type: KERNEL and MOVABLE say it outright; ONLINE asks the policy.
        group: the memory group of the block, if any.
    """
    node = kernel.nodes[node_id]
    if online_type is OnlineType.KERNEL:
        return first_intersecting_kernel_zone(node, start_pfn, nr_pages)
    if online_type is OnlineType.MOVABLE:
        return node.zones[MOVABLE]
    if kernel.params.online_policy is OnlinePolicy.AUTO_MOVABLE:
        return _auto_movable_zone(kernel, node_id, group, start_pfn, nr_pages)
    return _contig_zone(kernel, node_id, start_pfn, nr_pages)


def _contig_zone(kernel: Kernel, node_id: int, start_pfn: int, nr_pages: int) -> Zone:
    """Stay in the zone whose span holds the range; where none or both do, movable_node decides."""
    node = kernel.nodes[node_id]
    kernel_zone, movable_zone = first_intersecting_kernel_zone(node, start_pfn, nr_pages), node.zones[MOVABLE]
    in_kernel, in_movable = (zone.intersects(start_pfn, nr_pages) for zone in (kernel_zone, movable_zone))
    if in_kernel != in_movable:
        return kernel_zone if in_kernel else movable_zone
    return movable_zone if kernel.params.movable_node else kernel_zone


def _auto_movable_zone(kernel: Kernel, node_id: int, group: Group | None, start_pfn: int, nr_pages: int) -> Zone:
    """Movable as long as the ratio to boot kernel memory allows the whole device (or unit) to be movable."""
    node = kernel.nodes[node_id]
    must_be_kernel = kernel.params.auto_movable_ratio == 0
    if group is not None and not group.dynamic:
        must_be_kernel = must_be_kernel or group.present_kernel_pages > 0
        nr_pages = nr_pages if must_be_kernel else group.max_pages - group.present_movable_pages
    elif group is not None and group.unit_pages > nr_pages:
        start_pfn = align_down(start_pfn, group.unit_pages)
        zones = _online_zones_of_unit(kernel, start_pfn, group.unit_pages)
        must_be_kernel = must_be_kernel or any(not zone.movable for zone in zones)
        nr_pages = group.unit_pages - len(zones) * kernel.pages_per_block
    if not must_be_kernel and _can_online_movable(kernel, None, group, nr_pages) and (
        not kernel.params.auto_movable_numa_aware or _can_online_movable(kernel, node_id, group, nr_pages)
    ):
        return node.zones[MOVABLE]
    return first_intersecting_kernel_zone(node, start_pfn, nr_pages)


def _online_zones_of_unit(kernel: Kernel, start_pfn: int, unit_pages: int) -> list[Zone]:
    """The zone of each online block in a unit of a dynamic group."""
    first = start_pfn // kernel.pages_per_block
    blocks = (kernel.blocks.get(first + i) for i in range(unit_pages // kernel.pages_per_block))
    return [b.zone for b in blocks if b is not None and b.state is not BlockState.OFFLINE and b.zone is not None]


def _can_online_movable(kernel: Kernel, node_id: int | None, group: Group | None, nr_pages: int) -> bool:
    """Whether that many more movable pages keep the ratio, on one node or (None) on all.

    Linux: auto_movable_can_online_movable.  Movable memory of other dynamic groups is covered by their own kernel
    memory first; what they lack is taken from the boot memory.
    """
    ratio, early, movable = kernel.params.auto_movable_ratio, 0, 0
    for node in kernel.nodes.values():
        if node_id is not None and node.id != node_id:
            continue
        for zone in node.zones.values():
            movable += zone.present_pages if zone.movable else zone.cma_pages
            early += 0 if zone.movable else zone.present_early_pages - zone.cma_pages
    others = [
        g for g in kernel.groups if g.dynamic and g is not group and (node_id is None or g.node_id == node_id)
    ]
    required = sum(max(0, g.present_movable_pages * 100 // ratio - g.present_kernel_pages) for g in others)
    if early <= required:
        return False
    early -= required
    movable -= sum(g.present_movable_pages for g in others)
    if group is not None and group.dynamic:
        early += group.present_kernel_pages
    return movable + nr_pages <= ratio * early // 100


def block_zone(kernel: Kernel, online_type: OnlineType, block_id: int) -> Zone:
    """The zone a block would be onlined to now.

    Args:
        block_id: an existing block.
    """
    block = kernel.blocks[block_id]
    start_pfn = block_id * kernel.pages_per_block
    return zone_for_pfn_range(kernel, online_type, block.node_id, block.group, start_pfn, kernel.pages_per_block)
