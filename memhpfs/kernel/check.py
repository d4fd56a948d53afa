"""All invariants of the model in one place; called by tests after each step.

Raises `ModelBug` with the first one that is broken.
"""

from memhpfs.errors import ModelBug
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import Use
from memhpfs.kernel.placement import extent_of
from memhpfs.kernel.state import BlockState, Kernel, Zone
from memhpfs.kernel.zones import holds_online

__all__ = ["check"]


def check(kernel: Kernel) -> None:
    """Check that counters add up, spans cover what they hold, and blocks, groups, nodes and iomem agree.

    Raises:
        ModelBug: naming what is wrong.
    """
    _check_blocks(kernel)
    for node in kernel.nodes.values():
        for zone in node.zones.values():
            _check_zone(kernel, zone)
        _must(node.has_memory == (node.present_pages > 0), f"node {node.id}: N_MEMORY")
        _must(node.online or not node.links, f"node {node.id} has blocks and is offline")
        _must(node.online or not node.present_pages, f"node {node.id} has memory and is offline")
    _check_groups(kernel)
    for left, right in zip(kernel.iomem, kernel.iomem[1:], strict=False):
        _must(left.end <= right.start, f"iomem: {left} overlaps {right}")


def _check_blocks(kernel: Kernel) -> None:
    for block_id, block in kernel.blocks.items():
        _must(block.id == block_id, f"block {block_id} is filed wrongly")
        _must(kernel.devices.get(block.serial) is block, f"block {block_id}: its device is another")
        _must((block.state is BlockState.OFFLINE) == block.device_offline, f"block {block_id}: state and flag disagree")
        _must(block.state is not BlockState.OFFLINE or block.zone is None, f"block {block_id}: offline but in a zone")
        _must(block.zone is None or block.zone.node_id == block.node_id, f"block {block_id}: zone of another node")
        start = block_id * kernel.block_size_bytes
        _must(any(r.start < start + kernel.block_size_bytes and start < r.end for r in kernel.iomem),
              f"block {block_id} has no RAM in iomem")
        for node_id in block.node_ids:
            _must(kernel.nodes[node_id].links.get(block_id) is block, f"block {block_id}: link of node {node_id}")


def _check_zone(kernel: Kernel, zone: Zone) -> None:
    name, present, early = f"node {zone.node_id} zone {zone.name}", 0, 0
    for block in kernel.blocks.values():
        part = holds_online(kernel, block, zone)
        if part is None:
            continue
        parts = [part] if block.zone is zone else [(s, e) for held, s, e in block.parts if held is zone]
        pages = block.present_pages if block.zone is zone else sum(end - start for start, end in parts)
        present += pages
        early += pages if block.early else 0
        low = parts[0][0] if block.zone is not zone else max(part[0], zone.start_pfn if block.early else part[0])
        _must(zone.start_pfn <= low, f"{name}: block {block.id} lies before its span")
        _must(parts[-1][0] < zone.end_pfn, f"{name}: block {block.id} lies after its span")
    _must(zone.present_pages == present, f"{name}: present {zone.present_pages}, blocks hold {present}")
    _must(zone.present_early_pages == early, f"{name}: present_early {zone.present_early_pages}, blocks hold {early}")
    _must(0 <= zone.managed_pages <= zone.present_pages, f"{name}: managed {zone.managed_pages} of {present}")
    counted = [sum(kernel.pages.get(extent, use) for extent in zone.pages.extents) for use in Use]
    _must(counted == zone.pages.totals, f"{name}: totals of uses")
    lost = sum(1 for pfn, was_lost in kernel.poisoned.items() if was_lost and _zone_of(kernel, pfn) is zone)
    _must(sum(counted) + lost == zone.managed_pages, f"{name}: uses {sum(counted)} of {zone.managed_pages} managed")
    _must(zone.present_pages <= zone.spanned_pages, f"{name}: present exceeds the span")
    _must(bool(zone.present_pages) == bool(zone.spanned_pages), f"{name}: a span without memory")


def _zone_of(kernel: Kernel, pfn: int) -> Zone | None:
    """The zone that counts a poisoned page, if its block is online."""
    block = kernel.blocks.get(pfn // kernel.pages_per_block)
    return extent_of(kernel, block, pfn)[0] if block is not None and block.extents else None


def _check_groups(kernel: Kernel) -> None:
    for group in kernel.groups:
        online = [b for b in group.blocks.values() if b.zone is not None]
        kernel_pages = sum(kernel.pages_per_block for b in online if b.zone is not None and not b.zone.movable)
        movable_pages = sum(kernel.pages_per_block for b in online if b.zone is not None and b.zone.movable)
        _must(group.present_kernel_pages == kernel_pages, "a group's kernel pages")
        _must(group.present_movable_pages == movable_pages, "a group's movable pages")
        _must(not group.max_pages or len(group.blocks) * kernel.pages_per_block * PAGE_SIZE
              <= group.max_pages * PAGE_SIZE, "a group larger than its device")


def _must(condition: bool, what: str) -> None:
    if not condition:
        raise ModelBug(what)
