"""The texts of statistics files, byte for byte, for each release."""

import re

import pytest
from proc_texts import RELEASES, machine, terabyte

from memhpfs.kernel import dimm
from memhpfs.kernel.boot import boot
from memhpfs.kernel.device import state_store
from memhpfs.kernel.pause import run_now
from memhpfs.kernel.spec import NodeSpec, OnlineType, RamRange, Spec
from memhpfs.sysfs.buddyinfo import buddyinfo_show, pagetypeinfo_show
from memhpfs.sysfs.iomem import iomem_show
from memhpfs.sysfs.meminfo import meminfo_show
from memhpfs.sysfs.nodestat import node_meminfo_show, node_vmstat_show, numastat_show
from memhpfs.sysfs.vmstat import vmstat_show
from memhpfs.sysfs.zoneinfo import zoneinfo_show
from memhpfs.units import GIB, MIB

MEMINFO = """MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon)
Active(file) Inactive(file) Unevictable Mlocked SwapTotal SwapFree Zswap Zswapped Dirty Writeback AnonPages Mapped Shmem
KReclaimable Slab SReclaimable SUnreclaim KernelStack PageTables SecPageTables NFS_Unstable Bounce WritebackTmp
CommitLimit Committed_AS VmallocTotal VmallocUsed VmallocChunk Percpu HardwareCorrupted AnonHugePages ShmemHugePages
ShmemPmdMapped FileHugePages FilePmdMapped {} HugePages_Total HugePages_Free HugePages_Rsvd HugePages_Surp Hugepagesize
Hugetlb DirectMap4k DirectMap2M DirectMap1G"""
NODE_MEMINFO = """MemTotal MemFree MemUsed SwapCached Active Inactive Active(anon) Inactive(anon) Active(file)
Inactive(file) Unevictable Mlocked Dirty Writeback FilePages Mapped AnonPages Shmem KernelStack PageTables SecPageTables
NFS_Unstable Bounce WritebackTmp KReclaimable Slab SReclaimable SUnreclaim AnonHugePages ShmemHugePages ShmemPmdMapped
FileHugePages FilePmdMapped {} HugePages_Total HugePages_Free HugePages_Surp"""
EXTRA = {
    "6.1": ("", ""),
    "6.6": ("Unaccepted", "Unaccepted"),
    "6.12": ("Unaccepted", "Unaccepted"),
    "6.18": ("Unaccepted Balloon", "Unaccepted"),
    "7.3": ("CmaTotal CmaFree Unaccepted Balloon GPUActive GPUReclaim", "Unaccepted Balloon GPUActive GPUReclaim"),
}
#: How many lines /proc/vmstat has with the configuration of a distribution kernel.
VMSTAT_LINES = {"6.1": 173, "6.6": 177, "6.12": 185, "6.18": 193, "7.3": 202}

UNUSED_ZONE = """\
Node 1, zone  Movable
  pages free     0
        boost    0
        min      32
        low      32
        high     32
        promo    32
        spanned  0
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
Node 1, zone   Device
  pages free     0
        boost    0
        min      0
        low      0
        high     0
        promo    0
        spanned  0
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
"""
PAGESETS = {
    "6.12": """\
  pagesets
    cpu: 0
              count: 0
              high:  33
              batch: 1
  vm stats threshold: 4
    cpu: 1
              count: 0
              high:  33
              batch: 1
  vm stats threshold: 4
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone    DMA32
""",
    "7.3": """\
  pagesets
    cpu: 0
              count:    0
              high:     33
              batch:    1
              high_min: 33
              high_max: 240
  vm stats threshold: 4
    cpu: 1
              count:    0
              high:     33
              batch:    1
              high_min: 33
              high_max: 240
  vm stats threshold: 4
  node_unreclaimable:  0
  start_pfn:           1
  reserved_highatomic: 0
  free_highatomic:     0
Node 0, zone    DMA32
""",
}


@pytest.mark.parametrize("release", RELEASES)
def test_meminfo(release):
    """Labels and order; 16 columns for the label, 8 for the number, but for the pool lines."""
    text = meminfo_show(machine(release))
    labels = [line.split(":")[0] for line in text.splitlines()]
    assert labels == MEMINFO.format(EXTRA[release][0]).split()
    for line in text.splitlines():
        assert re.fullmatch(r"[\w()]+: {1,14} *\d+( kB)?", line)
        assert len(line) == (24 if line.startswith("HugePages_") else 27) or line.startswith("VmallocTotal")
    assert "VmallocTotal:   34359738367 kB\n" in text
    assert "\nHardwareCorrupted:     0 kB\n" in text
    assert "\nHugePages_Total:       0\nHugePages_Free:        0\n" in text
    assert "\nHugepagesize:       2048 kB\nHugetlb:               0 kB\nDirectMap4k:  " in text


