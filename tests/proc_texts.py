"""Readers of statistics texts as tools read them, and machines to take them from."""

import re

from memhpfs.kernel.boot import boot
from memhpfs.kernel.spec import BootParams, MemmapMode, NodeSpec, OnlineType, RamRange, Spec
from memhpfs.kernel.state import Kernel
from memhpfs.sysfs.buddyinfo import buddyinfo_show, pagetypeinfo_show
from memhpfs.sysfs.meminfo import meminfo_show
from memhpfs.sysfs.nodestat import node_meminfo_show
from memhpfs.sysfs.vmstat import vmstat_show
from memhpfs.sysfs.zoneinfo import zoneinfo_show
from memhpfs.units import GIB

RELEASES = ("6.1", "6.6", "6.12", "6.18", "7.3")
BLOCK_KB = 131072
MEMMAP_PAGES = 512


def machine(release: str = "6.12", memmap: MemmapMode = MemmapMode.NO, auto: OnlineType | None = None) -> Kernel:
    """A QEMU PC with 6 GiB and two CPUs on node 0, and an empty node 1."""
    ram = (RamRange(0x1000, 0x9FC00), RamRange(0x100000, 0xBFFE0000), RamRange(0x100000000, 0x1C0000000))
    params = BootParams(memmap_on_memory=memmap, auto_online=auto or OnlineType.OFFLINE)
    return boot(Spec(release, "x86_64", ram, nodes=(NodeSpec(0, (0, 1)), NodeSpec(1)), params=params))


def terabyte() -> Kernel:
    """A machine with 8192 blocks of boot memory."""
    ram = (RamRange(0x100000, 0xC0000000), RamRange(0x100000000, 4 * GIB + 1021 * GIB))
    return boot(Spec("6.12", "x86_64", ram, nodes=(NodeSpec(0, tuple(range(8))),), block_size_bytes=128 << 20))


def meminfo(kernel: Kernel) -> dict[str, int]:
    """Numbers of /proc/meminfo by label, kB where the line says so."""
    return {line.split(":")[0]: int(line.split()[1]) for line in meminfo_show(kernel).splitlines()}


def node_meminfo(kernel: Kernel, node_id: int) -> dict[str, int]:
    """Numbers of nodeN/meminfo by label."""
    lines = node_meminfo_show(kernel, kernel.nodes[node_id]).splitlines()
    return {line.split()[2].rstrip(":"): int(line.split()[3]) for line in lines}


def pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def vmstat(kernel: Kernel) -> dict[str, int]:
    """/proc/vmstat."""
    return pairs(vmstat_show(kernel))


def zoneinfo(kernel: Kernel) -> dict[tuple[int, str], dict[str, int]]:
    """Numbers of /proc/zoneinfo by node and zone; `start_pfn` is missing where the zone is empty.

    Of a name that stands there twice the first counts: `high` is the watermark, not that of a CPU's list.
    """
    found: dict[tuple[int, str], dict[str, int]] = {}
    zone: dict[str, int] = {}
    for line in zoneinfo_show(kernel).splitlines():
        if header := re.fullmatch(r"Node (\d+), zone +(\w+)", line):
            zone = found[int(header[1]), header[2]] = {}
        elif number := re.fullmatch(r" +(?:pages )?(\w+):? +(\d+)", line):
            zone.setdefault(number[1], int(number[2]))
    return found


def buddyinfo(kernel: Kernel) -> dict[tuple[int, str], list[int]]:
    """Free areas by order, by node and zone."""
    rows = (re.fullmatch(r"Node (\d+), zone +(\w+) ([ \d]+) ", line) for line in buddyinfo_show(kernel).splitlines())
    return {(int(row[1]), row[2]): [int(word) for word in row[3].split()] for row in rows if row is not None}


def pagetypes(kernel: Kernel) -> dict[tuple[int, str], dict[str, list[int]]]:
    """Free areas by order, by node, zone and migrate type."""
    found: dict[tuple[int, str], dict[str, list[int]]] = {}
    for line in pagetypeinfo_show(kernel).splitlines():
        if row := re.fullmatch(r"Node +(\d+), zone +(\w+), type +(\w+) ([ \d>]+) ", line):
            counts = [int(word.lstrip(">")) for word in row[4].split()]
            found.setdefault((int(row[1]), row[2]), {})[row[3]] = counts
    return found


def pages_of(orders: list[int]) -> int:
    """Pages in free areas."""
    return sum(count << order for order, count in enumerate(orders))
