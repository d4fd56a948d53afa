"""Whether all statistics of a machine agree with each other, as read from the files."""

from proc_texts import buddyinfo, meminfo, node_meminfo, pages_of, pagetypes, pairs, vmstat, zoneinfo

from memhpfs.kernel.check import check
from memhpfs.kernel.state import Kernel
from memhpfs.sysfs.nodestat import node_vmstat_show, numastat_show

__all__ = ["agree"]

SHARED = (
    "MemTotal", "MemFree", "Active", "Inactive", "Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)",
    "Unevictable", "Mlocked", "AnonPages", "Mapped", "Shmem", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim",
    "KernelStack", "PageTables", "HugePages_Total", "HugePages_Free",
)
#: Lines of numastat, and the items of vmstat that they are.
NUMASTAT = {"numa_hit": "numa_hit", "numa_miss": "numa_miss", "numa_foreign": "numa_foreign",
            "interleave_hit": "numa_interleave", "local_node": "numa_local", "other_node": "numa_other"}


def agree(kernel: Kernel) -> None:
    """Whether the counters of the model add up, and all files tell the same of them."""
    check(kernel)
    info, events, zones = meminfo(kernel), vmstat(kernel), zoneinfo(kernel)
    nodes = {node.id: node_meminfo(kernel, node.id) for node in kernel.nodes.values() if node.online}
    for label in SHARED:
        assert info[label] == sum(node[label] for node in nodes.values()), label
    assert info["MemTotal"] == 4 * sum(zone["managed"] for zone in zones.values())
    assert info["MemFree"] == 4 * events["nr_free_pages"]
    assert 0 <= info["MemAvailable"] <= info["MemTotal"]
    assert info["Active"] + info["Inactive"] + info["Unevictable"] <= info["MemTotal"] - info["MemFree"]
    assert info["Cached"] + info["Buffers"] == 4 * events["nr_file_pages"]
    for node_id, node in nodes.items():
        mine = [zone for key, zone in zones.items() if key[0] == node_id]
        assert node["MemTotal"] == 4 * sum(zone["managed"] for zone in mine)
        assert node["MemFree"] == 4 * sum(zone["free"] for zone in mine)
        assert node["MemUsed"] == node["MemTotal"] - node["MemFree"]
    agree_items(kernel, zones, events)
    agree_free(kernel, zones)
    agree_numa(kernel, events)


def agree_items(kernel: Kernel, zones: dict, events: dict[str, int]) -> None:
    nodes = [pairs(node_vmstat_show(kernel, node)) for node in kernel.nodes.values() if node.online]
    for name in nodes[0]:
        assert events[name] == sum(node[name] for node in nodes), name
    for name in ("nr_free_pages", "nr_zone_inactive_anon", "nr_zone_active_file", "nr_mlock"):
        assert events[name] == sum(zone.get(name, 0) for zone in zones.values()), name


def agree_free(kernel: Kernel, zones: dict) -> None:
    orders, types = buddyinfo(kernel), pagetypes(kernel)
    assert orders.keys() == types.keys() == {key for key, zone in zones.items() if zone["present"]}
    for key, zone in zones.items():
        counts = orders.get(key, [])
        assert zone["free"] == pages_of(counts)
        assert 0 <= zone["free"] <= zone["managed"] <= zone["present"] <= zone["spanned"]
        by_type = [row for name, row in types.get(key, {}).items() if name != "Isolate"]
        assert counts == [sum(column) for column in zip(*by_type, strict=True)]
        assert ("start_pfn" in zone) == bool(zone["spanned"])
        assert zone["min"] <= zone["low"] <= zone["high"]


def agree_numa(kernel: Kernel, events: dict[str, int]) -> None:
    nodes = [pairs(numastat_show(kernel, node)) for node in kernel.nodes.values() if node.online]
    for line, item in NUMASTAT.items():
        assert events[item] == sum(node[line] for node in nodes)
