"""When the allocator holds back: watermarks of zones, reserves against higher zones, and the CPUs' page lists.

Computed from what is present at the moment, as the kernel does it after each change.  All numbers are pages.
Source: calculate_min_free_kbytes, __setup_per_zone_wmarks, setup_per_zone_lowmem_reserve, calculate_totalreserve_pages,
zone_batchsize, zone_highsize (mm/page_alloc.c), set_recommended_min_free_kbytes (mm/khugepaged.c),
calculate_normal_threshold (mm/vmstat.c); checked against the numbers of real machines.
"""

from math import isqrt

from attrs import frozen

from memhpfs.kernel.geometry import PAGE_SIZE, PAGEBLOCK_PAGES
from memhpfs.kernel.state import Kernel, Node, Zone
from memhpfs.units import KIB, MIB

__all__ = [
    "NO_WATERMARKS", "Pageset", "Watermarks", "lowmem_reserve", "min_free_kbytes", "online_cpus", "pageset",
    "stat_threshold", "total_reserve", "watermarks",
]

_KIB_PER_PAGE = PAGE_SIZE // KIB
_SCALE_FACTOR = 10
#: sysctl_lowmem_reserve_ratio; 0: nothing is kept back for that zone's own users.
_RESERVE_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32, "Movable": 0}
#: Releases in which ZONE_MOVABLE has its share of min_free_kbytes like any other zone.
_MOVABLE_IS_LOWMEM = frozenset({"6.1"})
_SWAP_CLUSTER_MAX, _MOST_MOVABLE_MIN = 32, 128
_MIGRATE_PCPTYPES = 3
_MOST_BATCH_PAGES = MIB // PAGE_SIZE
_HIGH_FRACTION = 8
_MOST_THRESHOLD = 125


@frozen
class Watermarks:
    """Watermarks of a zone."""

    min: int
    low: int
    high: int
    promo: int


@frozen
class Pageset:
    """A CPU's own list of free pages.  It is empty here: free pages are all in the zone."""

    count: int
    high: int
    batch: int
    high_min: int
    high_max: int


NO_WATERMARKS = Watermarks(0, 0, 0, 0)


def min_free_kbytes(kernel: Kernel) -> int:
    """The sysctl of that name: by the amount of kernel memory, and raised where huge pages want it."""
    zones = [zone for zone in _zones(kernel) if not zone.movable]
    buffer_pages = sum(zone.managed_pages for zone in zones)
    by_size = max(128, min(isqrt(buffer_pages * _KIB_PER_PAGE * 16), 262144))
    populated = sum(zone.present_pages > 0 for zone in zones)
    recommended = PAGEBLOCK_PAGES * populated * (2 + _MIGRATE_PCPTYPES * _MIGRATE_PCPTYPES)
    return max(by_size, min(recommended, buffer_pages // 20) * _KIB_PER_PAGE)


def watermarks(kernel: Kernel) -> dict[Zone, Watermarks]:
    """The watermarks of the zones of all online nodes; empty ZONE_MOVABLE has some too."""
    capped = kernel.features.release not in _MOVABLE_IS_LOWMEM
    zones = _zones(kernel)
    lowmem = max(1, sum(zone.managed_pages for zone in zones if not (zone.movable and capped)))
    pages_min = min_free_kbytes(kernel) // _KIB_PER_PAGE
    return {zone: _watermarks(zone, pages_min * zone.managed_pages // lowmem, capped) for zone in zones}


def _watermarks(zone: Zone, share: int, capped: bool) -> Watermarks:
    lowest = share
    if zone.movable and capped:
        lowest = max(_SWAP_CLUSTER_MAX, min(zone.managed_pages // 1024, _MOST_MOVABLE_MIN))
    step = max(share // 4, zone.managed_pages * _SCALE_FACTOR // 10000)
    return Watermarks(lowest, lowest + step, lowest + 2 * step, lowest + 3 * step)


def lowmem_reserve(node: Node, name: str) -> list[int]:
    """What a zone keeps from allocations that could use higher zones, by zone, ZONE_DEVICE last."""
    zones = list(node.zones.values())
    index = [zone.name for zone in zones].index(name)
    ratio = _RESERVE_RATIO[name] if zones[index].managed_pages else 0
    reserve, above = [0] * (index + 1), 0
    for upper in zones[index + 1:]:
        above += upper.managed_pages
        reserve.append(above // ratio if ratio else 0)
    return [*reserve, above // ratio if ratio else 0]


def total_reserve(kernel: Kernel) -> int:
    """Pages that user memory never gets.  Linux: totalreserve_pages."""
    marks = watermarks(kernel)
    return sum(
        min(zone.managed_pages, max(lowmem_reserve(kernel.nodes[zone.node_id], zone.name)) + marks[zone].high)
        for zone in marks
    )


def online_cpus(kernel: Kernel) -> list[int]:
    """All CPUs, ascending."""
    return sorted(cpu for node in kernel.nodes.values() for cpu in node.cpus)


def pageset(kernel: Kernel, zone: Zone, low: int) -> Pageset:
    """The list that each CPU has of a populated zone.

    Args:
        low: the zone's low watermark.
    """
    sharers = len(kernel.nodes[zone.node_id].cpus) or max(1, len(online_cpus(kernel)))
    quarter = max(1, min(zone.managed_pages >> 10, _MOST_BATCH_PAGES) // 4)
    batch = max(1, (1 << (quarter + quarter // 2).bit_length() - 1) - 1)
    high_min = max(low // sharers, batch * 4)
    high_max = max(zone.managed_pages // _HIGH_FRACTION // sharers, batch * 4)
    return Pageset(0, high_min, batch, high_min, high_max)


def stat_threshold(kernel: Kernel, zone: Zone) -> int:
    """How far a CPU's counters may drift from the zone's."""
    units = zone.managed_pages * PAGE_SIZE // (128 * MIB)
    return min(_MOST_THRESHOLD, 2 * len(online_cpus(kernel)).bit_length() * (1 + units.bit_length()))


def _zones(kernel: Kernel) -> list[Zone]:
    return [zone for node in kernel.nodes.values() if node.online for zone in node.zones.values()]
