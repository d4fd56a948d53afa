"""How statistics move when memory comes, goes, and is used."""

import pytest
from proc_texts import BLOCK_KB, MEMMAP_PAGES, machine, meminfo, node_meminfo, vmstat, zoneinfo

from memhpfs.kernel import dimm
from memhpfs.kernel.boot import boot
from memhpfs.kernel.device import online_store, state_store
from memhpfs.kernel.pause import run_now
from memhpfs.kernel.poison import hard_offline_page
from memhpfs.kernel.spec import MemmapMode, OnlineType, RamKind, RamRange, Spec
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.workload import add_workload, delete_workload
from memhpfs.units import GIB, MIB

START = 8 * GIB
FIRST = 64
DIRECT = ("DirectMap4k", "DirectMap2M", "DirectMap1G")


def plug(kernel: Kernel, blocks: int = 1) -> None:
    run_now(dimm.plug(kernel, 0, START, blocks * 128 * MIB, 0))


def put(kernel: Kernel, block_id: int, wanted: OnlineType) -> None:
    run_now(state_store(kernel, kernel.blocks[block_id], wanted))


def moved(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in before if after[name] != before[name]}


@pytest.mark.parametrize("wanted", [OnlineType.KERNEL, OnlineType.MOVABLE])
def test_online_and_offline(wanted):
    """A block brings MemTotal and MemFree exactly its size, and CommitLimit half of it; offlining takes it back."""
    kernel = machine()
    plug(kernel)
    before = meminfo(kernel)
    put(kernel, FIRST, wanted)
    online = moved(before, meminfo(kernel))

    assert (online["MemTotal"], online["MemFree"], online["CommitLimit"]) == (BLOCK_KB, BLOCK_KB, BLOCK_KB // 2)
    assert online.keys() == {"MemTotal", "MemFree", "MemAvailable", "CommitLimit"}
    put(kernel, FIRST, OnlineType.OFFLINE)
    assert meminfo(kernel) == before


def test_add_and_remove():
    """An add takes the memory map from MemFree and maps the range; MemTotal stays.  Removal undoes both."""
    kernel = machine()
    before, counters = meminfo(kernel), vmstat(kernel)
    plug(kernel, 3)
    added = moved(before, meminfo(kernel))

    assert added.pop("MemFree") == -3 * MEMMAP_PAGES * 4
    assert added.pop("DirectMap2M") == 3 * BLOCK_KB
    assert added.keys() <= {"MemAvailable"}
    assert vmstat(kernel)["nr_memmap_pages"] - counters["nr_memmap_pages"] == 3 * MEMMAP_PAGES
    run_now(dimm.eject(kernel, 0))
    assert meminfo(kernel) == before
    assert vmstat(kernel) == counters


def test_self_hosted_memmap():
    """A block with its own memory map costs nothing to add, and brings 2 MiB less."""
    kernel = machine(memmap=MemmapMode.YES)
    before, counters = meminfo(kernel), vmstat(kernel)
    plug(kernel)

    assert moved(before, meminfo(kernel)) == {"DirectMap2M": BLOCK_KB}
    assert vmstat(kernel)["nr_memmap_pages"] - counters["nr_memmap_pages"] == MEMMAP_PAGES
    put(kernel, FIRST, OnlineType.MOVABLE)
    assert moved(before, meminfo(kernel))["MemTotal"] == BLOCK_KB - 2048


@pytest.mark.parametrize(("memmap", "label"), [(MemmapMode.NO, "DirectMap1G"), (MemmapMode.YES, "DirectMap2M")])
def test_direct_map_of_a_gibibyte(memmap, label):
    """An aligned GiB is mapped with one page, or block by block where the blocks host their memory maps."""
    kernel = machine(memmap=memmap)
    before = meminfo(kernel)
    plug(kernel, 8)
    added = moved(before, meminfo(kernel))
    assert {name: added[name] for name in DIRECT if name in added} == {label: 8 * BLOCK_KB}


def test_direct_map_covers_ram():
    """All whole pages of RAM are mapped, with the largest pages that fit."""
    kernel = machine()
    info = meminfo(kernel)
    assert sum(info[name] for name in DIRECT) == sum((item.end - item.start) // 4096 * 4 for item in kernel.iomem)
    assert info["DirectMap1G"] == 4 * 1024 * 1024


def test_other_nodes_are_left_alone():
    """What goes online on node 1 shows there and in the machine's total, but not on node 0."""
    kernel = machine()
    run_now(dimm.plug(kernel, 0, START, 128 * MIB, 1))
    before = node_meminfo(kernel, 0)
    assert set(node_meminfo(kernel, 1).values()) == {0}
    put(kernel, FIRST, OnlineType.MOVABLE)

    assert node_meminfo(kernel, 0) == before
    assert node_meminfo(kernel, 1)["MemTotal"] == BLOCK_KB


def test_poison():
    """A broken page stays in MemTotal, and in HardwareCorrupted until its block is removed."""
    kernel = machine()
    plug(kernel)
    put(kernel, FIRST, OnlineType.MOVABLE)
    before = meminfo(kernel)
    hard_offline_page(kernel, START + 0x5000)
    broken = moved(before, meminfo(kernel))

    assert broken == {"MemFree": -4, "MemAvailable": -4, "HardwareCorrupted": 4}
    run_now(online_store(kernel, kernel.blocks[FIRST], False))
    assert meminfo(kernel)["HardwareCorrupted"] == 4
    run_now(dimm.eject(kernel, 0))
    assert meminfo(kernel)["HardwareCorrupted"] == 0


@pytest.mark.parametrize(("kind", "labels"), [
    ("anon", ("AnonPages",)),
    ("file", ("Cached",)),
    ("shm", ("Shmem", "Cached", "Inactive(anon)")),
    ("mlock", ("Mlocked", "Unevictable", "AnonPages")),
    ("pinned", ("AnonPages",)),
    ("slab", ("Slab",)),
    ("pagetables", ("PageTables",)),
    ("kernel", ()),
    ("hugetlb-2M", ("Hugetlb",)),
    ("hugetlb-1G", ("Hugetlb",)),
    ("balloon", ()),
])
def test_workloads(kind, labels):
    """What a workload takes from MemFree shows where the kernel shows its kind; MemTotal stays."""
    kernel = machine()
    before = meminfo(kernel)
    add_workload(kernel, "w", kind, GIB)
    used = moved(before, meminfo(kernel))

    assert used["MemFree"] == -1024 * 1024
    assert "MemTotal" not in used
    assert [used[label] for label in labels] == [1024 * 1024] * len(labels)
    delete_workload(kernel, "w")
    assert meminfo(kernel) == before


def test_huge_pages_are_not_to_be_committed():
    """Pages in a pool leave CommitLimit, and the pool of 2 MiB pages is counted in pages."""
    kernel = machine()
    before = meminfo(kernel)
    add_workload(kernel, "w", "hugetlb-2M", 64 * MIB)
    used = moved(before, meminfo(kernel))

    assert (used["HugePages_Total"], used["Hugetlb"], used["CommitLimit"]) == (32, 65536, -32768)
    assert meminfo(kernel)["HugePages_Free"] == 0


def test_balloon():
    """From 6.18 on the balloon has a line of its own."""
    kernel = machine("6.18")
    add_workload(kernel, "w", "balloon", 64 * MIB)
    assert meminfo(kernel)["Balloon"] == 65536


def test_cma():
    """CMA memory is free until it is used, and a machine that has it has the two lines."""
    ram = (RamRange(0x100000, 0x20000000), RamRange(0x20000000, 0x28000000, kind=RamKind.CMA),
           RamRange(0x28000000, 0x40000000))
    kernel = boot(Spec("6.12", "x86_64", ram))
    before = meminfo(kernel)
    add_workload(kernel, "w", "cma", 16 * MIB)

    assert (before["CmaTotal"], before["CmaFree"]) == (BLOCK_KB, BLOCK_KB)
    assert moved(before, meminfo(kernel)) == {"MemFree": -16384, "MemAvailable": -16384, "CmaFree": -16384}
    zone = zoneinfo(kernel)[0, "DMA32"]
    assert (zone["cma"], zone["nr_free_cma"]) == (32768, 32768 - 4096)


def test_an_emptied_zone_has_no_start():
    """A zone whose last block went offline shows zeros and no start_pfn."""
    kernel = machine()
    plug(kernel)
    put(kernel, FIRST, OnlineType.MOVABLE)
    assert zoneinfo(kernel)[0, "Movable"]["start_pfn"] == START // 4096
    put(kernel, FIRST, OnlineType.OFFLINE)

    zone = zoneinfo(kernel)[0, "Movable"]
    assert "start_pfn" not in zone
    assert (zone["spanned"], zone["present"], zone["managed"], zone["free"]) == (0, 0, 0, 0)
