"""All statistics agree with each other at every moment, whatever was plugged, onlined, used or poisoned before."""

from contextlib import suppress
from itertools import count

import pytest
from agreement import agree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proc_texts import RELEASES, machine, meminfo, pages_of, pagetypes

from memhpfs.errors import SysError
from memhpfs.kernel import dimm
from memhpfs.kernel.device import state_store
from memhpfs.kernel.pause import Nudge, Op
from memhpfs.kernel.poison import hard_offline_page
from memhpfs.kernel.spec import MemmapMode, OnlineType
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.workload import add_workload, delete_workload
from memhpfs.units import GIB, MIB

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
