"""Zones: their spans, and the present and managed pages they count.

Source: move_pfn_range_to_zone, remove_pfn_range_from_zone, shrink_zone_span, adjust_present_page_count
(mm/memory_hotplug.c).  Invariant: a span begins and ends at an online block of the zone, or the zone is empty.
"""

from collections.abc import Callable, Iterable

from memhpfs.kernel.state import MOVABLE, Block, BlockState, Kernel, Node, Zone

__all__ = [
    "adjust_present", "first_intersecting_kernel_zone", "grow_span", "holds_online", "set_node_masks", "shrink_span",
]


def grow_span(zone: Zone, start_pfn: int, nr_pages: int) -> None:
    """Widen the span to cover the range.  Linux: resize_zone_range."""
    end_pfn = start_pfn + nr_pages
    if zone.spanned_pages:
        start_pfn, end_pfn = min(start_pfn, zone.start_pfn), max(end_pfn, zone.end_pfn)
    zone.start_pfn, zone.spanned_pages = start_pfn, end_pfn - start_pfn


def shrink_span(kernel: Kernel, zone: Zone, start_pfn: int, nr_pages: int) -> None:
    """Pull the span back after the range left the zone; only the very start or end moves.  Linux: shrink_zone_span."""
    end_pfn, per_block = start_pfn + nr_pages, kernel.pages_per_block
    if zone.start_pfn == start_pfn:
        ids: Iterable[int] = range(end_pfn // per_block, -(-zone.end_pfn // per_block))
        edge = _edge(kernel, zone, ids, lambda part: max(part[0], end_pfn))
        zone.start_pfn, zone.spanned_pages = (0, 0) if edge is None else (edge, zone.end_pfn - edge)
    elif zone.end_pfn == end_pfn:
        ids = range(-(-start_pfn // per_block) - 1, zone.start_pfn // per_block - 1, -1)
        edge = _edge(kernel, zone, ids, lambda part: min(part[1], start_pfn))
        zone.start_pfn, zone.spanned_pages = (0, 0) if edge is None else (zone.start_pfn, edge - zone.start_pfn)


def _edge(kernel: Kernel, zone: Zone, block_ids: Iterable[int], clip: Callable[[tuple[int, int]], int]) -> int | None:
    """The pfn where the nearest online part of the zone begins or ends, walking the blocks in the given order."""
    for block_id in block_ids:
        block = kernel.blocks.get(block_id)
        part = holds_online(kernel, block, zone) if block is not None else None
        if part is not None:
            return clip(part)
    return None


def holds_online(kernel: Kernel, block: Block, zone: Zone) -> tuple[int, int] | None:
    """The pfn range [start, end) of the block that is online in the zone, or None."""
    if block.state is BlockState.OFFLINE:
        return None
    start_pfn, per_block = block.id * kernel.pages_per_block, kernel.pages_per_block
    if block.zone is zone:
        return start_pfn, start_pfn + per_block
    parts = [(start, end) for held, start, end in block.parts if held is zone]
    return (min(parts)[0], max(end for _, end in parts)) if parts else None


def adjust_present(block: Block, zone: Zone, nr_pages: int) -> None:
    """Count pages in (positive) or out (negative) of the zone and the block's group.

    Linux: adjust_present_page_count.
    """
    zone.present_pages += nr_pages
    if block.early:
        zone.present_early_pages += nr_pages
    if block.group is not None:
        if zone.movable:
            block.group.present_movable_pages += nr_pages
        else:
            block.group.present_kernel_pages += nr_pages


def set_node_masks(node: Node) -> None:
    """Bring N_MEMORY and N_NORMAL_MEMORY in line with what is present.  Linux: node_states_check_changes_*."""
    node.has_memory = node.present_pages > 0
    node.has_normal_memory = any(zone.present_pages for zone in node.zones.values() if not zone.movable)


def first_intersecting_kernel_zone(node: Node, start_pfn: int, nr_pages: int) -> Zone:
    """The zone for kernel memory of a range: the first below Normal that the range touches, else Normal.

    Linux: default_kernel_zone_for_pfn.
    """
    kernel_zones = [zone for zone in node.zones.values() if zone.name != MOVABLE]
    return next((zone for zone in kernel_zones[:-1] if zone.intersects(start_pfn, nr_pages)), kernel_zones[-1])
