"""What the values of a machine file mean together: from its tables to a Machine.

Everything that Linux or QEMU would refuse, or silently lose, is refused here with the key that is wrong.  All mistakes
are told at once: a check runs unless it needs the value of a key that is wrong itself.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from attrs import evolve

from memhpfs.kernel.features import OPTIONAL_FILES, RELEASES, features_of
from memhpfs.kernel.geometry import ARCHES, block_size_of
from memhpfs.kernel.spec import NodeSpec, RamKind, RamRange, Spec
from memhpfs.kernel.workload import KINDS
from memhpfs.machine.cmdline import parse_cmdline
from memhpfs.machine.description import Dimm, Filling, Machine, installed_bytes
from memhpfs.machine.file import MachineFile, NodeTable, RamTable, WorkloadTable, structure
from memhpfs.machine.layout import hotplug_base_of, qemu_ram
from memhpfs.machine.mistakes import Mistakes
from memhpfs.units import GIB, MIB, TIB, align_up, format_size

__all__ = ["cpu_list", "resolve"]

T = TypeVar("T")
_DEFAULT_RAM, _MIN_RAM, _DEFAULT_MAXMEM = 4 * GIB, 256 * MIB, 64 * GIB
_MAX_BLOCK = 64 * GIB
_MAX_NODE, _MAX_SLOTS, _MAX_CPU = 1023, 256, 8191
#: What 46 bits of physical addresses reach.
_MAX_ADDRESS = 64 * TIB
_PAGE = 4096
#: Linux goes on with the next major number after about so many releases.
_MINORS = 20
#: Kinds of RAM in which nothing is free.
_FIXED = (RamKind.UNMOVABLE.value, RamKind.CMA.value)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_RELEASE = re.compile(r"[a-z-]*([0-9]{1,3})\.([0-9]{1,3})(?![0-9]).*")
_SHARE = re.compile(r"([0-9]{1,2}|100)%")
_CPU_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def resolve(data: dict[str, Any], name: str, explain: str, mistakes: Mistakes) -> Machine:
    """The machine that a file describes.

    Args:
        data: its tables.
        mistakes: those that are known already.

    Raises:
        UserError: exit code 2, with all mistakes, each with the key and what is allowed.
    """
    file = structure(data, mistakes)
    known = {table.id for _, table in _numbered("node", file.node)} or {0} if mistakes.sure("node") else None
    _check_words(mistakes, file)
    nodes, ram = _nodes(mistakes, file), _ram(mistakes, file, known)
    block_size = _block_size(mistakes, file, ram)
    base = _hotplug_base(mistakes, file, ram, block_size)
    maxmem = _maxmem(mistakes, file, ram, base)
    _check_dimms(mistakes, file, known, block_size, maxmem - installed_bytes(ram) if maxmem else None)
    fillings = _fillings(mistakes, file, known)
    mistakes.stop()
    dimms = tuple(Dimm(table.id, table.size.bytes, table.node) for _, table in _numbered("dimm", file.dimm))
    spec, remarks = _spec(file, nodes, ram)
    return Machine(name, explain, spec, file.slots, maxmem, base, dimms, fillings, remarks)


def _numbered(name: str, tables: Sequence[T | None]) -> Iterator[tuple[str, T]]:
    """The tables of an array that could be read, each with its key."""
    return ((f"{name}[{index}]", table) for index, table in enumerate(tables) if table is not None)


def _spec(file: MachineFile, nodes: tuple[NodeSpec, ...], ram: tuple[RamRange, ...]) -> tuple[Spec, tuple[str, ...]]:
    """What the kernel boots with, and remarks on its command line."""
    spec = Spec(
        file.kernel, file.arch, ram, nodes, file.cmdline, max_address=_MAX_ADDRESS,
        block_size_bytes=file.block_size.bytes if file.block_size else 0,
        migration_rate=file.timing.migration_rate.bytes,
        with_files=frozenset(file.with_), without_files=frozenset(file.without),
    )
    line = parse_cmdline(file.cmdline, features_of(spec))
    spec = evolve(spec, params=line.params, hugetlb_free_vmemmap=line.hugetlb_free_vmemmap, log=tuple(line.log))
    return spec, tuple(line.remarks)


def _check_words(mistakes: Mistakes, file: MachineFile) -> None:
    """The keys that have a meaning of their own."""
    if file.kernel not in RELEASES:
        mistakes.add("kernel", f"{file.kernel!r:.60} is not known; allowed are {', '.join(RELEASES)}"
                     f"{_nearest_release(file.kernel)}")
    mistakes.word("arch", file.arch, list(ARCHES))
    for key, words in (("with", file.with_), ("without", file.without)):
        for index, word in enumerate(words):
            mistakes.word(f"{key}[{index}]", word, list(OPTIONAL_FILES))
    for index, word in enumerate(file.with_):
        if word in file.without:
            mistakes.add(f"with[{index}]", f"{word!r:.60} stands in both with and without")
    if not file.cmdline.isprintable():
        mistakes.add("cmdline", "must be one line without control characters")
    mistakes.between("slots", file.slots, 0, _MAX_SLOTS)


def _nearest_release(text: str) -> str:
    """The end of an error about a release: the known one that came out nearest to it, of two the older one."""
    def order(release: str) -> int:
        match = _RELEASE.fullmatch(release)
        return int(match[1]) * _MINORS + min(int(match[2]), _MINORS - 1) if match else -1

    at = order(text)
    near = min(RELEASES, key=lambda release: (abs(order(release) - at), order(release)))
    return f"; the nearest is {near}" if at >= 0 else ""


def _nodes(mistakes: Mistakes, file: MachineFile) -> tuple[NodeSpec, ...]:
    if not file.node:
        return (NodeSpec(0, (0,)),)
    found: dict[int, NodeSpec] = {}
    owners: dict[int, int] = {}
    tables = list(_numbered("node", file.node))
    for key, table in tables:
        mistakes.between(f"{key}.id", table.id, 0, _MAX_NODE)
        if table.id in found:
            mistakes.add(f"{key}.id", f"node {table.id} is there already")
        cpus = _cpus(mistakes, table, key, first=not found and not any(other.cpus for _, other in tables))
        taken = sorted(owners.keys() & set(cpus))
        if taken:
            mistakes.add(f"{key}.cpus", f"cpu {taken[0]} belongs to node {owners[taken[0]]} already")
        owners |= dict.fromkeys(cpus, table.id)
        found[table.id] = NodeSpec(table.id, cpus, _distances(mistakes, file, table, key))
    return tuple(found[node_id] for node_id in sorted(found))


def _cpus(mistakes: Mistakes, table: NodeTable, key: str, *, first: bool) -> tuple[int, ...]:
    """The CPUs of a node; where no node names any, the first has CPU 0."""
    try:
        return cpu_list(table.cpus) or ((0,) if first else ())
    except ValueError as error:
        mistakes.add(f"{key}.cpus", str(error))
        return ()


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


def _distances(mistakes: Mistakes, file: MachineFile, table: NodeTable, key: str) -> tuple[tuple[int, int], ...]:
    if table.distances and len(table.distances) != len(file.node):
        mistakes.add(f"{key}.distances", f"must have one number for each of the {len(file.node)} nodes")
    for distance in table.distances:
        mistakes.between(f"{key}.distances", distance, 10, 255)
    return tuple(zip((node.id for _, node in _numbered("node", file.node)), table.distances, strict=False))


def _ram(mistakes: Mistakes, file: MachineFile, known: set[int] | None) -> tuple[RamRange, ...]:
    """The ranges of boot RAM; none where it is not sure what they are."""
    of_nodes = [(table.id, table.ram) for _, table in _numbered("node", file.node) if table.ram is not None]
    found: tuple[RamRange, ...] = ()
    if file.ram_ranges:
        if of_nodes:
            mistakes.add("ram", "give either [[ram]] ranges, or sizes with ram = and [[node]] ram =, not both")
        found = _ranges(mistakes, file, known)
    elif mistakes.sure("ram") and known is not None:
        given = [(node_id, size.bytes) for node_id, size in of_nodes]
        total = file.ram.bytes if file.ram else sum(size for _, size in given) if given else _DEFAULT_RAM
        found = _sizes(mistakes, total, given or [(file.node[0].id if file.node and file.node[0] else 0, total)])
    if found and found[-1].end > _MAX_ADDRESS:
        mistakes.add("ram", f"ends at {found[-1].end:#x}, beyond the addressable {format_size(_MAX_ADDRESS)}")
    return found if mistakes.sure("ram") else ()


def _sizes(mistakes: Mistakes, total: int, sizes: list[tuple[int, int]]) -> tuple[RamRange, ...]:
    """RAM of (node id, bytes)."""
    given = sum(size for _, size in sizes)
    if given != total:
        mistakes.add("ram", f"{format_size(total)} is not what the nodes add up to, {format_size(given)}")
    for node_id, size in sizes:
        if size % MIB:
            mistakes.add("ram", f"{size} bytes of node {node_id} are not whole MiB")
    if total < _MIN_RAM:
        mistakes.add("ram", f"{format_size(total)} is too little for a kernel; at least {format_size(_MIN_RAM)}")
    return qemu_ram(sizes) if mistakes.sure("ram") else ()


def _ranges(mistakes: Mistakes, file: MachineFile, known: set[int] | None) -> tuple[RamRange, ...]:
    """RAM of [[ram]]."""
    for key, table in _numbered("ram", file.ram_ranges):
        _check_range(mistakes, key, table, known)
    if not mistakes.sure("ram"):
        return ()
    found = sorted((RamRange(table.start.bytes, table.end.bytes, table.node, RamKind(table.kind))
                    for _, table in _numbered("ram", file.ram_ranges)), key=lambda item: item.start)
    for left, right in pairwise(found):
        if left.end > right.start:
            mistakes.add("ram", f"{left.start:#x}-{left.end:#x} overlaps {right.start:#x}-{right.end:#x}")
    free = [item for item in found if item.kind.value not in _FIXED and item.kind is not RamKind.RESERVED]
    if sum(item.end // _PAGE - -(-item.start // _PAGE) for item in free) * _PAGE < 1 << 24:
        mistakes.add("ram", "the ranges of kind normal and movable hold less than 16M, too little for a kernel")
    return tuple(found)


def _check_range(mistakes: Mistakes, key: str, table: RamTable, known: set[int] | None) -> None:
    if table.start.bytes >= table.end.bytes:
        mistakes.add(f"{key}.end", f"{table.end.bytes:#x} must lie above start {table.start.bytes:#x}")
    _check_node(mistakes, key, table.node, known)
    mistakes.word(f"{key}.kind", table.kind, [kind.value for kind in RamKind])
    if table.kind in _FIXED and table.start.bytes < MIB:
        mistakes.add(f"{key}.start", f"{table.start.bytes:#x} must be {MIB:#x} or more for {table.kind}: "
                     "firmware keeps the first MiB")


def _check_node(mistakes: Mistakes, key: str, node_id: int | None, known: set[int] | None) -> None:
    """A table names a node that there is; `known` is None where that is not sure."""
    if known is not None and node_id is not None and node_id not in known:
        mistakes.add(f"{key}.node", f"node {node_id} has no [[node]]; known are {sorted(known)}")


def _block_size(mistakes: Mistakes, file: MachineFile, ram: tuple[RamRange, ...]) -> int:
    """Bytes of a memory block; 0 where that is not sure."""
    if not mistakes.sure("arch", "block-size"):
        return 0
    arch = ARCHES[file.arch]
    if file.block_size is None:
        return block_size_of(arch, ram) if ram else 0
    size = file.block_size.bytes
    if not arch.section_bytes <= size <= _MAX_BLOCK or size & (size - 1):
        mistakes.add("block-size", f"{format_size(size)} must be a power of two from {format_size(arch.section_bytes)} "
                     f"to {format_size(_MAX_BLOCK)}")
        return 0
    return size


def _hotplug_base(mistakes: Mistakes, file: MachineFile, ram: tuple[RamRange, ...], block_size: int) -> int:
    """Where plugged memory begins; 0 where that is not sure."""
    if not ram or not block_size or not mistakes.sure("hotplug-base"):
        return 0
    base = file.hotplug_base.bytes if file.hotplug_base else align_up(hotplug_base_of(ram), block_size)
    if base % block_size or not ram[-1].end <= base < _MAX_ADDRESS:
        mistakes.add("hotplug-base", f"{base:#x} must lie above boot RAM and below {format_size(_MAX_ADDRESS)}, on a "
                     f"multiple of the block size {format_size(block_size)}")
        return 0
    return base


def _maxmem(mistakes: Mistakes, file: MachineFile, ram: tuple[RamRange, ...], base: int) -> int:
    """Bytes of boot RAM and all that can be plugged; 0 where that is not sure."""
    if not ram or not base or not mistakes.sure("maxmem"):
        return 0
    ram_bytes = installed_bytes(ram)
    roomy = min(max(_DEFAULT_MAXMEM, align_up(2 * ram_bytes, GIB)), ram_bytes + _MAX_ADDRESS - base)
    maxmem = file.maxmem.bytes if file.maxmem else roomy
    if maxmem < ram_bytes:
        mistakes.add("maxmem", f"{format_size(maxmem)} is less than the boot RAM, {format_size(ram_bytes)}")
    if base + maxmem - ram_bytes > _MAX_ADDRESS:
        mistakes.add("maxmem", f"{format_size(maxmem)} does not fit below the addressable {format_size(_MAX_ADDRESS)}")
    return maxmem if mistakes.sure("maxmem") else 0


def _check_dimms(
    mistakes: Mistakes, file: MachineFile, known: set[int] | None, block_size: int, room: int | None
) -> None:
    """The DIMMs fit; `room` are bytes that can be plugged, None where that is not sure."""
    if len(file.dimm) > file.slots and mistakes.sure("slots"):
        mistakes.add("dimm", f"{len(file.dimm)} DIMMs for {file.slots} slots; raise slots")
    names: set[str] = set()
    for key, table in _numbered("dimm", file.dimm):
        size = table.size.bytes
        _check_name(mistakes, key, table.id, names)
        if not size or (block_size and size % block_size):
            mistakes.add(f"{key}.size", f"{format_size(size)} must be a multiple of the block size"
                         f"{f', {format_size(block_size)}' if block_size else ''}")
        _check_node(mistakes, key, table.node, known)
        if room is not None and size > room:
            mistakes.add(f"{key}.size", f"{format_size(size)} does not fit below maxmem; raise maxmem")
            room = None
        room = room - size if room is not None else None


def _check_name(mistakes: Mistakes, key: str, name: str, taken: set[str]) -> None:
    """A name that can be one, and that no other table has."""
    if not _NAME.fullmatch(name):
        mistakes.add(f"{key}.id", f"{name!r:.60} must be letters, digits, '-', '.' and '_', and begin with a letter")
    elif name in taken:
        mistakes.add(f"{key}.id", f"{name!r:.60} is there already")
    taken.add(name)


def _fillings(mistakes: Mistakes, file: MachineFile, known: set[int] | None) -> tuple[Filling, ...]:
    names: set[str] = set()
    found = []
    for key, table in _numbered("workload", file.workload):
        _check_name(mistakes, key, table.id, names)
        _check_node(mistakes, key, table.node, known)
        share = _SHARE.fullmatch(table.share) if table.share else None
        if (table.size is None) == (not table.share):
            mistakes.add(key, "give either size or share")
        elif table.share and share is None:
            mistakes.add(f"{key}.share", f"{table.share!r:.60} is not a share; allowed are \"1%\" to \"100%\"")
        _check_kind(mistakes, key, table)
        found.append(Filling(table.id, table.kind, table.size.bytes if table.size else 0, int(share[1]) if share else 0,
                             table.node, table.movable, table.reserved))
    return tuple(found)


def _check_kind(mistakes: Mistakes, key: str, table: WorkloadTable) -> None:
    if not mistakes.word(f"{key}.kind", table.kind, list(KINDS)):
        return
    if table.movable and not KINDS[table.kind].may_move:
        mistakes.add(f"{key}.movable", f"{table.kind} cannot be movable; only pinned and balloon can")
    if table.reserved and not KINDS[table.kind].may_reserve:
        mistakes.add(f"{key}.reserved", f"{table.kind} cannot be reserved; only hugetlb-2M can")
