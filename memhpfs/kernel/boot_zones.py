"""Where the zones of each node lie at boot, ZONE_MOVABLE included.

Source: free_area_init, find_zone_movable_pfns_for_nodes, adjust_zone_range_for_zone_movable (mm/mm_init.c);
transcripts fuzz.kernelcore, fuzz.movablecore, fuzz.numa*.
"""

from collections.abc import Iterable

from memhpfs.kernel.geometry import MAX_ORDER_PAGES, PAGE_SIZE, Arch
from memhpfs.kernel.spec import RamKind, RamRange, Spec
from memhpfs.kernel.state import MOVABLE
from memhpfs.units import GIB, align_up

__all__ = ["ZoneRow", "boot_zones"]

ZoneRow = tuple[str, int, int]

_NO_LIMIT = 1 << 52
_FOUR_GIB_PFN = 4 * GIB // PAGE_SIZE


def boot_zones(spec: Spec, arch: Arch) -> dict[int, list[ZoneRow]]:
    """For each node with RAM the zones as (name, first pfn, pfn after the last), clamped to the node's RAM."""
    nodes: dict[int, list[tuple[int, int]]] = {}
    for item in spec.ram:
        nodes.setdefault(item.node, []).append((-(-item.start // PAGE_SIZE), item.end // PAGE_SIZE))
    kernel_rows = _kernel_rows(arch)
    highest = max(end for ranges in nodes.values() for _, end in ranges)
    movable_zone, lowest_usable = next((name, low) for name, low, high in reversed(kernel_rows) if low < highest)
    movable_pfn = _movable_pfns(spec, nodes, lowest_usable)
    return {
        node_id: _rows_of_node(kernel_rows, movable_zone, min(s for s, _ in ranges), max(e for _, e in ranges),
                               movable_pfn.get(node_id, 0))
        for node_id, ranges in nodes.items()
    }


def _kernel_rows(arch: Arch) -> list[ZoneRow]:
    rows, low = [], 0
    for name, limit in arch.zone_limits:
        rows.append((name, low, limit or _NO_LIMIT))
        low = limit or _NO_LIMIT
    return rows


def _rows_of_node(rows: list[ZoneRow], movable_zone: str, start: int, end: int, movable_pfn: int) -> list[ZoneRow]:
    """Clamp each zone to the node, and cut what Movable takes out of the highest kernel zone."""
    found: list[ZoneRow] = []
    for name, low, high in rows:
        if name == movable_zone and movable_pfn:
            high = min(high, movable_pfn)
        first, last = max(low, start), min(high, end)
        if first < last:
            found.append((name, first, last))
    if movable_pfn:
        found.append((MOVABLE, max(movable_pfn, start), end))
    return found


def _movable_pfns(spec: Spec, nodes: dict[int, list[tuple[int, int]]], lowest_usable: int) -> dict[int, int]:
    """First pfn of ZONE_MOVABLE by node; nodes without one are absent."""
    params = spec.params
    if params.movable_node:
        found = _lowest(item for item in spec.ram if item.kind is RamKind.MOVABLE)
    elif params.kernelcore_mirror and any(item.mirrored for item in spec.ram):
        found = _lowest(i for i in spec.ram if not i.mirrored and i.start // PAGE_SIZE >= _FOUR_GIB_PFN)
    else:
        found = _spread(_kernelcore_pages(spec, nodes), nodes, lowest_usable)
    rounded = {node_id: align_up(pfn, MAX_ORDER_PAGES) for node_id, pfn in found.items()}
    return {node_id: pfn for node_id, pfn in rounded.items() if pfn < max(end for _, end in nodes[node_id])}


def _lowest(ranges: Iterable[RamRange]) -> dict[int, int]:
    """First pfn of the ranges, by node."""
    found: dict[int, int] = {}
    for item in ranges:
        found[item.node] = min(found.get(item.node, _NO_LIMIT), item.start // PAGE_SIZE)
    return found


def _kernelcore_pages(spec: Spec, nodes: dict[int, list[tuple[int, int]]]) -> int:
    """How many pages kernelcore= and movablecore= leave to the kernel; 0 means no Movable zone."""
    params = spec.params
    total = sum(end - start for ranges in nodes.values() for start, end in ranges)
    kernelcore = params.kernelcore_bytes // PAGE_SIZE or total * params.kernelcore_percent // 100
    movablecore = params.movablecore_bytes // PAGE_SIZE or total * params.movablecore_percent // 100
    if movablecore:
        kernelcore = max(kernelcore, total - min(total, align_up(movablecore, MAX_ORDER_PAGES)))
    return 0 if kernelcore >= total else kernelcore


def _spread(required: int, nodes: dict[int, list[tuple[int, int]]], lowest_usable: int) -> dict[int, int]:
    """Spread the kernel's share evenly over the nodes; what one cannot hold goes to the others in further rounds."""
    found: dict[int, int] = {}
    usable_nodes = len(nodes)
    while required and usable_nodes:
        share = required // usable_nodes
        for node_id in sorted(nodes):
            if required < share:
                share = required // usable_nodes
            required = _fill_node(nodes[node_id], node_id, share, required, lowest_usable, found)
        usable_nodes -= 1
        if required <= usable_nodes:
            break
    return found


def _fill_node(
    ranges: list[tuple[int, int]], node_id: int, share: int, required: int, lowest_usable: int, found: dict[int, int]
) -> int:
    """Move the node's first movable pfn up until it has its share; what is still required of all nodes."""
    for start, end in sorted(ranges):
        start = max(start, found.get(node_id, 0))
        if start >= end:
            continue
        if start < lowest_usable:
            pages = min(end, lowest_usable) - start
            share, required = share - min(pages, share), required - min(pages, required)
            if end <= lowest_usable:
                found[node_id] = end
                continue
            start = lowest_usable
        pages = min(end - start, share)
        found[node_id] = start + pages
        share, required = share - pages, required - min(required, pages)
        if not share:
            break
    return required
