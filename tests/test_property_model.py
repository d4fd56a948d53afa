"""The model under everything at once: Ops that interleave, faults, garbage, signals, and callers that go away.

After each step all counters add up; whatever was refused has changed nothing; and nothing but a SysError ever comes
out of a file.
"""

import errno
import os
from collections.abc import Callable, Generator
from functools import partial

from agreement import agree
from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memhpfs.errors import SysError
from memhpfs.kernel import dimm
from memhpfs.kernel.boot import boot
from memhpfs.kernel.check import check
from memhpfs.kernel.faults import OPERATIONS, add_fault, delete_fault
from memhpfs.kernel.features import RELEASES
from memhpfs.kernel.pause import Nudge, Op, Pause
from memhpfs.kernel.spec import BootParams, MemmapMode, NodeSpec, OnlinePolicy, RamKind, RamRange, Spec
from memhpfs.kernel.state import BlockState, Fault, Kernel
from memhpfs.kernel.workload import KINDS, add_workload, delete_workload
from memhpfs.sysfs.files import OpenFile
from memhpfs.sysfs.tree import Tree
from memhpfs.units import GIB, MIB, align_up

BLOCK, BLOCK_PAGES = 128 * MIB, 32768
MEMORY = "/sys/devices/system/memory"
PARAMETERS = "/sys/module/memory_hotplug/parameters"
ACTIONS = "/sys/kernel/debug/notifier-error-inject/memory/actions"
MAX_OPS = 4
#: Boot RAM of node 0 is blocks 0 to 7; DIMMs go to 32 and up.  Some machines have special blocks, or two nodes.
END = GIB - 0x20000
PLAIN = (RamRange(0x1000, 0x9FC00), RamRange(MIB, END))
SPECIAL = (
    RamRange(0x1000, 0x9FC00), RamRange(MIB, 4 * BLOCK),
    RamRange(4 * BLOCK, 5 * BLOCK, kind=RamKind.UNMOVABLE), RamRange(5 * BLOCK, 6 * BLOCK, kind=RamKind.CMA),
    RamRange(6 * BLOCK, 7 * BLOCK, kind=RamKind.MOVABLE), RamRange(7 * BLOCK, END),
)
TWO_NODES = (RamRange(0x1000, 0x9FC00), RamRange(MIB, 3 * BLOCK + 5 * MIB), RamRange(3 * BLOCK + 5 * MIB, END, node=1))
BLOCKS = st.one_of(st.integers(0, 8), st.integers(32, 41))
STATES = st.sampled_from(["online", "offline", "online_kernel", "online_movable\n", "offline\n"])
WORDS = st.sampled_from([
    "online", "offline", "1", "0", "-12", "auto", "on", "add", "remove", "change 0", "", "\n", "junk", "online\0junk",
    "auto-movable", "contig-zones", "18446744073709551616", "0x100000000", "0x20000000", "4096", "memory3", "node0",
])
GARBAGE = st.one_of(st.binary(max_size=20), st.text(max_size=8).map(str.encode), WORDS.map(str.encode))


@define(eq=False)
class Running:
    """An Op on its way.

    Attributes:
        before: summary of the kernel when it began, if a refusal must leave that as it was.
        undoes: whether that is also so when the caller goes away half way.
        moves: how many steps anybody had made when it last stopped.
        slot: the DIMM slot it is about.
        alone: whether nobody else has made one meanwhile.
    """

    op: Op
    before: object
    undoes: bool
    moves: int
    slot: int | None = None
    alone: bool = True


def summary(kernel: Kernel) -> object:
    """All that a refused step must leave alone, as plain values.

    Not the requested zone type that stays with a block, counted faults, and pages that had moved already: Linux keeps
    those too.  Nor what HVO has added to the managed pages, which stays there; nor the hole after the end of boot
    memory, which a span that shrinks back may take in.
    """
    hvo = kernel.spec.hugetlb_free_vmemmap
    return (
        [(b.id, b.state, b.device_offline, b.zone and (b.zone.node_id, b.zone.name), b.node_ids, b.serial,
          b.present_pages, b.vmemmap_pages, b.nr_hwpoison) for b in kernel.blocks.values()],
        [(n.id, n.online, n.has_memory, n.has_normal_memory, n.serial, sorted(n.links)) for n in kernel.nodes.values()],
        [(z.node_id, z.name, z.start_pfn, align_up(z.end_pfn, BLOCK_PAGES), z.present_pages,
          hvo or z.managed_pages, z.cma_pages) for n in kernel.nodes.values() for z in n.zones.values()],
        [(g.node_id, g.max_pages, sorted(g.blocks), g.present_kernel_pages, g.present_movable_pages)
         for g in kernel.groups],
        [(r.start, r.end, r.name) for r in kernel.iomem],
        (kernel.params.auto_online, kernel.params.online_policy, kernel.params.auto_movable_ratio,
         kernel.params.auto_movable_numa_aware, kernel.params.memmap_on_memory),
        (dict(kernel.poisoned), sorted(kernel.firmware.items()), sorted(kernel.workloads), dict(kernel.power),
         dict(kernel.notifier.inject), kernel.lock.owner),
    )


