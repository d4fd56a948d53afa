"""The statistics of one node: nodeN/meminfo, nodeN/vmstat, nodeN/numastat.

Source: node_read_meminfo, node_read_vmstat, node_read_numastat (drivers/base/node.c), hugetlb_report_node_meminfo
(mm/hugetlb.c); formats of 6.1, 6.12 and 7.3 kernel images, and of a running 6.18.
"""

from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import pool_2m
from memhpfs.kernel.state import Kernel, Node
from memhpfs.kernel.stats import node_stats
from memhpfs.sysfs.items import names_of
from memhpfs.sysfs.meminfo import common_values
from memhpfs.sysfs.vmstat import NODE_ITEMS, NUMA_ITEMS, ZONE_ITEMS
from memhpfs.units import KIB

__all__ = ["node_meminfo_show", "node_vmstat_show", "numastat_show"]

_LABELS = """
MemTotal MemFree MemUsed SwapCached Active Inactive
Active(anon) Inactive(anon) Active(file) Inactive(file) Unevictable Mlocked
Dirty Writeback FilePages Mapped AnonPages Shmem KernelStack PageTables SecPageTables
NFS_Unstable Bounce WritebackTmp KReclaimable Slab SReclaimable SUnreclaim
AnonHugePages ShmemHugePages ShmemPmdMapped FileHugePages FilePmdMapped
Unaccepted | 6.6 6.12 6.18 7.3 x86_64
Balloon GPUActive GPUReclaim | 7.3
"""
_LABEL_WIDTH = 16
#: Labels that have one blank less, by release.
_NARROW = {"6.1": frozenset({"FileHugePages", "FilePmdMapped"})}

_NUMASTAT = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")


def node_meminfo_show(kernel: Kernel, node: Node) -> str:
    """The text of nodeN/meminfo."""
    stats = node_stats(kernel, node)
    values = common_values(stats)
    values["MemUsed"] = values["MemTotal"] - values["MemFree"]
    values["FilePages"] = stats["nr_file_pages"] * PAGE_SIZE // KIB
    narrow = _NARROW.get(kernel.features.release, frozenset())
    text = ""
    for label in names_of(_LABELS, kernel):
        width = _LABEL_WIDTH - (label in narrow)
        text += f"Node {node.id} {label + ':':<{width}}{values.get(label, 0):8} kB\n"
    total, free = pool_2m(kernel, node.id)
    for name, count in (("HugePages_Total: ", total), ("HugePages_Free:  ", free), ("HugePages_Surp:  ", 0)):
        text += f"Node {node.id} {name}{count:5}\n"
    return text


def node_vmstat_show(kernel: Kernel, node: Node) -> str:
    """The text of nodeN/vmstat."""
    stats = node_stats(kernel, node)
    names = [name for table in (ZONE_ITEMS, NUMA_ITEMS, NODE_ITEMS) for name in names_of(table, kernel)]
    return "".join(f"{name} {stats[name]}\n" for name in names)


def numastat_show(kernel: Kernel, node: Node) -> str:
    """The text of nodeN/numastat; the model does not count single allocations."""
    return "".join(f"{name} 0\n" for name in _NUMASTAT)
