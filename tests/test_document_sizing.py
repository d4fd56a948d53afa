"""Each line of the document's "Zone Imbalances" and "ZONE_MOVABLE Sizing Considerations", brought about.

Document: Documentation/admin-guide/mm/memory-hotplug.rst.
"""

import re

import pytest
from guest_kit import MEMORY, MOVABLE, Guest, Refused

from memhpfs.kernel.pages import Use
from memhpfs.units import GIB, MIB

PAGE = 4096


def meminfo(guest: Guest, label: str) -> int:
    """Bytes."""
    found = re.search(rf"^{label}: +(\d+) kB$", guest.read("proc/meminfo"), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


# -- Zone imbalances --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["slab", "pagetables", "kernel"])
def test_kernel_runs_out_although_zone_movable_is_free(kind):
    """Unmovable allocations fail when the kernel zones are full, and the log says how much is free in ZONE_MOVABLE."""
    guest = Guest()

    with pytest.raises(Refused, match=f"of {kind} do not fit"):
        guest.fill("much", kind, 2 * GIB)

    assert guest.pages("Movable", Use.FREE) == GIB // PAGE
    said = guest.said()
    assert "much: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)" in said[0]
    assert any(line.startswith("Node 0 Movable free:1048576kB ") for line in said)


def test_ratio_of_3_to_1_is_fine():
    """Three times as much ZONE_MOVABLE as kernel zones leaves the kernel room for what it needs."""
    guest = Guest(MOVABLE.replace('"1G"', '"6G"') + 'maxmem = "256G"\n')

    guest.fill("programs", "anon", 6 * GIB)
    guest.fill("tables", "pagetables", 12 * MIB)


def test_ratio_of_63_to_1_is_impossible():
    """The memory map of so much memory does not fit into the kernel zones: it cannot even be added."""
    guest = Guest('ram = "1G"\nmaxmem = "256G"\n')
    before = set(guest.kernel.blocks)

    guest.plug("d0", 63 * GIB)

    assert set(guest.kernel.blocks) == before
    assert any("add_memory failed" in line for line in guest.said())


def test_cma_of_a_kernel_zone_behaves_like_zone_movable():
    """Unmovable allocations are not served from CMA, although it lies in a kernel zone and is free."""
    guest = Guest("""
    [[ram]]
    start = 0x100000
    end = 0x40000000
    [[ram]]
    start = 0x40000000
    end = 0x80000000
    kind = "cma"
    """)
    free = guest.free_kernel_pages() * PAGE

    with pytest.raises(Refused, match="do not fit"):
        guest.fill("more", "kernel", free)

    assert guest.pages("DMA32", Use.CMA) == GIB // PAGE


# -- Sizing considerations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "use"), [("anon", Use.ANON), ("file", Use.FILE), ("shm", Use.SHM),
                                           ("mlock", Use.MLOCK)])
def test_memory_of_user_space_comes_from_zone_movable(kind, use):
    """Programs and the page cache are served from ZONE_MOVABLE, and from the kernel zones when that is full."""
    guest = Guest()

    guest.fill("some", kind, 512 * MIB)
    assert guest.pages("Movable", use) == 512 * MIB // PAGE

    guest.fill("more", kind, GIB)
    assert guest.pages("Movable", Use.FREE) < MIB // PAGE * 16
    assert guest.pages("DMA32", use) > 400 * MIB // PAGE


def test_big_portion_in_zone_movable():
    """A big part of the memory can be in ZONE_MOVABLE, and all of it goes offline again."""
    guest = Guest(MOVABLE.replace('"1G"', '"6G"') + 'maxmem = "256G"\n')
    guest.fill("programs", "anon", GIB)

    assert guest.kernel.nodes[0].zones["Movable"].managed_pages == 6 * GIB // PAGE
    for block in range(32, 72):
        guest.set_state(block, "offline")


def test_offline_blocks_use_memory():
    """Offline blocks cost the kernel zones their memory map, a 64th of them, and page tables in the direct map."""
    guest = Guest('ram = "2G"\nmaxmem = "256G"\ncmdline = "memhp_default_state=offline"\n')
    free, direct = guest.free_kernel_pages(), meminfo(guest, "DirectMap2M") + meminfo(guest, "DirectMap1G")

    guest.plug("d0", 32 * GIB)

    assert guest.state(40) == "offline"
    assert free - guest.free_kernel_pages() >= 32 * GIB // 64 // PAGE
    assert meminfo(guest, "DirectMap2M") + meminfo(guest, "DirectMap1G") - direct == 32 * GIB


def test_balloon_without_compaction_takes_from_the_kernel_zones():
    """Such a balloon makes a zone imbalance: it fills the kernel zones, however much is free in ZONE_MOVABLE."""
    guest = Guest()

    guest.fill("balloon", "balloon", GIB)

    assert guest.pages("Movable", Use.BALLOON) == 0
    assert guest.pages("DMA32", Use.BALLOON) == GIB // PAGE
    with pytest.raises(Refused, match="do not fit"):
        guest.fill("more", "balloon", GIB)


