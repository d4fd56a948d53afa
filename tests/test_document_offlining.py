"""Each line of the document's "Memory Offlining and ZONE_MOVABLE", brought about.

Document: Documentation/admin-guide/mm/memory-hotplug.rst.
"""

import errno
import re
import subprocess
from pathlib import Path

import needs
import pytest
from guest_kit import MEMORY, MOVABLE, Guest, Refused, Waiting
from host_kit import serving

from memhpfs.errors import CannotDissolve, Interrupted, SysError
from memhpfs.kernel.pages import Use
from memhpfs.units import GIB, MIB

PAGE = 4096
POOL_2M = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
#: As many pauses as an offlining that is stuck is let go on.
LONG = 300


def refusal(guest: Guest, block: int) -> int:
    """The errno of an offlining that ends by itself; everything is as before."""
    before = guest.statistics()

    with pytest.raises(SysError) as refused:
        guest.set_state(block, "offline")

    assert guest.statistics() == before
    return refused.value.errno


def stuck(guest: Guest, block: int) -> Waiting:
    """An offlining that does not end: the block is on its way out, and its memory is not allocated from."""
    waiting = guest.offline(block).go_on(LONG)

    assert not waiting.ended
    assert guest.state(block) == "going-offline"
    return waiting


# -- Blocks that never go offline -------------------------------------------------------------------------------------


def test_memory_holes_prevent_offlining():
    """A block of boot memory with a hole refuses with EINVAL."""
    guest = Guest("""
    [[ram]]
    start = 0x100000
    end = 0x40000000
    [[ram]]
    start = 0x40000000
    end = 0x47f00000
    """)

    assert refusal(guest, 8) == errno.EINVAL


def test_mixed_nodes_within_a_block_prevent_offlining():
    """A block of boot memory with memory of two nodes refuses with EINVAL, and tells of no zone."""
    guest = Guest("""
    node = [{id = 0}, {id = 1}]
    [[ram]]
    start = 0x100000
    end = 0x44000000
    [[ram]]
    start = 0x44000000
    end = 0x80000000
    node = 1
    """)

    assert guest.read(f"{MEMORY}/memory8/valid_zones") == "none\n"
    assert refusal(guest, 8) == errno.EINVAL


def test_mixed_zones_within_a_block_prevent_offlining():
    """The first block has memory of ZONE_DMA and ZONE_DMA32."""
    guest = Guest()

    assert guest.read(f"{MEMORY}/memory0/valid_zones") == "none\n"
    assert refusal(guest, 0) == errno.EINVAL


def test_special_blocks_are_kept_online_by_the_system():
    """Whoever must keep a block vetoes, with an errno of its own; here a fault stands for that part of the system."""
    guest = Guest()
    guest.qmp("x-fault-add", id="crashkernel", op="offline", block=33, errno="EPERM")

    assert refusal(guest, 33) == errno.EPERM
    guest.set_state(34, "offline")


def test_cma_prevents_offlining():
    """A block of boot memory that overlaps a CMA area refuses with EBUSY."""
    guest = Guest("""
    [[ram]]
    start = 0x100000
    end = 0x40000000
    [[ram]]
    start = 0x40000000
    end = 0x42000000
    kind = "cma"
    [[ram]]
    start = 0x42000000
    end = 0x80000000
    """)

    assert refusal(guest, 8) == errno.EBUSY
    guest.set_state(9, "offline")


@pytest.mark.parametrize("kind", ["slab", "pagetables", "kernel"])
def test_kernel_pages_prevent_offlining_where_there_is_no_zone_movable(kind):
    """Without ZONE_MOVABLE there is no guarantee: a block with memory of the kernel refuses with EBUSY."""
    guest = Guest('ram = "2G"')
    guest.fill("much", kind, GIB)
    use = {"slab": Use.SLAB, "pagetables": Use.PAGETABLES, "kernel": Use.KERNEL}[kind]
    [block, *_] = [b.id for b in guest.kernel.blocks.values() if b.zone and guest.kernel.pages.get(b.extents[0], use)]

    assert refusal(guest, block) == errno.EBUSY
    assert any(line == "page dumped because: unmovable page" for line in guest.said())


# -- What passes ------------------------------------------------------------------------------------------------------


def test_gigantic_allocation_at_the_same_time_is_a_temporary_failure():
    """While the kernel makes a gigantic page, the blocks that it takes refuse with EBUSY; the others do not."""
    guest = Guest('ram = "8G"\ntiming = {migration-rate = "1G"}')
    pool = "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages"
    allocating = guest.begin(pool, "1")
    assert not allocating.ended
    taken = next(b.id for b in guest.kernel.blocks.values() if b.zone and b.extents[0] in b.zone.pages.isolated)

    assert refusal(guest, taken) == errno.EBUSY
    guest.set_state(2, "offline")

    allocating.go_on()
    assert allocating.ended
    assert guest.read(pool) == "1\n"


