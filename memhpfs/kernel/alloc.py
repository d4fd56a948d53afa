"""Allocating and freeing pages by the kernel's zone lists.

Movable allocations take ZONE_MOVABLE first, then the kernel zones from the highest down; kernel allocations never touch
ZONE_MOVABLE.  Nodes fall back to others by distance.  Kernel pages keep together: they prefer extents that already hold
some, which keeps other blocks offlinable.
Source: build_zonelists, get_page_from_freelist (mm/page_alloc.c), mobility grouping.
"""

from collections.abc import Iterator
from itertools import islice

from memhpfs.kernel.pages import UNMOVABLE_USES, Use
from memhpfs.kernel.state import Kernel, Node, Zone
from memhpfs.kernel.watermarks import Watermarks, lowmem_reserve, watermarks

__all__ = [
    "MOVABLE_ALLOCATIONS", "allocate", "free_pages", "nodes_by_distance", "pages_in_movable", "release_pages",
    "take_from_zone", "zonelist",
]

#: Uses that are allocated movable (GFP_HIGHUSER_MOVABLE).
MOVABLE_ALLOCATIONS = frozenset({Use.ANON, Use.FILE, Use.SHM, Use.MLOCK, Use.HUGE_2M, Use.HUGE_2M_FREE, Use.HUGE_1G})
_HELPING = 32
_LOCAL_DISTANCE, _REMOTE_DISTANCE = 10, 20


def nodes_by_distance(kernel: Kernel, node_id: int) -> list[Node]:
    """All nodes, nearest first.  Linux: find_next_best_node."""
    here = kernel.nodes[node_id]

    def distance(node: Node) -> tuple[int, int]:
        return here.distances.get(node.id, _LOCAL_DISTANCE if node is here else _REMOTE_DISTANCE), node.id

    return sorted(kernel.nodes.values(), key=distance)


def zonelist(kernel: Kernel, node_ids: list[int], movable: bool) -> Iterator[Zone]:
    """The zones to try, in order.

    Args:
        node_ids: nodes in the order they are tried.
    """
    for node_id in node_ids:
        for zone in reversed(kernel.nodes[node_id].zones.values()):
            if (movable or not zone.movable) and zone.pages.with_free:
                yield zone


def allocate(kernel: Kernel, use: Use, nr_pages: int, node_ids: list[int], *, movable: bool, chunk: int = 1) -> int:
    """Allocate pages for a use.

    Args:
        movable: whether ZONE_MOVABLE may serve it.
        chunk: pages that must lie in one extent together (512 for a 2 MiB page).

    Returns:
        How many pages there were; fewer than asked for when memory ran out.
    """
    left = nr_pages
    marks = watermarks(kernel)
    for zone in list(zonelist(kernel, node_ids, movable)):
        left -= take_from_zone(kernel, zone, use, min(left, _room(kernel, zone, marks, movable)), chunk)
        if not left:
            break
    return nr_pages - left


def pages_in_movable(kernel: Kernel, nr_pages: int, node_ids: list[int]) -> int:
    """How many pages of a movable allocation would come from ZONE_MOVABLE; nothing is taken."""
    left, marks, found = nr_pages, watermarks(kernel), 0
    for zone in zonelist(kernel, node_ids, movable=True):
        taken = min(left, _room(kernel, zone, marks, movable=True))
        left, found = left - taken, found + (taken if zone.movable else 0)
    return found


def _room(kernel: Kernel, zone: Zone, marks: dict[Zone, Watermarks], movable: bool) -> int:
    """Free pages above the watermark, and above what the zone keeps from those who could use higher zones.

    Linux: __zone_watermark_ok.
    """
    if zone not in marks:
        return 0
    highest = len(kernel.nodes[zone.node_id].zones) - (1 if movable else 2)
    reserve = lowmem_reserve(kernel.nodes[zone.node_id], zone.name)[highest]
    return max(0, free_pages(kernel, zone) - marks[zone].min - reserve)


def free_pages(kernel: Kernel, zone: Zone) -> int:
    """Free pages of a zone that can be allocated: not those that an offlining has isolated."""
    return zone.pages.totals[Use.FREE] - sum(kernel.pages.get(extent, Use.FREE) for extent in zone.pages.isolated)


def take_from_zone(kernel: Kernel, zone: Zone, use: Use, nr_pages: int, chunk: int = 1) -> int:
    """Take up to that many free pages of a zone, whatever its watermarks; how many there were."""
    left, pages = nr_pages, zone.pages
    for extent in _extents_to_try(zone, use, chunk):
        found = min(left, kernel.pages.get(extent, Use.FREE)) // chunk * chunk
        if found:
            kernel.pages.convert(pages, extent, Use.FREE, use, found)
            left -= found
        if left < chunk:
            break
    return nr_pages - left


def _extents_to_try(zone: Zone, use: Use, chunk: int) -> Iterator[int]:
    """Extents with free pages in the order they are used.

    An extent leaves `with_free` when it is used up, so the first ones are looked at again and again in small helpings;
    a large zone is never copied whole for a few pages.
    """
    with_free = zone.pages.with_free
    if use in UNMOVABLE_USES:
        yield from [extent for extent in zone.pages.with_kernel if extent in with_free]
    if chunk > 1:
        yield from list(with_free)
        return
    while helping := list(islice(with_free, _HELPING)):
        yield from helping


def release_pages(kernel: Kernel, use: Use, nr_pages: int, node_ids: list[int]) -> int:
    """Free pages of a use, on the nodes in the order given, last allocated first; how many there were."""
    left = nr_pages
    for node_id in node_ids:
        for zone in kernel.nodes[node_id].zones.values():
            holders = zone.pages.with_kernel if use in UNMOVABLE_USES else zone.pages.extents
            for extent in reversed(list(holders)) if zone.pages.totals[use] else ():
                found = min(left, kernel.pages.get(extent, use))
                if found:
                    kernel.pages.convert(zone.pages, extent, use, Use.FREE, found)
                    left -= found
                if not left:
                    return nr_pages
    return nr_pages - left