def attempt(call: Callable[[], object]) -> tuple[object, SysError | None]:
    """What a call returns, or its refusal, which always has an errno; nothing else may come out."""
    try:
        return call(), None
    except SysError as error:
        refusal = error
    assert refusal.errno > 0
    return None, refusal


class Machine(RuleBasedStateMachine):
    """One machine and everybody who acts on it."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Running] = []
        self.open_files: list[OpenFile] = []
        self.moves = self.names = 0

    @initialize(release=st.sampled_from(list(RELEASES)), ram=st.sampled_from([PLAIN, SPECIAL, TWO_NODES]),
                rate=st.sampled_from([0, GIB]), kernelcore=st.sampled_from([0, 0, 400 * MIB]),
                policy=st.sampled_from(list(OnlinePolicy)), movable_node=st.booleans(), hvo=st.booleans())
    def boot(
        self, release: str, ram: tuple[RamRange, ...], rate: int, kernelcore: int, policy: OnlinePolicy,
        movable_node: bool, hvo: bool,
    ) -> None:
        params = BootParams(kernelcore_bytes=kernelcore, online_policy=policy, movable_node=movable_node)
        spec = Spec(release, "x86_64", ram, (NodeSpec(0, (0, 1)), NodeSpec(1)), params=params, migration_rate=rate,
                    hugetlb_free_vmemmap=hvo, with_files=frozenset({"probe"}))
        self.kernel = boot(spec)
        self.tree = Tree(self.kernel, lambda: 0)

    # -- acting -----------------------------------------------------------------------------------------------

    def find(self, path: str) -> int | None:
        ino = self.tree.ROOT
        try:
            for name in path.strip("/").split("/"):
                ino = self.tree.lookup(ino, name)
        except SysError:
            return None
        return ino

    def files(self) -> list[int]:
        """All regular files."""
        found, left = [], [self.tree.ROOT]
        while left:
            for item in self.tree.children(left.pop()):
                kind = self.tree.attributes(item.ino).mode >> 12
                (left if kind == 4 else found if kind == 8 else []).append(item.ino)
        return found

    def begin(self, op: Op, *, all_or_nothing: bool = True, undoes: bool = False, slot: int | None = None) -> None:
        """Start an Op; from now on others step as well."""
        self.moves += 1
        before = summary(self.kernel) if all_or_nothing else None
        self.running.append(Running(op, before, undoes, self.moves, slot))
        self.step_one(len(self.running) - 1, None)

    def step_one(self, index: int, nudge: Nudge | None) -> None:
        """Let one Op go on to its next pause; a refusal must have changed nothing."""
        running = self.running[index]
        running.alone = running.alone and running.moves == self.moves
        self.moves += 1
        running.moves = self.moves
        pause, refusal = attempt(lambda: self.resume(running.op, nudge))
        if pause is None:
            self.running.remove(running)
        if refusal and running.alone and running.before is not None:
            assert summary(self.kernel) == running.before, f"{refusal!r} left something behind"

    @staticmethod
    def resume(op: Op, nudge: Nudge | None) -> Pause | None:
        """The next pause of an Op, or None at its end."""
        try:
            return next(op) if nudge is None else op.send(nudge)
        except StopIteration:
            return None

    def write(self, ino: int, data: bytes, *, all_or_nothing: bool = True, undoes: bool = False) -> None:
        """One write to a file, whatever its mode."""
        before = summary(self.kernel)
        result, refusal = attempt(lambda: self.tree.write(ino, data))
        if refusal:
            assert not all_or_nothing or summary(self.kernel) == before
        elif isinstance(result, Generator):
            if len(self.running) < MAX_OPS:
                self.begin(result, all_or_nothing=all_or_nothing, undoes=undoes)
            else:
                result.close()
        else:
            self.moves += 1
            assert result == min(len(data), 4096)

    def put(self, path: str, text: str, *, undoes: bool = False) -> None:
        ino = self.find(path)
        if ino is not None:
            self.write(ino, text.encode("latin1"), undoes=undoes)

    # -- rules ------------------------------------------------------------------------------------------------

    @rule(slot=st.integers(0, 2), block=st.integers(31, 40), blocks=st.integers(0, 4), node=st.integers(0, 2),
          shift=st.sampled_from([0, 0, 0, 0, MIB]))
    def plug(self, slot: int, block: int, blocks: int, node: int, shift: int) -> None:
        """Hardware asks for one thing of a slot at a time."""
        busy = slot in self.kernel.firmware or slot in [running.slot for running in self.running]
        if len(self.running) < MAX_OPS and not busy:
            self.begin(dimm.plug(self.kernel, slot, block * BLOCK + shift, blocks * BLOCK, node), slot=slot)

    @rule(slot=st.integers(0, 2))
    def eject(self, slot: int) -> None:
        """Refused, it puts blocks online again, which may take them to another zone."""
        if len(self.running) < MAX_OPS:
            self.begin(dimm.eject(self.kernel, slot), all_or_nothing=False, slot=slot)

    @rule(block=BLOCKS, word=STATES)
    def write_state(self, block: int, word: str) -> None:
        self.put(f"{MEMORY}/memory{block}/state", word, undoes=True)

    @rule(block=BLOCKS, word=st.sampled_from(["1", "0", "on", "off\n"]))
    def write_online(self, block: int, word: str) -> None:
        self.put(f"{MEMORY}/memory{block}/online", word, undoes=True)

    @rule(word=STATES)
    def write_auto_online(self, word: str) -> None:
        self.put(f"{MEMORY}/auto_online_blocks", word)

    @rule(policy=st.sampled_from(list(OnlinePolicy)), ratio=st.sampled_from([0, 20, 100, 301, 1 << 31]),
          numa_aware=st.booleans())
    def write_parameters(self, policy: OnlinePolicy, ratio: int, numa_aware: bool) -> None:
        self.put(f"{PARAMETERS}/online_policy", policy.value)
        self.put(f"{PARAMETERS}/auto_movable_ratio", str(ratio))
        self.put(f"{PARAMETERS}/auto_movable_numa_aware", "ny"[numa_aware])

    @rule(mode=st.sampled_from(list(MemmapMode)))
    def reboot_with_memmap(self, mode: MemmapMode) -> None:
        """Nobody can change it at run time; here it stands for another command line."""
        if not self.running:
            self.kernel.params.memmap_on_memory = mode

    @rule(block=BLOCKS, action=st.sampled_from(["add", "online", "change", "junk", "add x=1"]))
    def write_uevent(self, block: int, action: str) -> None:
        self.put(f"{MEMORY}/memory{block}/uevent", action)

    @rule(block=st.integers(30, 42), shift=st.sampled_from([0, 0, 1]))
    def probe(self, block: int, shift: int) -> None:
        self.put(f"{MEMORY}/probe", f"{block * BLOCK + shift:#x}")

    @rule(block=BLOCKS, page=st.sampled_from([0, 1, 5000, 32767]), hard=st.booleans())
    def poison(self, block: int, page: int, hard: bool) -> None:
        """A page that the kernel itself uses counts as poisoned although the write fails."""
        ino = self.find(f"{MEMORY}/{'hard' if hard else 'soft'}_offline_page")
        assert ino is not None
        self.write(ino, f"{block * BLOCK + page * 4096:#x}".encode(), all_or_nothing=False)

    @rule(action=st.sampled_from(["MEM_GOING_ONLINE", "MEM_GOING_OFFLINE"]), number=st.sampled_from([0, 0, -12, -16]))
    def veto(self, action: str, number: int) -> None:
        self.put(f"{ACTIONS}/{action}/error", str(number))

    @rule(operation=st.sampled_from(OPERATIONS), block=st.none() | BLOCKS, count=st.sampled_from([1, 2]))
    def add_fault(self, operation: str, block: int | None, count: int) -> None:
        self.moves += 1
        self.names += 1
        add_fault(self.kernel, Fault(f"f{self.names}", operation, errno.ENOMEM, block, count))

    @rule()
    def delete_faults(self) -> None:
        self.moves += 1
        for name in list(self.kernel.faults):
            delete_fault(self.kernel, name)

    @rule(kind=st.sampled_from(list(KINDS)), size=st.sampled_from([0, 1, 300 * MIB, GIB, 4 * GIB]),
          node=st.sampled_from([None, 0, 1]), how=st.sampled_from(["", "", "movable", "reserved"]))
    def add_workload(self, kind: str, size: int, node: int | None, how: str) -> None:
        self.moves += 1
        self.names += 1
        before = summary(self.kernel)
        try:
            add_workload(self.kernel, f"w{self.names}", kind, size, node, movable=how == "movable",
                         reserved=how == "reserved")
        except SysError:
            assert summary(self.kernel) == before

    @rule(node=st.integers(0, 1), size_kb=st.sampled_from([2048, 1048576]), pages=st.sampled_from([0, 1, 40, 600]))
    def resize_pool(self, node: int, size_kb: int, pages: int) -> None:
        self.moves += 1
        ino = self.find(f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size_kb}kB/nr_hugepages")
        if ino is not None:
            self.write(ino, str(pages).encode(), all_or_nothing=False)

    @rule(which=st.integers(0, 5))
    def delete_workload(self, which: int) -> None:
        names = list(self.kernel.workloads)
        if names:
            self.moves += 1
            delete_workload(self.kernel, names[which % len(names)])

    @rule(which=st.integers(0, 10_000), data=GARBAGE)
    def write_garbage(self, which: int, data: bytes) -> None:
        """Any bytes to any file, also to those that nobody may write."""
        files = self.files()
        self.write(files[which % len(files)], data, all_or_nothing=False)

    @rule(which=st.integers(0, MAX_OPS), nudge=st.sampled_from([Nudge.GO, Nudge.GO, Nudge.GO, Nudge.SIGNAL]))
    def step(self, which: int, nudge: Nudge) -> None:
        if self.running:
            self.step_one(which % len(self.running), nudge)

    @rule(which=st.integers(0, MAX_OPS))
    def finish(self, which: int) -> None:
        """Let one Op run as far as it gets."""
        if self.running:
            running = self.running[which % len(self.running)]
            for _ in range(40):
                if running not in self.running:
                    break
                self.step_one(self.running.index(running), Nudge.GO)

    @rule(which=st.integers(0, MAX_OPS))
    def give_up(self, which: int) -> None:
        """The caller dies: a block that was on its way is back; memory that was added stays."""
        if self.running:
            running = self.running.pop(which % len(self.running))
            alone = running.alone and running.moves == self.moves
            self.moves += 1
            running.op.close()
            if alone and running.undoes:
                assert summary(self.kernel) == running.before

    @rule()
    def drain(self) -> None:
        for entry in self.kernel.journal.drain():
            self.tree.stale(entry)

    @rule()
    def read_everything(self) -> None:
        """Every file has a text or an errno, and every directory's names lead to what it lists."""
        for ino in self.files():
            self.tree.attributes(ino)
            file = OpenFile(self.tree, ino)
            text, refusal = attempt(partial(file.read, 0, 1 << 20))
            if isinstance(text, Generator):
                text.close()
            else:
                assert refusal or isinstance(text, bytes)

    @rule(block=BLOCKS, name=st.sampled_from(["state", "valid_zones", "online"]))
    def keep_open(self, block: int, name: str) -> None:
        ino = self.find(f"{MEMORY}/memory{block}/{name}")
        if ino is not None:
            self.open_files = [*self.open_files[-5:], OpenFile(self.tree, ino)]

    @rule()
    def use_open_files(self) -> None:
        """Descriptors of removed devices answer ENODEV, whatever came to the same name since."""
        for file in self.open_files:
            alive = self.tree.exists(file.ino)
            file.poll()
            text, refusal = attempt(partial(file.read, 0, 4096))
            assert alive == (refusal is None)
            assert alive or refusal.errno == errno.ENODEV
            if isinstance(text, Generator):
                text.close()

    # -- always -----------------------------------------------------------------------------------------------

    @invariant()
    def all_adds_up(self) -> None:
        """The counters of the model, and all files of statistics with each other."""
        agree(self.kernel)

    def teardown(self) -> None:
        """When everybody is gone, nothing is held and no block is on its way."""
        while self.running:
            self.running.pop().op.close()
            check(self.kernel)
        assert self.kernel.lock.owner is None
        assert not any(block.state is BlockState.GOING_OFFLINE for block in self.kernel.blocks.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "200")), stateful_step_count=50, deadline=None,
    derandomize="MODEL_EXAMPLES" not in os.environ,
)
