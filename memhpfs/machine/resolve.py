"""What the values of a machine file mean together: from its tables to a Machine.

Everything that Linux or QEMU would refuse, or silently lose, is refused here with the key that is wrong.
"""

import difflib
import re
from collections.abc import Container
from itertools import pairwise
from typing import NoReturn

from memhpfs.errors import UserError
from memhpfs.kernel.features import OPTIONAL_FILES, RELEASES, features_of
from memhpfs.kernel.geometry import ARCHES, block_size_of
from memhpfs.kernel.spec import NodeSpec, RamKind, RamRange, Spec
from memhpfs.kernel.workload import KINDS
from memhpfs.machine.cmdline import parse_cmdline
from memhpfs.machine.description import Dimm, Filling, Machine, installed_bytes
from memhpfs.machine.file import MachineFile, NodeTable
from memhpfs.machine.layout import hotplug_base_of, qemu_ram
from memhpfs.units import GIB, MIB, TIB, align_up, format_size

__all__ = ["cpu_list", "resolve"]

_DEFAULT_RAM, _DEFAULT_MAXMEM = 4 * GIB, 64 * GIB
_MAX_NODE, _MAX_SLOTS, _MAX_CPU = 1023, 256, 8191
#: What 46 bits of physical addresses reach.
_MAX_ADDRESS = 64 * TIB
_PAGE = 4096
#: Kinds of RAM in which nothing is free.
_FIXED = (RamKind.UNMOVABLE.value, RamKind.CMA.value)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_CPU_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


