"""Huge pages under offlining: what is dissolved, what moves where, what stays, and what HVO makes of it."""

import errno
import re
from contextlib import suppress

import pytest
from guest_kit import MOVABLE, Guest, Refused

from memhpfs.errors import CannotDissolve, Interrupted, SysError
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.units import GIB, MIB

PAGE = 4096
PER_BLOCK = 128 * MIB // (2 * MIB)
POOLS = "sys/devices/system/node/node0/hugepages"
POOL_2M, POOL_1G = f"{POOLS}/hugepages-2048kB/nr_hugepages", f"{POOLS}/hugepages-1048576kB/nr_hugepages"
HVO = MOVABLE.replace('online_movable"', 'online_movable hugetlb_free_vmemmap=on"')
BIG = 'ram = "8G"'


def numbers(guest: Guest) -> dict[str, int]:
    return {label: int(value) for label, value in re.findall(r"^(\w+): +(\d+)", guest.read("proc/meminfo"), re.M)}


def in_block(guest: Guest, block: int, use: Use) -> int:
    """2 MiB pages of a block."""
    return guest.kernel.pages.get(guest.kernel.blocks[block].extents[0], use) // HUGE_2M_PAGES


# -- 2 MiB pages ------------------------------------------------------------------------------------------------------


def test_free_pages_are_dissolved():
    """The pool loses those of the block, and with them HugePages_Total."""
    guest = Guest()
    guest.write(POOL_2M, "100")
    assert in_block(guest, 32, Use.HUGE_2M_FREE) == PER_BLOCK

    guest.set_state(32, "offline")

    assert guest.read(POOL_2M) == f"{100 - PER_BLOCK}\n"
    assert numbers(guest)["HugePages_Total"] == numbers(guest)["HugePages_Free"] == 100 - PER_BLOCK


def test_used_pages_move_to_new_ones():
    """Without free pages in the pool new ones are made elsewhere: the pool keeps its size."""
    guest = Guest()
    guest.fill("database", "hugetlb-2M", 128 * MIB)
    before = numbers(guest)
    assert in_block(guest, 32, Use.HUGE_2M) == PER_BLOCK

    guest.set_state(32, "offline")

    after = numbers(guest)
    assert (after["HugePages_Total"], after["HugePages_Free"]) == (before["HugePages_Total"], 0)
    assert before["MemTotal"] - after["MemTotal"] == 128 * 1024


def test_used_pages_move_into_free_ones_of_the_pool():
    """The block's places in the pool are gone afterwards, as those of free pages are."""
    guest = Guest()
    guest.write(POOL_2M, str(2 * PER_BLOCK))
    guest.fill("database", "hugetlb-2M", 64 * MIB)
    assert in_block(guest, 32, Use.HUGE_2M) == 32

    guest.set_state(32, "offline")

    assert in_block(guest, 33, Use.HUGE_2M) == 32
    assert numbers(guest)["HugePages_Total"] == PER_BLOCK
    guest.free("database")
    assert numbers(guest)["HugePages_Free"] == PER_BLOCK


def test_used_pages_wait_for_room():
    """With memory full they stay, and offlining goes on until there is room."""
    guest = Guest()
    guest.fill("database", "hugetlb-2M", 128 * MIB)
    for number, size in enumerate((2 * GIB, GIB, 512 * MIB, 256 * MIB, 128 * MIB, 64 * MIB, 32 * MIB, 16 * MIB)):
        try:
            guest.fill(f"programs{number}", "anon", size)
        except Refused:
            continue
    waiting = guest.offline(32).go_on(100)
    assert not waiting.ended
    assert guest.state(32) == "going-offline"

    for workload in guest.qmp("x-query-workloads"):
        if workload["kind"] == "anon":
            guest.free(workload["id"])

    assert waiting.go_on(100).ended
    assert guest.state(32) == "offline"
    assert numbers(guest)["HugePages_Total"] == PER_BLOCK


def test_two_workloads_share_a_pool():
    """What one gives back is the pool's again; the other keeps what it uses."""
    guest = Guest()
    guest.write(POOL_2M, "100")
    guest.fill("one", "hugetlb-2M", 100 * MIB)
    guest.fill("two", "hugetlb-2M", 160 * MIB)
    assert numbers(guest)["HugePages_Total"] == 130

    guest.free("one")
    assert (numbers(guest)["HugePages_Total"], numbers(guest)["HugePages_Free"]) == (130, 50)

    guest.free("two")
    assert (numbers(guest)["HugePages_Total"], numbers(guest)["HugePages_Free"]) == (100, 100)


# -- reserved pages ---------------------------------------------------------------------------------------------------


def test_reserved_pages_are_not_dissolved():
    """Free pages that are promised refuse with EBUSY, and nothing has changed."""
    guest = Guest()
    guest.write(POOL_2M, str(PER_BLOCK))
    guest.fill("database", "hugetlb-2M", 128 * MIB, reserved=True)
    assert numbers(guest)["HugePages_Rsvd"] == numbers(guest)["HugePages_Free"] == PER_BLOCK
    before = guest.statistics()

    with pytest.raises(CannotDissolve) as refused:
        guest.set_state(32, "offline")

    assert refused.value.errno == errno.EBUSY
    assert guest.statistics() == before
    assert "failed due to failure to dissolve huge pages" in guest.said()[-1]

    guest.free("database")
    guest.set_state(32, "offline")


def test_pages_that_can_be_spared_go_first():
    """Those before the first that is promised are gone from the pool although offlining fails."""
    guest = Guest()
    guest.write(POOL_2M, str(PER_BLOCK))
    guest.fill("database", "hugetlb-2M", 64 * MIB, reserved=True)

    with pytest.raises(CannotDissolve):
        guest.set_state(32, "offline")

    assert guest.state(32) == "online"
    assert numbers(guest)["HugePages_Total"] == numbers(guest)["HugePages_Rsvd"] == 32


