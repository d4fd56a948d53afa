"""Where memory comes from: zone lists, other nodes, blocks that are new; and what the counts themselves cost."""

from array import array

import pytest
from guest_kit import MOVABLE, Guest, Refused

from memhpfs.errors import Unmovable
from memhpfs.kernel.pages import NR_USES, PageCounts, Use, ZonePages
from memhpfs.units import GIB, MIB, TIB

PAGE = 4096
NODES = """
node = [
  {id = 0, ram = "2G", distances = [10, 30, 20]},
  {id = 1, ram = "2G", distances = [30, 10, 20]},
  {id = 2, ram = "2G", distances = [20, 20, 10]},
]
ram = "6G"
"""


def used(guest: Guest, use: Use) -> dict[int, int]:
    """Bytes of a use on each node that has some beyond what boot left there."""
    totals = {node.id: sum(zone.pages.totals[use] for zone in node.zones.values()) * PAGE
              for node in guest.kernel.nodes.values()}
    return {node_id: count for node_id, count in totals.items() if count > 64 * MIB}


def test_a_full_node_falls_back_to_the_nearest():
    """What does not fit on node 0 goes to node 2, which is nearer than node 1."""
    guest = Guest(NODES)

    guest.fill("programs", "anon", 3 * GIB)

    found = used(guest, Use.ANON)
    assert set(found) == {0, 2}
    assert found[0] > found[2]


def test_a_workload_of_one_node_stays_there():
    """Bound to a node it does not fall back, and fails when that is full."""
    guest = Guest(NODES)
    guest.fill("programs", "anon", GIB, node=1)

    assert set(used(guest, Use.ANON)) == {1}
    with pytest.raises(Refused, match="do not fit"):
        guest.fill("more", "anon", 2 * GIB, node=1)


def test_newly_onlined_memory_is_used_last():
    """Boot memory of the zone is used first; then new blocks in the order in which they came."""
    guest = Guest('ram = "6G"\ncmdline = "memhp_default_state=online"\ndimm = [{id = "d0", size = "1G"}]')
    new = range(56, 64)

    guest.fill("some", "anon", GIB)
    assert all(guest.kernel.pages.get(guest.kernel.blocks[block].extents[0], Use.ANON) == 0 for block in new)

    guest.fill("more", "anon", 2 * GIB + 300 * MIB)
    full = [guest.kernel.pages.get(guest.kernel.blocks[block].extents[0], Use.ANON) for block in new]
    assert full == sorted(full, reverse=True)
    assert full[0] > full[-1]


@pytest.mark.parametrize("kind", ["slab", "pagetables", "kernel", "pinned", "balloon"])
def test_unmovable_memory_never_comes_from_zone_movable(kind):
    """Half a GiB of it, with ZONE_MOVABLE empty: not a page goes there."""
    guest = Guest(MOVABLE)

    guest.fill("it", kind, 512 * MIB)

    assert guest.pages("Movable", Use.FREE) == GIB // PAGE


@pytest.mark.parametrize(("kernel", "node", "first", "stays"), [
    ("6.12", 0, "online_kernel", True),
    ("6.12", 1, "online_kernel", False),
    ("7.3", 1, "online_kernel", True),
    ("7.3", 1, "online_movable", False),
    ("7.3", 0, "online_movable", True),
])
def test_slab_moves_into_a_kernel_zone_that_was_empty(kernel, node, first, stays):
    """Where there is a CPU, at once; elsewhere at most a new node's own kswapd, and Movable cannot hold that."""
    guest = Guest(f'kernel = "{kernel}"\nram = "2G"\nnode = [{{id = 0, ram = "2G"}}, {{id = 1}}]\n'
                  'cmdline = "memhp_default_state=offline"')
    guest.plug("d0", 256 * MIB, node)
    guest.set_state(32, first)
    block = 32 if first == "online_kernel" else 33
    guest.set_state(33, "online_kernel")

    if stays:
        with pytest.raises(Unmovable):
            guest.set_state(block, "offline")
    else:
        guest.set_state(block, "offline")


def test_a_kernel_zone_can_be_emptied_when_the_memory_map_in_it_is_gone():
    """A block of a node without CPUs holds the memory map of what is plugged there later, and nothing else."""
    guest = Guest('ram = "2G"\nnode = [{id = 0, ram = "2G"}, {id = 1}]\ncmdline = "memhp_default_state=online_kernel"')
    guest.plug("d0", 128 * MIB, 1)
    guest.plug("d1", 128 * MIB, 1)
    with pytest.raises(Unmovable):
        guest.set_state(32, "offline")

    guest.set_state(33, "offline")
    guest.unplug("d1")
    guest.set_state(32, "offline")


def test_what_is_freed_is_free():
    """A workload leaves all counts as it found them."""
    guest = Guest(MOVABLE)
    before = guest.read("proc/meminfo")

    for kind in ("anon", "file", "hugetlb-2M", "slab", "pinned", "balloon"):
        guest.fill("it", kind, 300 * MIB)
        guest.free("it")

    assert guest.read("proc/meminfo") == before


def test_counts_of_64_tib_are_small():
    """All counts of half a million blocks take less than 15 MB."""
    pages_per_block = 128 * MIB // PAGE
    counts, zone = PageCounts(pages_per_block), ZonePages()
    blocks = 64 * TIB // (128 * MIB)
    counts.counts = array(counts.counts.typecode, bytes(counts.counts.itemsize * NR_USES * blocks))

    assert len(counts.counts) == blocks * NR_USES
    assert counts.counts.itemsize * len(counts.counts) < 15_000_000
    assert counts.new_extent(zone, pages_per_block) == blocks