class _Check:
    """Refusals that name the file."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, key: str, what: str) -> NoReturn:
        raise UserError(f"{self.where}: {key}: {what}", exit_code=2)

    def word(self, key: str, value: str, allowed: list[str]) -> None:
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.fail(key, f"{value!r:.60} is not known; allowed are {', '.join(allowed)}{hint}")

    def new_name(self, key: str, name: str, taken: Container[str]) -> None:
        if not _NAME.fullmatch(name):
            self.fail(key, f"{name!r:.60} must be letters, digits, '-', '.' and '_', and begin with a letter")
        if name in taken:
            self.fail(key, f"{name!r:.60} is there already")

    def between(self, key: str, value: int, low: int, high: int) -> None:
        if not low <= value <= high:
            self.fail(key, f"{value} must be between {low} and {high}")


def resolve(file: MachineFile, name: str, explain: str, where: str) -> Machine:
    """The machine that a file describes.

    Raises:
        UserError: exit code 2, with the key and what is allowed.
    """
    check = _Check(where)
    check.word("kernel", file.kernel, list(RELEASES))
    check.word("arch", file.arch, list(ARCHES))
    for key, words in (("with", file.with_), ("without", file.without)):
        for index, word in enumerate(words):
            check.word(f"{key}[{index}]", word, list(OPTIONAL_FILES))
            if word in file.with_ and word in file.without:
                check.fail(f"{key}[{index}]", f"{word!r} stands in both with and without")
    if not file.cmdline.isprintable():
        check.fail("cmdline", "must be one line without control characters")
    nodes, ram = _nodes(check, file), _ram(check, file)
    spec = _spec(check, file, nodes, ram)
    return _hardware(check, file, name, explain, spec)


def _nodes(check: _Check, file: MachineFile) -> tuple[NodeSpec, ...]:
    if not file.node:
        return (NodeSpec(0, (0,)),)
    found: dict[int, NodeSpec] = {}
    owners: dict[int, int] = {}
    for index, table in enumerate(file.node):
        key = f"node[{index}]"
        check.between(f"{key}.id", table.id, 0, _MAX_NODE)
        if table.id in found:
            check.fail(f"{key}.id", f"node {table.id} is there already")
        cpus = _cpus(check, table, key, first=not any(t.cpus for t in file.node) and index == 0)
        for cpu in cpus:
            if cpu in owners:
                check.fail(f"{key}.cpus", f"cpu {cpu} belongs to node {owners[cpu]} already")
            owners[cpu] = table.id
        found[table.id] = NodeSpec(table.id, cpus, _distances(check, file, table, key))
    return tuple(found[node_id] for node_id in sorted(found))


def _cpus(check: _Check, table: NodeTable, key: str, *, first: bool) -> tuple[int, ...]:
    """The CPUs of a node; where no node names any, the first has CPU 0."""
    try:
        return cpu_list(table.cpus) or ((0,) if first else ())
    except ValueError as error:
        check.fail(f"{key}.cpus", str(error))


def cpu_list(text: str) -> tuple[int, ...]:
    """The numbers of a list like `0-3,8`.

    Raises:
        ValueError: with what is allowed.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        match = _CPU_RANGE.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high or high > _MAX_CPU:
            raise ValueError(f"{text!r} is not a list of CPUs; allowed is e.g. \"0-3,8\", up to {_MAX_CPU}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def _distances(check: _Check, file: MachineFile, table: NodeTable, key: str) -> tuple[tuple[int, int], ...]:
    if table.distances and len(table.distances) != len(file.node):
        check.fail(f"{key}.distances", f"must have one number for each of the {len(file.node)} nodes")
    for distance in table.distances:
        check.between(f"{key}.distances", distance, 10, 255)
    return tuple(zip((node.id for node in file.node), table.distances, strict=False))


def _ram(check: _Check, file: MachineFile) -> tuple[RamRange, ...]:
    of_nodes = [(table.id, table.ram) for table in file.node if table.ram is not None]
    if file.ram_ranges:
        if file.ram or of_nodes:
            check.fail("ram", "give either [[ram]] ranges, or sizes with ram = and [[node]] ram =, not both")
        return _ranges(check, file)
    given = sum(size.bytes for _, size in of_nodes)
    total = file.ram.bytes if file.ram else given if of_nodes else _DEFAULT_RAM
    if of_nodes:
        if given != total:
            check.fail("ram", f"{format_size(total)} is not what the nodes add up to, {format_size(given)}")
        sizes = [(node_id, size.bytes) for node_id, size in of_nodes]
    else:
        sizes = [(file.node[0].id if file.node else 0, total)]
    for node_id, size in sizes:
        if size % (1 << 20):
            check.fail("ram", f"{size} bytes of node {node_id} are not whole MiB")
    if total < 1 << 28:
        check.fail("ram", f"{format_size(total)} is too little for a kernel; at least 256M")
    return qemu_ram(sizes)


def _ranges(check: _Check, file: MachineFile) -> tuple[RamRange, ...]:
    found: list[RamRange] = []
    known = {table.id for table in file.node} or {0}
    for index, table in enumerate(file.ram_ranges):
        key = f"ram[{index}]"
        if table.start.bytes >= table.end.bytes:
            check.fail(f"{key}.end", f"{table.end.bytes:#x} must lie above start {table.start.bytes:#x}")
        if table.node not in known:
            check.fail(f"{key}.node", f"node {table.node} has no [[node]]; known are {sorted(known)}")
        check.word(f"{key}.kind", table.kind, [kind.value for kind in RamKind])
        if table.kind in _FIXED and table.start.bytes < MIB:
            check.fail(f"{key}.start", f"{table.start.bytes:#x} must be {MIB:#x} or more for {table.kind}: "
                       "firmware keeps the first MiB")
        found.append(RamRange(table.start.bytes, table.end.bytes, table.node, RamKind(table.kind)))
    found.sort(key=lambda item: item.start)
    for left, right in pairwise(found):
        if left.end > right.start:
            check.fail("ram", f"{left.start:#x}-{left.end:#x} overlaps {right.start:#x}-{right.end:#x}")
    free = [item for item in found if item.kind.value not in _FIXED and item.kind is not RamKind.RESERVED]
    if sum(item.end // _PAGE - -(-item.start // _PAGE) for item in free) * _PAGE < 1 << 24:
        check.fail("ram", "the ranges of kind normal and movable hold less than 16M, too little for a kernel")
    return tuple(found)


def _spec(check: _Check, file: MachineFile, nodes: tuple[NodeSpec, ...], ram: tuple[RamRange, ...]) -> Spec:
    block_size = file.block_size.bytes if file.block_size else 0
    arch = ARCHES[file.arch]
    if file.block_size and (block_size < arch.section_bytes or block_size & (block_size - 1) or block_size > 1 << 36):
        check.fail("block-size", f"{format_size(block_size)} must be a power of two from "
                   f"{format_size(arch.section_bytes)} to 64G")
    if ram[-1].end > _MAX_ADDRESS:
        check.fail("ram", f"ends at {ram[-1].end:#x}, beyond the addressable {format_size(_MAX_ADDRESS)}")
    bare = Spec(file.kernel, file.arch, ram, with_files=frozenset(file.with_), without_files=frozenset(file.without))
    params, free_vmemmap, log = parse_cmdline(file.cmdline, features_of(bare))
    return Spec(
        file.kernel, file.arch, ram, nodes, file.cmdline, params, block_size, _MAX_ADDRESS,
        migration_rate=file.timing.migration_rate.bytes, hugetlb_free_vmemmap=free_vmemmap,
        with_files=bare.with_files, without_files=bare.without_files, log=tuple(log),
    )


def _hardware(check: _Check, file: MachineFile, name: str, explain: str, spec: Spec) -> Machine:
    ram_bytes = installed_bytes(spec.ram)
    block_size = spec.block_size_bytes or block_size_of(ARCHES[spec.arch], spec.ram)
    base = file.hotplug_base.bytes if file.hotplug_base else align_up(hotplug_base_of(spec.ram), block_size)
    if base % block_size or not spec.ram[-1].end <= base < spec.max_address:
        check.fail("hotplug-base", f"{base:#x} must lie above boot RAM and below {format_size(_MAX_ADDRESS)}, on a "
                   f"multiple of the block size {format_size(block_size)}")
    roomy = min(max(_DEFAULT_MAXMEM, align_up(2 * ram_bytes, GIB)), ram_bytes + spec.max_address - base)
    maxmem = file.maxmem.bytes if file.maxmem else roomy
    check.between("slots", file.slots, 0, _MAX_SLOTS)
    if maxmem < ram_bytes:
        check.fail("maxmem", f"{format_size(maxmem)} is less than the boot RAM, {format_size(ram_bytes)}")
    if base + maxmem - ram_bytes > spec.max_address:
        check.fail("maxmem", f"{format_size(maxmem)} does not fit below the addressable {format_size(_MAX_ADDRESS)}")
    dimms = _dimms(check, file, spec, maxmem - ram_bytes, block_size)
    return Machine(name, explain, spec, file.slots, maxmem, base, dimms, _fillings(check, file, spec))


def _fillings(check: _Check, file: MachineFile, spec: Spec) -> tuple[Filling, ...]:
    found: dict[str, Filling] = {}
    for index, table in enumerate(file.workload):
        key = f"workload[{index}]"
        check.new_name(f"{key}.id", table.id, found)
        check.word(f"{key}.kind", table.kind, list(KINDS))
        if table.node is not None and table.node not in {node.id for node in spec.nodes}:
            check.fail(f"{key}.node", f"node {table.node} has no [[node]]")
        if (table.size is None) == (not table.share):
            check.fail(key, "give either size or share")
        if table.movable and not KINDS[table.kind].may_move:
            check.fail(f"{key}.movable", f"{table.kind} cannot be movable; only pinned and balloon can")
        if table.reserved and not KINDS[table.kind].may_reserve:
            check.fail(f"{key}.reserved", f"{table.kind} cannot be reserved; only hugetlb-2M can")
        share = re.fullmatch(r"([0-9]{1,2}|100)%", table.share or "1%")
        if share is None:
            check.fail(f"{key}.share", f"{table.share!r} is not a share; allowed are \"1%\" to \"100%\"")
        found[table.id] = Filling(table.id, table.kind, table.size.bytes if table.size else 0,
                                  int(share[1]) if table.share else 0, table.node, table.movable, table.reserved)
    return tuple(found.values())


def _dimms(check: _Check, file: MachineFile, spec: Spec, room: int, block_size: int) -> tuple[Dimm, ...]:
    names: set[str] = set()
    if len(file.dimm) > file.slots:
        check.fail("dimm", f"{len(file.dimm)} DIMMs for {file.slots} slots; raise slots")
    for index, table in enumerate(file.dimm):
        key = f"dimm[{index}]"
        check.new_name(f"{key}.id", table.id, names)
        names.add(table.id)
        if not table.size.bytes or table.size.bytes % block_size:
            check.fail(f"{key}.size", f"{format_size(table.size.bytes)} must be a multiple of the block size, "
                       f"{format_size(block_size)}")
        if table.node not in {node.id for node in spec.nodes}:
            check.fail(f"{key}.node", f"node {table.node} has no [[node]]")
        room -= table.size.bytes
        if room < 0:
            check.fail(f"{key}.size", f"{format_size(table.size.bytes)} does not fit below maxmem; raise maxmem")
    return tuple(Dimm(table.id, table.size.bytes, table.node) for table in file.dimm)


