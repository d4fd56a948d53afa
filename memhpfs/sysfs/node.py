"""The rows of /sys/devices/system/node and of nodeN.

Source: drivers/base/node.c, mm/hugetlb.c; transcript vfs.plain.
"""

import re
from collections.abc import Callable, Iterable

from memhpfs.errors import BadText, NotReclaimed
from memhpfs.kernel.alloc import release_pages
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import Use
from memhpfs.kernel.state import Kernel, Node
from memhpfs.parse import memparse
from memhpfs.sysfs.attr import Attr, Dir, Link, has
from memhpfs.sysfs.hugepages import HUGEPAGES_DIR
from memhpfs.sysfs.nodestat import node_meminfo_show, node_vmstat_show, numastat_show
from memhpfs.sysfs.power import power_dir
from memhpfs.sysfs.uevent import device_uevent_store, root_uevent_store, uevent_show

__all__ = ["NODE_DIR", "NODE_ROOT_DIR", "bitmap_list"]

#: NR_CPUS of a distribution kernel, which sizes the binary attributes.
_NR_CPUS = 8192
#: What may follow the size in `reclaim`.
_RECLAIM_OPTIONS = re.compile(r"\s*(swappiness=(max|1?[0-9]{1,2}|200)\s*)*")
_LOCAL_DISTANCE, _REMOTE_DISTANCE = 10, 20


def bitmap_list(numbers: Iterable[int]) -> str:
    """A set of numbers as the kernel lists it: `0-1,3`; the empty set is the empty text.  Linux: %*pbl."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _mask_show(test: Callable[[Node], bool]) -> Callable[[Kernel, Kernel], str]:
    return lambda kernel, _: bitmap_list(node.id for node in kernel.nodes.values() if test(node)) + "\n"


def _cpumap_show(kernel: Kernel, node: Node) -> str:
    """The CPUs as comma-separated groups of 32 bits, as wide as the machine's CPUs need.  Linux: %*pb."""
    nr_cpu_ids = 1 + max((cpu for n in kernel.nodes.values() for cpu in n.cpus), default=0)
    mask = sum(1 << cpu for cpu in node.cpus)
    groups = [mask >> shift & 0xFFFFFFFF for shift in range(0, nr_cpu_ids, 32)][::-1]
    first_width = -(-((nr_cpu_ids - 1) % 32 + 1) // 4)
    return ",".join([f"{groups[0]:0{first_width}x}"] + [f"{group:08x}" for group in groups[1:]]) + "\n"


def _distance_show(kernel: Kernel, node: Node) -> str:
    """Distances to the online nodes; the blank stands before every node but node 0.  Linux: node_read_distance."""
    def distance(other: Node) -> int:
        return node.distances.get(other.id, _LOCAL_DISTANCE if other is node else _REMOTE_DISTANCE)

    online = [other for other in kernel.nodes.values() if other.online]
    return "".join(f"{' ' if other.id else ''}{distance(other)}" for other in online) + "\n"


def _compact_store(kernel: Kernel, node: Node, text: str) -> None:
    """Pages have no addresses here, so there is nothing to compact."""


def _counter(name: str) -> Attr:
    return Attr(name, 0o444, lambda kernel, node: f"{node.memory_failure[name]}\n", source="memory_failure_attr")


def _reclaim_store(kernel: Kernel, node: Node, text: str) -> None:
    """Page cache of the node becomes free, as much as asked for.

    Raises:
        BadText: no size, or something else than swappiness= behind it.
        NotReclaimed: there was less; that is free nevertheless.
    """
    size, rest = memparse(text)
    if rest == text or not _RECLAIM_OPTIONS.fullmatch(rest):
        raise BadText(f"{text!r} is no size, with swappiness= at most")
    wanted = -(-size // PAGE_SIZE)
    if release_pages(kernel, Use.FILE, wanted, [node.id]) < wanted:
        raise NotReclaimed()


NODE_DIR = Dir("nodeN", (
    Attr("uevent", 0o644, uevent_show, device_uevent_store, "uevent_show, uevent_store", counted=True),
    Attr("cpumap", 0o444, _cpumap_show, source="cpumap_read", binary=True),
    Attr("cpulist", 0o444, lambda kernel, node: bitmap_list(node.cpus) + "\n", source="cpulist_read",
         size=_NR_CPUS * 7 // 2, binary=True),
    Attr("meminfo", 0o444, node_meminfo_show, source="node_read_meminfo"),
    Attr("numastat", 0o444, numastat_show, source="node_read_numastat"),
    Attr("distance", 0o444, _distance_show, source="node_read_distance"),
    Attr("vmstat", 0o444, node_vmstat_show, source="node_read_vmstat"),
    Attr("compact", 0o200, None, _compact_store, "compact_store"),
    Attr("reclaim", 0o200, None, _reclaim_store, "reclaim_store", when=has("node_reclaim")),
    Dir("memory_failure", tuple(_counter(name) for name in ("total", "ignored", "failed", "delayed", "recovered")),
        when=has("memory_failure")),
    HUGEPAGES_DIR,
    Dir("x86", when=has("sgx")),
    Link("subsystem", lambda kernel, node: "../../../../bus/node", "bus_add_device"),
    power_dir(),
), holds="block-links")

NODE_ROOT_DIR = Dir("node", (
    Attr("uevent", 0o644, uevent_show, root_uevent_store("node"), "uevent_show; filtered by dev_uevent_filter",
         counted=True),
    Attr("possible", 0o444, _mask_show(lambda node: True), source="node_states[N_POSSIBLE]"),
    Attr("online", 0o444, _mask_show(lambda node: node.online), source="node_states[N_ONLINE]"),
    Attr("has_normal_memory", 0o444, _mask_show(lambda node: node.has_normal_memory), source="N_NORMAL_MEMORY"),
    Attr("has_memory", 0o444, _mask_show(lambda node: node.has_memory), source="N_MEMORY"),
    Attr("has_cpu", 0o444, _mask_show(lambda node: node.online and bool(node.cpus)), source="N_CPU"),
    Attr("has_generic_initiator", 0o444, _mask_show(lambda node: False), source="N_GENERIC_INITIATOR"),
    power_dir("node"),
), holds="nodes")
