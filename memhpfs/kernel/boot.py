"""Booting: from a `Spec` to a running `Kernel`.

Source: free_area_init, find_zone_movable_pfns_for_nodes (mm/mm_init.c), memory_dev_init,
early_node_zone_for_memory_block (drivers/base/memory.c); transcripts fuzz.* (key boot).
"""

from collections.abc import Iterator
from itertools import groupby

from memhpfs.kernel.boot_zones import boot_zones
from memhpfs.kernel.features import features_of
from memhpfs.kernel.geometry import ARCHES, PAGE_SIZE, Arch, block_size_of
from memhpfs.kernel.pages import Use
from memhpfs.kernel.reserve import reserved_ranges, start_userspace
from memhpfs.kernel.spec import RamKind, Spec
from memhpfs.kernel.state import MOVABLE, Block, BlockState, Kernel, Node, Params, Resource, Zone
from memhpfs.kernel.zones import set_node_masks

__all__ = ["boot"]

Piece = tuple[int, int, Zone]
Pieces = list[Piece]
Ranges = list[tuple[int, int]]


def boot(spec: Spec) -> Kernel:
    """Build the model of a machine that has just booted.

    The command line's own words are in `spec.params`; lines it left in the log come first in the journal.
    """
    arch, features, params = ARCHES[spec.arch], features_of(spec), spec.params
    kernel = Kernel(
        spec=spec,
        features=features,
        arch=arch,
        block_size_bytes=spec.block_size_bytes or block_size_of(arch, spec.ram),
        params=Params(
            auto_online=params.auto_online or features.default_online,
            online_policy=params.online_policy,
            auto_movable_ratio=params.auto_movable_ratio,
            auto_movable_numa_aware=params.auto_movable_numa_aware,
            memmap_on_memory=params.memmap_on_memory,
            movable_node=params.movable_node,
        ),
        nodes={node.id: Node(node.id, node.cpus, _zones(arch, node.id), dict(node.distances)) for node in spec.nodes},
    )
    for level, text in spec.log:
        kernel.journal.log("boot", level=level, text=text)
    pieces = _place_ram(kernel)
    _create_blocks(kernel, pieces)
    _register_nodes(kernel)
    start_userspace(kernel)
    return kernel


def _zones(arch: Arch, node_id: int) -> dict[str, Zone]:
    """All zones of a node, empty, Movable last."""
    names = [name for name, _ in arch.zone_limits] + [MOVABLE]
    return {name: Zone(node_id, name, index) for index, name in enumerate(names)}


def _place_ram(kernel: Kernel) -> Pieces:
    """Fill iomem and the zones; the RAM as (first pfn, pfn after the last, zone), ascending."""
    pieces: Pieces = []
    spans = boot_zones(kernel.spec, kernel.arch)
    for item in kernel.spec.ram:
        kernel.iomem.append(Resource(item.start, item.end))
        start_pfn, end_pfn = -(-item.start // PAGE_SIZE), item.end // PAGE_SIZE
        for name, low, high in spans[item.node]:
            first, last = max(start_pfn, low), min(end_pfn, high)
            if first < last:
                zone = kernel.nodes[item.node].zones[name]
                zone.present_pages += last - first
                zone.present_early_pages += last - first
                pieces.append((first, last, zone))
    for node_id, rows in spans.items():
        for name, low, high in rows:
            zone = kernel.nodes[node_id].zones[name]
            if zone.present_pages:
                zone.start_pfn, zone.spanned_pages = low, high - low
    return pieces


def _create_blocks(kernel: Kernel, pieces: Pieces) -> None:
    """Make the devices of all blocks with RAM, online from the start.  Boot sends their uevents to nobody."""
    special = {
        Use.KERNEL: _ranges_of(kernel.spec, RamKind.UNMOVABLE),
        Use.CMA: _ranges_of(kernel.spec, RamKind.CMA),
    }
    reserved = reserved_ranges(kernel.spec)
    per_block = kernel.pages_per_block
    for block_id, cuts in groupby(_cuts(pieces, per_block), key=lambda cut: cut[0] // per_block):
        held = list(cuts)
        _fill_early_block(kernel, _early_block(kernel, block_id, held), held, reserved, special)


def _cuts(pieces: Pieces, per_block: int) -> Iterator[Piece]:
    """The pieces, cut at the ends of blocks."""
    for first, last, zone in pieces:
        for start in range(first // per_block * per_block, last, per_block):
            yield max(first, start), min(last, start + per_block), zone


def _fill_early_block(
    kernel: Kernel, block: Block, pieces: Pieces, reserved: Ranges, special: dict[Use, Ranges]
) -> None:
    """Hand the pages of a boot block to the allocator, but for what boot reserved."""
    extents: dict[Zone, int] = {}
    for first, last, zone in pieces:
        unmanaged = _overlap(reserved, first, last)
        block.unmanaged_pages += unmanaged
        zone.managed_pages += last - first - unmanaged
        if zone in extents:
            kernel.pages.add(zone.pages, extents[zone], Use.FREE, last - first - unmanaged)
        else:
            extents[zone] = kernel.pages.new_extent(zone.pages, last - first - unmanaged)
        for use, ranges in special.items():
            kernel.pages.convert(zone.pages, extents[zone], Use.FREE, use, _overlap(ranges, first, last))
        zone.cma_pages += _overlap(special[Use.CMA], first, last)
        if unmanaged:
            zone.pages.with_kernel[extents[zone]] = None
    block.extents = tuple(extents.values())


def _early_block(kernel: Kernel, block_id: int, pieces: Pieces) -> Block:
    """One boot block; in several zones or nodes its zone is ambiguous.  Linux: early_node_zone_for_memory_block."""
    node_ids = sorted({zone.node_id for _, _, zone in pieces})
    start_pfn, per_block = block_id * kernel.pages_per_block, kernel.pages_per_block
    touching = [
        zone for node_id in node_ids for zone in kernel.nodes[node_id].zones.values()
        if zone.present_pages and zone.intersects(start_pfn, per_block)
    ]
    block = Block(
        block_id, node_ids[-1], kernel.take_serial(), state=BlockState.ONLINE, device_offline=False, early=True,
        zone=touching[0] if len(touching) == 1 else None, node_ids=tuple(node_ids),
        present_pages=sum(last - first for first, last, _ in pieces),
    )
    if block.zone is None:
        block.parts = tuple((zone, first, last) for first, last, zone in pieces)
    kernel.blocks[block_id] = kernel.devices[block.serial] = block
    for node_id in node_ids:
        kernel.nodes[node_id].links[block_id] = block
    return block


def _register_nodes(kernel: Kernel) -> None:
    for node in kernel.nodes.values():
        set_node_masks(node)
        if node.has_memory or node.cpus:
            node.online, node.serial = True, kernel.take_serial()
            kernel.devices[node.serial] = node


def _ranges_of(spec: Spec, kind: RamKind) -> Ranges:
    """The boot ranges of a kind, as pfn ranges."""
    return [(-(-item.start // PAGE_SIZE), item.end // PAGE_SIZE) for item in spec.ram if item.kind is kind]


def _overlap(ranges: Ranges, first: int, last: int) -> int:
    return sum(max(0, min(last, end) - max(first, start)) for start, end in ranges)
