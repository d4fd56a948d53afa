"""Watermarks, reserves and CPU lists against the numbers of real machines."""

import pytest
from proc_texts import machine, terabyte, zoneinfo

from memhpfs.kernel import dimm
from memhpfs.kernel.boot import boot
from memhpfs.kernel.device import state_store
from memhpfs.kernel.pause import run_now
from memhpfs.kernel.spec import NodeSpec, OnlineType, RamRange, Spec
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.watermarks import Watermarks, lowmem_reserve, min_free_kbytes, pageset, stat_threshold, watermarks
from memhpfs.units import GIB, MIB

#: A machine with two CPUs under 6.18: managed pages, watermarks, reserves, CPU lists (high_min, high_max, batch) and
#: drift threshold.
REAL = {
    "DMA": (3840, Watermarks(53, 66, 79, 92), [0, 3019, 4683, 4683, 4683], (33, 240, 1), 4),
    "DMA32": (772917, Watermarks(10857, 13571, 16285, 18999), [0, 0, 1664, 1664, 1664], (6785, 48307, 63), 24),
    "Normal": (425984, Watermarks(5984, 7480, 8976, 10472), [0, 0, 0, 0, 0], (3740, 26624, 63), 20),
}


@pytest.fixture
def real() -> Kernel:
    kernel = machine("6.18")
    for name, row in REAL.items():
        kernel.nodes[0].zones[name].managed_pages = row[0]
    return kernel


def test_real_machine(real):
    """All that /proc/zoneinfo of that machine says follows from its managed pages."""
    marks, node = watermarks(real), real.nodes[0]
    for name, (_, expected, reserve, (high_min, high_max, batch), threshold) in REAL.items():
        zone = node.zones[name]
        cpu_list = pageset(real, zone, marks[zone].low)
        assert marks[zone] == expected
        assert lowmem_reserve(node, name) == reserve
        assert (cpu_list.high_min, cpu_list.high_max, cpu_list.batch) == (high_min, high_max, batch)
        assert stat_threshold(real, zone) == threshold
    assert min_free_kbytes(real) == 67584


@pytest.mark.parametrize(("release", "lowest"), [("6.1", 0), ("6.6", 32), ("6.12", 32), ("6.18", 32), ("7.3", 32)])
def test_empty_movable(release, lowest):
    """Empty ZONE_MOVABLE has watermarks of 32 pages, but in 6.1, where it has its share like any zone."""
    zone = zoneinfo(machine(release))[0, "Movable"]
    assert (zone["min"], zone["low"], zone["high"]) == (lowest, lowest, lowest)


@pytest.mark.parametrize(("release", "capped"), [("6.1", False), ("6.12", True)])
def test_movable_is_no_kernel_memory(release, capped):
    """Memory in ZONE_MOVABLE leaves the watermarks of kernel zones alone, but not in 6.1; its own stay small."""
    kernel = machine(release)
    before = zoneinfo(kernel)[0, "Normal"]["min"]
    run_now(dimm.plug(kernel, 0, 8 * GIB, GIB, 0))
    for block_id in range(64, 72):
        run_now(state_store(kernel, kernel.blocks[block_id], OnlineType.MOVABLE))
    zones = zoneinfo(kernel)

    assert (zones[0, "Normal"]["min"] == before) == capped
    assert (zones[0, "Movable"]["min"] <= 128) == capped


def test_small_machine():
    """With 1 GiB it is the twentieth part that limits what huge pages want: two zones, 45056 kB."""
    kernel = boot(Spec("6.12", "x86_64", (RamRange(0x1000, 0x9FC00), RamRange(0x100000, 0x3FFE0000))))
    managed = sum(zone.managed_pages for zone in kernel.nodes[0].zones.values())
    assert min_free_kbytes(kernel) == min(45056, managed // 20 * 4)


def test_large_machine():
    """With 1 TiB the root of its size is more than huge pages want, up to 256 MiB."""
    assert 67584 < min_free_kbytes(terabyte()) <= 262144


def test_node_without_cpus():
    """A node without CPUs shares its lists among all of them."""
    nodes = (NodeSpec(0, (0, 1)), NodeSpec(1))
    ram = (RamRange(0x100000, 0xC0000000), RamRange(4 * GIB, 6 * GIB, node=1))
    kernel = boot(Spec("6.18", "x86_64", ram, nodes=nodes))
    zone = kernel.nodes[1].zones["Normal"]
    low = watermarks(kernel)[zone].low

    assert pageset(kernel, zone, low).high_min == low // 2


def test_reserves_of_every_node(real):
    """A zone of a node without memory keeps nothing back."""
    run_now(dimm.plug(real, 0, 8 * GIB, 128 * MIB, 1))
    assert lowmem_reserve(real.nodes[1], "DMA") == [0] * 5