def test_reserved_pages_are_nobody_elses():
    """Others do not get them, and the pool does not shrink below them; a promise can make the pool grow."""
    guest = Guest()
    guest.write(POOL_2M, "40")
    guest.fill("promised", "hugetlb-2M", 100 * MIB, reserved=True)
    assert (numbers(guest)["HugePages_Total"], numbers(guest)["HugePages_Rsvd"]) == (50, 50)

    guest.fill("other", "hugetlb-2M", 20 * MIB)
    guest.write(POOL_2M, "0")

    assert (numbers(guest)["HugePages_Total"], numbers(guest)["HugePages_Free"]) == (60, 50)


@pytest.mark.parametrize("kind", ["anon", "hugetlb-1G", "kernel"])
def test_only_pages_of_2_mib_are_reserved(kind):
    """Other kinds say so."""
    with pytest.raises(Refused, match="only hugetlb-2M can"):
        Guest().fill("it", kind, GIB, reserved=True)


# -- gigantic pages ---------------------------------------------------------------------------------------------------


def test_free_gigantic_page_is_dissolved():
    """One block of eight goes offline: the whole page is gone from the pool, the other blocks are free."""
    guest = Guest(BIG)
    guest.write(POOL_1G, "1")
    [page] = guest.kernel.gigantic
    free = numbers(guest)["MemFree"]

    guest.set_state(page.block_ids[3], "offline")

    assert guest.read(POOL_1G) == "0\n"
    assert numbers(guest)["MemFree"] - free == 7 * 128 * 1024


def test_used_gigantic_page_moves_into_a_free_one():
    """It needs one that exists: none is made for it."""
    guest = Guest(BIG)
    guest.write(POOL_1G, "2")
    guest.fill("database", "hugetlb-1G", GIB)
    [used] = [page for page in guest.kernel.gigantic if page.used]

    guest.set_state(used.block_ids[0], "offline")

    [left] = guest.kernel.gigantic
    assert left.used
    assert left.block_ids != used.block_ids
    assert guest.read(POOL_1G) == "1\n"


def test_used_gigantic_page_stays_where_there_is_no_free_one():
    """Offlining does not end by itself, however much memory is free; a signal ends it."""
    guest = Guest(BIG)
    guest.fill("database", "hugetlb-1G", GIB)
    [page] = guest.kernel.gigantic
    before = guest.statistics()
    waiting = guest.offline(page.block_ids[0]).go_on(200)
    assert guest.state(page.block_ids[0]) == "going-offline"

    waiting.signal()

    assert isinstance(waiting.error, Interrupted)
    assert guest.statistics() == before
    assert page.used


def test_gigantic_allocation_and_offlining_take_turns():
    """What refuses while the page is made goes offline once it is there, and takes the page away again."""
    guest = Guest(BIG + '\ntiming = {migration-rate = "1G"}')
    allocating = guest.begin(POOL_1G, "1")
    [block, *_] = [b.id for b in guest.kernel.blocks.values() if b.zone and b.extents[0] in b.zone.pages.isolated]
    with pytest.raises(SysError) as refused:
        guest.set_state(block, "offline")
    assert refused.value.errno == errno.EBUSY
    assert not any("page dumped" in line for line in guest.said())

    assert allocating.go_on().ended
    guest.set_state(block, "offline")

    assert guest.read(POOL_1G) == "0\n"


# -- HVO --------------------------------------------------------------------------------------------------------------


def test_hvo_saves_memory():
    """Seven of eight pages in the memory map of a huge page are free memory."""
    plain, optimized = Guest(), Guest(HVO)

    for guest in (plain, optimized):
        guest.write(POOL_2M, "64")

    assert numbers(optimized)["MemFree"] - numbers(plain)["MemFree"] == 64 * 7 * 4


def test_hvo_saves_nearly_all_of_a_gigantic_map():
    """All but one of 4096 pages."""
    plain, optimized = Guest(BIG), Guest(BIG + '\ncmdline = "hugetlb_free_vmemmap=on"')

    for guest in (plain, optimized):
        guest.write(POOL_1G, "1")

    assert numbers(optimized)["MemFree"] - numbers(plain)["MemFree"] == 4095 * 4


def test_hvo_needs_it_back_when_pages_are_dissolved():
    """What dissolving gives back is the pages less their memory maps, every time."""
    guest = Guest(HVO)
    before = numbers(guest)["MemFree"]

    for _ in range(3):
        guest.write(POOL_2M, str(PER_BLOCK))
        assert numbers(guest)["MemFree"] == before - PER_BLOCK * (2048 - 7 * 4)
        [block] = [block for block in range(32, 40) if in_block(guest, block, Use.HUGE_2M_FREE)]
        guest.set_state(block, "offline")
        guest.set_state(block, "online_movable")
        assert numbers(guest)["MemFree"] == before


def test_hvo_keeps_a_pool_that_it_cannot_split():
    """Without memory in the kernel zones the pool does not shrink; once there is some it does."""
    guest = Guest(HVO)
    guest.write(POOL_2M, "64")
    guest.fill("spare", "kernel", 64 * 7 * PAGE)
    for halving in range(19):
        with suppress(Refused):
            guest.fill(f"kernel-{halving}", "kernel", GIB >> halving)

    guest.write(POOL_2M, "0")
    assert guest.read(POOL_2M) == "64\n"
    guest.free("spare")
    guest.write(POOL_2M, "0")

    assert guest.read(POOL_2M) == "0\n"