def test_gigantic_allocation_leaves_alone_what_goes_offline():
    """The other way round a gigantic page is made elsewhere, or not at all."""
    guest = Guest('ram = "4G"\ntiming = {migration-rate = "1G"}')
    guest.fill("programs", "anon", 2 * GIB)
    block = next(b.id for b in guest.kernel.blocks.values()
                 if b.zone and b.id > 1 and guest.kernel.pages.get(b.extents[0], Use.ANON))
    waiting = guest.offline(block)

    guest.write("sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "4")
    assert guest.kernel.blocks[block].extents[0] in guest.kernel.blocks[block].zone.pages.isolated

    assert waiting.go_on(LONG).ended
    assert waiting.error is None


def hvo(text: str) -> str:
    return text.replace('online_movable"', 'online_movable hugetlb_free_vmemmap=on"')


@pytest.mark.parametrize("optimized", [False, True])
def test_out_of_memory_when_huge_pages_are_dissolved(optimized):
    """With HVO a free huge page needs memory for its map before it can be split; without it needs none."""
    guest = Guest(hvo(MOVABLE) if optimized else MOVABLE)
    guest.write(POOL_2M, "64")
    guest.fill("kernel", "kernel", guest.free_kernel_pages() * PAGE // 2)
    while fits(guest):
        pass

    if optimized:
        before = guest.statistics()
        with pytest.raises(CannotDissolve):
            guest.set_state(32, "offline")
        assert guest.statistics() == before
    else:
        guest.set_state(32, "offline")
        assert guest.state(32) == "offline"


def fits(guest: Guest) -> bool:
    """Fill the kernel zones a little more."""
    number = len(guest.qmp("x-query-workloads"))
    for size in (64 * MIB, MIB, 16 * 1024):
        try:
            guest.fill(f"kernel{number}", "kernel", size)
        except Refused:
            continue
        return True
    return False


def test_contents_of_huge_pages_move_although_dissolving_fails():
    """With HVO the used huge pages of the block are moved; it is the source that cannot be given back."""
    guest = Guest(hvo(MOVABLE))
    guest.write(POOL_2M, "128")
    guest.fill("database", "hugetlb-2M", 64 * MIB)
    while fits(guest):
        pass
    [here], [there] = guest.kernel.blocks[32].extents, guest.kernel.blocks[33].extents
    assert guest.kernel.pages.get(here, Use.HUGE_2M) == 64 * MIB // PAGE

    with pytest.raises(CannotDissolve):
        guest.set_state(32, "offline")

    assert guest.kernel.pages.get(there, Use.HUGE_2M) == 64 * MIB // PAGE
    assert guest.kernel.pages.get(here, Use.HUGE_2M) == 0
    assert guest.kernel.pages.get(here, Use.HUGE_2M_FREE) == 128 * MIB // PAGE


# -- What is tried again and again ------------------------------------------------------------------------------------


def test_out_of_memory_while_migrating_is_retried_until_it_succeeds():
    """Offlining goes on for as long as there is no room, and succeeds once there is."""
    guest = Guest()
    guest.fill("programs", "anon", GIB)
    guest.fill("others", "anon", guest.free_kernel_pages() * PAGE - 64 * MIB)
    waiting = stuck(guest, 32)
    assert re.search(r"migrating pfn 1[0-9a-f]{5} failed ret:-12\n.*\nanon flags: 0x1fffffc0020818"
                     r"\(uptodate\|dirty\|owner_2\|swapbacked\|node=0\|zone=3\|lastcpupid=0x1fffff\)\n"
                     "page dumped because: migration failure", "\n".join(guest.said()))

    guest.free("others")

    assert waiting.go_on(LONG).ended
    assert waiting.error is None
    assert guest.state(32) == "offline"


def test_unmovable_pages_in_zone_movable_are_retried_until_they_go():
    """Pages that are pinned there for short keep offlining from ending, until they are let go."""
    guest = Guest()
    guest.fill("io", "pinned", 64 * MIB, movable=True)
    waiting = stuck(guest, 32)

    guest.free("io")

    assert waiting.go_on(LONG).ended
    assert guest.state(32) == "offline"


def test_signal_ends_offlining():
    """A signal ends it with EINTR: the block is online, and what had not moved yet is used as before."""
    guest = Guest()
    guest.fill("io", "pinned", 64 * MIB, movable=True)
    guest.fill("programs", "anon", 512 * MIB)
    waiting = stuck(guest, 32)

    waiting.signal()

    assert isinstance(waiting.error, Interrupted)
    assert waiting.error.errno == errno.EINTR
    assert guest.state(32) == "online"
    assert not guest.kernel.nodes[0].zones["Movable"].pages.isolated
    assert guest.kernel.lock.owner is None


def test_timeout_ends_offlining(tmp_path):
    """`timeout` makes an offlining that gives up out of one that does not: real processes, on a mount."""
    needs.fuse()
    machine = tmp_path / "machine.toml"
    machine.write_text(MOVABLE + 'workload = [{id = "io", kind = "pinned", movable = true, size = "64M"}]\n')

    with serving(tmp_path / "m", "--machine", str(machine), "--qmp", str(tmp_path / "qmp")) as daemon:
        state = daemon.memory / "memory32/state"
        done = subprocess.run(["timeout", "0.3", "sh", "-c", f"echo offline > {state} || exit 1"], check=False)
        after = Path(state).read_text()

    assert done.returncode == 124
    assert after == "online\n"
