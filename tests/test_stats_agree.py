"""All statistics agree with each other at every moment, whatever was plugged, onlined, used or poisoned before."""

from contextlib import suppress
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proc_texts import (
    RELEASES,
    buddyinfo,
    machine,
    meminfo,
    node_meminfo,
    pages_of,
    pagetypes,
    pairs,
    vmstat,
    zoneinfo,
)

from memhpfs.errors import SysError
from memhpfs.kernel import dimm
from memhpfs.kernel.check import check
from memhpfs.kernel.device import state_store
from memhpfs.kernel.pause import Nudge, Op
from memhpfs.kernel.poison import hard_offline_page
from memhpfs.kernel.spec import MemmapMode, OnlineType
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.workload import add_workload, delete_workload
from memhpfs.sysfs.nodestat import node_vmstat_show
from memhpfs.units import GIB, MIB

SHARED = (
    "MemTotal", "MemFree", "Active", "Inactive", "Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)",
    "Unevictable", "Mlocked", "AnonPages", "Mapped", "Shmem", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim",
    "KernelStack", "PageTables", "HugePages_Total", "HugePages_Free",
)
NAMES = count()
ORDER = st.sampled_from([OnlineType.ONLINE, OnlineType.KERNEL, OnlineType.MOVABLE, OnlineType.OFFLINE])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("plug"), st.integers(0, 3), st.integers(1, 3), st.integers(0, 1)),
        st.tuples(st.just("eject"), st.integers(0, 3)),
        st.tuples(st.just("state"), st.integers(0, 11), ORDER),
        st.tuples(st.just("state"), st.integers(30, 50), ORDER),
        st.tuples(st.just("use"), st.sampled_from(["anon", "file", "shm", "mlock", "slab", "kernel", "hugetlb-2M",
                                                   "balloon", "pagetables"]), st.integers(1, 700)),
        st.tuples(st.just("free")),
        st.tuples(st.just("poison"), st.integers(0, 11)),
    ),
    max_size=12,
)


def agree(kernel: Kernel) -> None:
    check(kernel)
    info, events, zones = meminfo(kernel), vmstat(kernel), zoneinfo(kernel)
    nodes = {node.id: node_meminfo(kernel, node.id) for node in kernel.nodes.values() if node.online}
    for label in SHARED:
        assert info[label] == sum(node[label] for node in nodes.values()), label
    assert info["MemTotal"] == 4 * sum(zone["managed"] for zone in zones.values())
    assert info["MemFree"] == 4 * events["nr_free_pages"]
    assert 0 <= info["MemAvailable"] <= info["MemTotal"]
    assert info["Active"] + info["Inactive"] + info["Unevictable"] <= info["MemTotal"] - info["MemFree"]
    assert info["Cached"] + info["Buffers"] == 4 * events["nr_file_pages"]
    for node_id, node in nodes.items():
        mine = [zone for key, zone in zones.items() if key[0] == node_id]
        assert node["MemTotal"] == 4 * sum(zone["managed"] for zone in mine)
        assert node["MemFree"] == 4 * sum(zone["free"] for zone in mine)
        assert node["MemUsed"] == node["MemTotal"] - node["MemFree"]
    agree_items(kernel, zones, events)
    agree_free(kernel, zones)


def agree_items(kernel: Kernel, zones: dict, events: dict[str, int]) -> None:
    nodes = [pairs(node_vmstat_show(kernel, node)) for node in kernel.nodes.values() if node.online]
    for name in nodes[0]:
        assert events[name] == sum(node[name] for node in nodes), name
    for name in ("nr_free_pages", "nr_zone_inactive_anon", "nr_zone_active_file", "nr_mlock"):
        assert events[name] == sum(zone.get(name, 0) for zone in zones.values()), name


def agree_free(kernel: Kernel, zones: dict) -> None:
    orders, types = buddyinfo(kernel), pagetypes(kernel)
    assert orders.keys() == types.keys() == {key for key, zone in zones.items() if zone["present"]}
    for key, zone in zones.items():
        counts = orders.get(key, [])
        assert zone["free"] == pages_of(counts)
        assert 0 <= zone["free"] <= zone["managed"] <= zone["present"] <= zone["spanned"]
        by_type = [row for name, row in types.get(key, {}).items() if name != "Isolate"]
        assert counts == [sum(column) for column in zip(*by_type, strict=True)]
        assert ("start_pfn" in zone) == bool(zone["spanned"])
        assert zone["min"] <= zone["low"] <= zone["high"]


def run(kernel: Kernel, op: Op[None]) -> None:
    """Run an Op, and look at everything at each of its pauses; give up when it makes no progress."""
    try:
        next(op)
        for turn in range(80):
            agree(kernel)
            op.send(Nudge.SIGNAL if turn > 60 else Nudge.GO)
        op.close()
    except (StopIteration, SysError):
        pass


def act(kernel: Kernel, step: tuple) -> None:
    kind, *words = step
    if kind == "plug" and words[0] not in kernel.firmware:
        slot, blocks, node_id = words
        run(kernel, dimm.plug(kernel, slot, 8 * GIB + slot * GIB, blocks * 128 * MIB, node_id))
    elif kind == "eject":
        run(kernel, dimm.eject(kernel, words[0]))
    elif kind == "state":
        ids = sorted(kernel.blocks)
        block = kernel.blocks[words[0] if words[0] in kernel.blocks else ids[-1 - words[0] % len(ids)]]
        run(kernel, state_store(kernel, block, words[1]))
    elif kind == "use":
        add_workload(kernel, f"w{next(NAMES)}", words[0], words[1] * MIB)
    elif kind == "free" and kernel.workloads:
        delete_workload(kernel, next(iter(kernel.workloads)))
    elif kind == "poison":
        hard_offline_page(kernel, 8 * GIB + words[0] * 64 * MIB + 0x7000)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("memmap", [MemmapMode.NO, MemmapMode.YES])
@given(steps=STEPS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_lives(release, memmap, steps):
    """Whatever happens in whatever order, the files tell the same story."""
    kernel = machine(release, memmap)
    agree(kernel)
    for step in steps:
        with suppress(SysError):
            act(kernel, step)
        agree(kernel)


def test_isolated_pages_are_not_free():
    """While a block is being offlined its free pages are neither in MemFree nor in buddyinfo; MemTotal has them."""
    kernel = machine()
    before = meminfo(kernel)
    op = state_store(kernel, kernel.blocks[34], OnlineType.OFFLINE)
    next(op)
    during = meminfo(kernel)

    assert during["MemTotal"] == before["MemTotal"]
    assert before["MemFree"] - during["MemFree"] == 131072
    assert pages_of(pagetypes(kernel)[0, "Normal"]["Isolate"]) == 32768
    agree(kernel)
    op.close()
    assert meminfo(kernel) == before