def test_meminfo_without_memory_failure():
    """A kernel without CONFIG_MEMORY_FAILURE has no HardwareCorrupted."""
    spec = Spec("6.12", "x86_64", (RamRange(0x100000, GIB),), without_files=frozenset({"page-offline"}))
    assert "HardwareCorrupted" not in meminfo_show(boot(spec))


@pytest.mark.parametrize("release", RELEASES)
def test_node_meminfo(release):
    """The same for a node; 6.1 has one blank less in two lines."""
    kernel = machine(release)
    lines = node_meminfo_show(kernel, kernel.nodes[0]).splitlines()
    assert [line.split()[2].rstrip(":") for line in lines] == NODE_MEMINFO.format(EXTRA[release][1]).split()
    narrow = "" if release == "6.1" else " "
    assert f"Node 0 FileHugePages: {narrow}       0 kB" in lines
    assert f"Node 0 FilePmdMapped: {narrow}       0 kB" in lines
    assert lines[-3:] == ["Node 0 HugePages_Total:     0", "Node 0 HugePages_Free:      0",
                          "Node 0 HugePages_Surp:      0"]
    assert all(re.fullmatch(r"Node 0 .{16} {0,7}\d+ kB", line) for line in lines[:-3] if "File" not in line)


def test_memoryless_node():
    """A node without memory, once it is registered, shows zeros everywhere."""
    kernel = machine()
    run_now(dimm.plug(kernel, 0, 8 * GIB, 128 * MIB, 1))
    texts = node_meminfo_show(kernel, kernel.nodes[1]) + node_vmstat_show(kernel, kernel.nodes[1])
    assert {int(number) for number in re.findall(r" (\d+)(?: kB)?$", texts, re.MULTILINE)} == {0}


@pytest.mark.parametrize("release", RELEASES)
def test_vmstat(release):
    """A name and a number on each line, no name twice, and the last one is nr_unstable."""
    text = vmstat_show(machine(release))
    assert re.fullmatch(r"(\w+ \d+\n)+", text)
    names = [line.split()[0] for line in text.splitlines()]
    assert len(names) == len(set(names)) == VMSTAT_LINES[release]
    assert names[0] == "nr_free_pages"
    assert names[-1] == "nr_unstable"
    assert names[names.index("pgalloc_dma"):][:5] == [f"pgalloc_{zone}" for zone in
                                                      ("dma", "dma32", "normal", "movable", "device")]


@pytest.mark.parametrize("release", RELEASES)
def test_node_vmstat(release):
    """A node has the counters up to those of the whole machine, in the same order."""
    kernel = machine(release)
    whole = [line.split()[0] for line in vmstat_show(kernel).splitlines()]
    node = [line.split()[0] for line in node_vmstat_show(kernel, kernel.nodes[0]).splitlines()]
    assert node == whole[:whole.index("nr_dirty_threshold")]


def test_numastat():
    """Six counters."""
    kernel = machine()
    assert numastat_show(kernel, kernel.nodes[0]) == (
        "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0\n"
    )


@pytest.mark.parametrize("release", RELEASES)
def test_zoneinfo_lines(release):
    """Every line is one of the kernel's, and every zone of the configuration is there."""
    text = zoneinfo_show(machine(release))
    shapes = (
        r"Node \d, zone {1,8}\w+", r"  per-node stats", r"      \w+ {1,12}\d+", r"  pages free     \d+",
        r"        (boost|min|low|high|promo|spanned|present|managed|cma) {1,5} \d+",
        r"        protection: \((\d+, ){4}\d+\)", r"  pagesets", r"    cpu: \d+",
        r"              (count|high|batch|high_min|high_max): +\d+", r"  vm stats threshold: \d+",
        r"  (node_unreclaimable|start_pfn|reserved_highatomic|free_highatomic): {1,11}\d+",
    )
    for line in text.splitlines():
        assert any(re.fullmatch(shape, line) for shape in shapes), line
    assert re.findall(r"zone +(\w+)", text) == ["DMA", "DMA32", "Normal", "Movable", "Device"]
    assert ("promo" in re.findall(r"^ {8}(\w+)", text, re.MULTILINE)) == (release not in ("6.1", "6.6"))
    assert text.count("per-node stats") == 1
    assert text.count("start_pfn") == 3


@pytest.mark.parametrize("release", PAGESETS)
def test_zoneinfo_pagesets(release):
    """Newer kernels show the limits of the lists in wider columns, and 7.3 what is kept for atomic allocations."""
    kernel = machine(release)
    for name, managed in (("DMA", 3840), ("DMA32", 772917), ("Normal", 425984)):
        kernel.nodes[0].zones[name].managed_pages = managed
    assert PAGESETS[release] in zoneinfo_show(kernel)


