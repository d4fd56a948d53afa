"""/proc/zoneinfo: every zone of every online node, empty ones too.

Source: zoneinfo_show_print (mm/vmstat.c); formats of 6.1, 6.12 and 7.3 kernel images, and of a running 6.18.
A zone without present pages ends after `protection`: it has no start_pfn.
"""

from memhpfs.kernel.state import Kernel, Node, Zone
from memhpfs.kernel.stats import Stats, node_stats, zone_stats
from memhpfs.kernel.watermarks import (
    NO_WATERMARKS,
    Watermarks,
    lowmem_reserve,
    online_cpus,
    pageset,
    stat_threshold,
    watermarks,
)
from memhpfs.sysfs.items import names_of, zone_names
from memhpfs.sysfs.vmstat import NODE_ITEMS, NUMA_ITEMS, ZONE_ITEMS

__all__ = ["zoneinfo_show"]

_AMOUNTS = """
boost min low high
promo | 6.12 6.18 7.3
spanned present managed cma
"""
_PAGESET = """
count high batch
high_min high_max | 6.18 7.3
"""
_LAST = """
node_unreclaimable start_pfn
reserved_highatomic free_highatomic | 7.3
"""


def zoneinfo_show(kernel: Kernel) -> str:
    """The text of /proc/zoneinfo."""
    marks = watermarks(kernel)
    return "".join(_node(kernel, node, marks) for node in kernel.nodes.values() if node.online)


def _node(kernel: Kernel, node: Node, marks: dict[Zone, Watermarks]) -> str:
    text, first_populated = "", next((zone for zone in node.zones.values() if zone.present_pages), None)
    for name in zone_names(kernel):
        text += f"Node {node.id}, zone {name:>8}\n"
        zone = node.zones.get(name)
        if zone is None:
            text += _amounts(kernel, Zone(node.id, name, len(node.zones)), NO_WATERMARKS, Stats(0, {}))
            text += _protection([0] * len(zone_names(kernel)))
            continue
        if zone is first_populated:
            text += "  per-node stats\n" + _items(kernel, NODE_ITEMS, node_stats(kernel, node))
        stats = zone_stats(kernel, zone)
        text += _amounts(kernel, zone, marks[zone], stats) + _protection(lowmem_reserve(node, name))
        if zone.present_pages:
            text += _items(kernel, ZONE_ITEMS, stats) + _items(kernel, NUMA_ITEMS, stats)
            text += _pagesets(kernel, zone, marks[zone]) + _last(kernel, zone)
    return text


def _items(kernel: Kernel, table: str, stats: Stats) -> str:
    return "".join(f"      {name:<12} {stats[name]}\n" for name in names_of(table, kernel))


def _amounts(kernel: Kernel, zone: Zone, marks: Watermarks, stats: Stats) -> str:
    values = {
        "boost": 0, "min": marks.min, "low": marks.low, "high": marks.high, "promo": marks.promo,
        "spanned": zone.spanned_pages, "present": zone.present_pages, "managed": zone.managed_pages,
        "cma": zone.cma_pages,
    }
    lines = [f"        {name:<8} {values[name]}\n" for name in names_of(_AMOUNTS, kernel)]
    return f"  pages free     {stats['nr_free_pages']}\n" + "".join(lines)


def _protection(reserve: list[int]) -> str:
    return f"        protection: ({', '.join(map(str, reserve))})\n"


def _pagesets(kernel: Kernel, zone: Zone, marks: Watermarks) -> str:
    """One list for each CPU; the numbers stand in a column as wide as the longest name needs."""
    names, values = names_of(_PAGESET, kernel), pageset(kernel, zone, marks.low)
    width = 1 + max(len(name) for name in names)
    lines = "".join(f"              {name + ':':<{width}} {getattr(values, name)}\n" for name in names)
    lines += f"  vm stats threshold: {stat_threshold(kernel, zone)}\n"
    return "  pagesets\n" + "".join(f"    cpu: {cpu}\n{lines}" for cpu in online_cpus(kernel))


def _last(kernel: Kernel, zone: Zone) -> str:
    values = {"start_pfn": zone.start_pfn}
    return "".join(f"  {name + ':':<20} {values.get(name, 0)}\n" for name in names_of(_LAST, kernel))