def test_balloon_with_compaction_stands_in_zone_movable_and_moves():
    """Its pages are movable allocations, and offlining moves them."""
    guest = Guest()

    guest.fill("balloon", "balloon", 512 * MIB, movable=True)
    assert guest.pages("Movable", Use.BALLOON) == 512 * MIB // PAGE

    for block in range(32, 36):
        guest.set_state(block, "offline")
    assert sum(guest.pages(zone, Use.BALLOON) for zone in ("Movable", "DMA32")) == 512 * MIB // PAGE


def test_gigantic_pages_are_unmovable():
    """User space uses up unmovable memory with them: they come from the kernel zones only."""
    guest = Guest('ram = "8G"\ncmdline = "memhp_default_state=online_movable"\ndimm = [{id = "d0", size = "8G"}]')

    with pytest.raises(Refused, match="gigantic"):
        guest.fill("many", "hugetlb-1G", 9 * GIB)
    guest.fill("some", "hugetlb-1G", 3 * GIB)

    assert guest.pages("Movable", Use.HUGE_1G) == 0
    assert meminfo(guest, "Hugetlb") == 3 * GIB


def test_huge_pages_are_movable_where_the_architecture_migrates_them():
    """On x86_64 huge pages stand in ZONE_MOVABLE, and offlining moves those in use."""
    guest = Guest()
    guest.fill("database", "hugetlb-2M", 256 * MIB)
    assert guest.pages("Movable", Use.HUGE_2M) == 256 * MIB // PAGE

    guest.set_state(32, "offline")
    guest.set_state(33, "offline")

    assert sum(guest.pages(zone, Use.HUGE_2M) for zone in ("Movable", "DMA32")) == 256 * MIB // PAGE


def test_page_tables_are_unmovable():
    """They stand in kernel zones, and whoever manages a lot of memory needs a lot of them."""
    guest = Guest()
    before = meminfo(guest, "PageTables")

    guest.fill("tables", "pagetables", 256 * MIB)

    assert guest.pages("Movable", Use.PAGETABLES) == 0
    assert meminfo(guest, "PageTables") - before == 256 * MIB


def test_memory_map_of_dax_comes_from_the_kernel_zones():
    """The map of 64 GiB of device memory takes 1 GiB of the kernel zones, which ZONE_MOVABLE cannot give."""
    guest = Guest()

    guest.fill("dax", "kernel", 64 * GIB // 64)

    assert guest.pages("Movable", Use.FREE) == GIB // PAGE
    with pytest.raises(Refused, match="do not fit"):
        guest.fill("another", "kernel", 64 * GIB // 64)


def test_kasan_takes_an_eighth():
    """Unmovable memory in proportion to all memory, from the machine's file on."""
    guest = Guest(MOVABLE + 'workload = [{id = "kasan", kind = "kernel", share = "12%"}]\n')

    [workload] = guest.qmp("x-query-workloads")
    assert 0.11 < workload["size"] / (3 * GIB) < 0.13
    assert guest.pages("Movable", Use.KERNEL) == 0


def test_long_term_pins_leave_zone_movable():
    """Pinned for long, pages are migrated off ZONE_MOVABLE first: its blocks go offline as if nothing were pinned."""
    guest = Guest()

    guest.fill("rdma", "pinned", 256 * MIB)

    assert guest.pages("Movable", Use.PINNED) == 0
    assert guest.pages("DMA32", Use.PINNED) == 256 * MIB // PAGE
    for block in range(32, 40):
        guest.set_state(block, "offline")


def test_pinning_fails_although_zone_movable_is_free():
    """When the kernel zones are full a long-term pin fails; a short one does not."""
    guest = Guest()
    guest.fill("kernel", "kernel", guest.free_kernel_pages() * PAGE - 96 * MIB)

    with pytest.raises(Refused, match="do not fit"):
        guest.fill("rdma", "pinned", 256 * MIB)

    guest.fill("io", "pinned", 256 * MIB, movable=True)
    assert guest.pages("Movable", Use.PINNED) == 256 * MIB // PAGE


def test_boot_memory_is_in_the_kernel_zones_by_default():
    """Without a word on the command line ZONE_MOVABLE is empty."""
    guest = Guest('ram = "4G"')

    zones = guest.kernel.nodes[0].zones
    assert zones["Movable"].present_pages == 0
    assert all(zones[name].present_pages for name in ("DMA", "DMA32", "Normal"))


@pytest.mark.parametrize(("word", "movable"), [("kernelcore=8G", 8 * GIB), ("movablecore=8G", 8 * GIB),
                                               ("kernelcore=25%", 12 * GIB), ("movablecore=50%", 8 * GIB)])
def test_kernelcore_and_movablecore_set_the_ratio(word, movable):
    """Boot memory in ZONE_MOVABLE, as much as asked for, rounded as the kernel does."""
    guest = Guest(f'ram = "16G"\ncmdline = "{word}"')

    present = guest.kernel.nodes[0].zones["Movable"].present_pages * PAGE
    assert abs(present - movable) <= 8 * MIB
    assert guest.read(f"{MEMORY}/memory{max(guest.kernel.blocks)}/valid_zones") == "Movable\n"