def test_zoneinfo_of_a_memoryless_node():
    """An online node without memory shows all its zones, without counters of the node; an offline node is absent."""
    kernel = machine()
    assert "Node 1" not in zoneinfo_show(kernel)
    run_now(dimm.plug(kernel, 0, 8 * GIB, 128 * MIB, 1))
    text = zoneinfo_show(kernel)

    assert text.endswith(UNUSED_ZONE)
    assert "start_pfn" not in text[text.index("Node 1"):]
    assert "per-node stats" not in text[text.index("Node 1"):]


def test_zoneinfo_counters_of_a_node_come_with_its_first_populated_zone():
    """A node whose memory lies in ZONE_NORMAL only shows its counters there."""
    ram = (RamRange(0x100000, 0xC0000000), RamRange(4 * GIB, 6 * GIB, node=1))
    text = zoneinfo_show(boot(Spec("6.12", "x86_64", ram, nodes=(NodeSpec(0, (0,)), NodeSpec(1)))))
    assert "Node 1, zone   Normal\n  per-node stats\n      nr_inactive_anon " in text
    assert "Node 1, zone      DMA\n  pages free     0\n" in text


def test_buddyinfo():
    """Populated zones only; a blank after each column."""
    kernel = machine()
    lines = buddyinfo_show(kernel).splitlines()
    assert lines[0] == "Node 0, zone      DMA " + "     0 " * 8 + "     1      1      3 "
    assert [line[:22] for line in lines] == ["Node 0, zone      DMA ", "Node 0, zone    DMA32 ",
                                             "Node 0, zone   Normal "]
    assert all(len(line) == 22 + 11 * 7 for line in lines)


@pytest.mark.parametrize(("release", "types"), [
    ("6.12", ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate"]),
    ("7.3", ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate"]),
])
def test_pagetypeinfo(release, types):
    """Two tables for each node with memory."""
    lines = pagetypeinfo_show(machine(release)).splitlines()
    assert lines[:4] == [
        "Page block order: 9", "Pages per block:  512", "",
        "Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8"
        "      9     10 ",
    ]
    assert [re.search(r"type +(\w+)", line)[1] for line in lines[4:4 + len(types)]] == types
    assert lines[5] == "Node    0, zone      DMA, type      Movable " + "     0 " * 8 + "     1      1      3 "
    table = lines.index("Number of blocks type " + " " + "".join(f"{name:>12} " for name in types))
    assert lines[table - 1] == ""
    assert lines[table + 1] == "Node 0, zone      DMA " + "".join(
        f"{8 if name == 'Movable' else 0:12} " for name in types)
    assert len(lines) == table + 4


def test_pagetypeinfo_stops_counting():
    """A list of more than 100000 areas is not counted to its end."""
    assert " >100000 \n" in pagetypeinfo_show(terabyte())


def test_iomem():
    """RAM at the top level, as each add made it, among what firmware keeps."""
    kernel = machine()
    run_now(dimm.plug(kernel, 0, 8 * GIB, 256 * MIB, 0))
    lines = iomem_show(kernel).splitlines()
    assert [line for line in lines if "System RAM" in line] == [
        "00001000-0009fbff : System RAM",
        "00100000-bffdffff : System RAM",
        "100000000-1bfffffff : System RAM",
        "200000000-20fffffff : System RAM",
    ]
    assert lines[0] == "00000000-00000fff : Reserved"
    assert "  000f0000-000fffff : System ROM" in lines
    assert "  01000000-021fffff : Kernel code" in lines
    assert "bffe0000-bfffffff : Reserved" in lines


def test_iomem_without_privilege():
    """Others see the names only."""
    lines = iomem_show(machine(), privileged=False).splitlines()
    assert lines.count("00000000-00000000 : System RAM") == 3
    assert {line.strip().split(" : ")[0] for line in lines} == {"00000000-00000000"}


def test_iomem_of_memory_in_the_hole():
    """Memory added where firmware would be leaves no room for it."""
    kernel = machine()
    run_now(dimm.plug(kernel, 0, 0xF8000000, 128 * MIB, 0))
    text = iomem_show(kernel)
    assert "f8000000-ffffffff : System RAM\n" in text
    assert "fffc0000" not in text


def test_zones_span_what_is_online():
    """What tools read per zone: start, span, present and managed pages move with the blocks."""
    kernel = machine()
    run_now(dimm.plug(kernel, 0, 8 * GIB, 256 * MIB, 0))
    run_now(state_store(kernel, kernel.blocks[65], OnlineType.MOVABLE))
    part = zoneinfo_show(kernel).split("Node 0, zone  Movable\n")[1].split("Node 0, zone   Device")[0]
    for line in ("        spanned  32768", "        present  32768", "        managed  32768",
                 "  start_pfn:           2129920"):
        assert line + "\n" in part
