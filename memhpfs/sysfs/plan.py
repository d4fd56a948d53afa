"""Rows compiled: every file of a kind of device gets an index, so an inode number says what it is.

An inode number is (device serial, kind, index): nothing is stored per file, and numbers are never used twice.  A device
is the machine itself, a memory block or a node; index 1 is its own directory.  High indexes are the links that exist
because of the device but stand in other directories.
"""

import stat

from attrs import define, field, frozen

from memhpfs.kernel.features import Features
from memhpfs.sysfs.attr import Attr, Dir, Link, Row

__all__ = [
    "BLOCK", "BUS_LINK", "CPU_LINK", "INDEX_MASK", "KIND_MASK", "KIND_SHIFT", "MACHINE", "NODE", "NODE_LINK", "OWN",
    "REVERSE_LINK", "SERIAL_SHIFT", "Entry", "Plan", "compile_plan", "inode",
]

MACHINE, BLOCK, NODE = 0, 1, 2
KIND_SHIFT, SERIAL_SHIFT = 12, 14
INDEX_MASK, KIND_MASK = (1 << KIND_SHIFT) - 1, 3
#: Index of the device's own directory.
OWN = 1
#: memoryM/nodeN and nodeN/cpuC have index CPU_LINK or NODE_LINK plus the number; nodeN/memoryM REVERSE_LINK plus N.
NODE_LINK = CPU_LINK = 1024
REVERSE_LINK = 2048
#: Index of bus/NAME/devices/DEVICE.
BUS_LINK = 4095


def inode(serial: int, kind: int, index: int) -> int:
    """The inode number of a file of a device."""
    return serial << SERIAL_SHIFT | kind << KIND_SHIFT | index


@frozen
class Entry:
    """One file, link or directory of a plan.

    Attributes:
        index, parent: its index and that of its directory.
        row: what declares it.
        mode: full st_mode.
        size: what stat tells.
        names: for a directory, its fixed entries: name to index.
        subdirectories: how many of them are directories.
    """

    index: int
    parent: int
    row: Row
    mode: int
    size: int = 0
    names: dict[str, int] = field(factory=dict)
    subdirectories: int = 0


@define
class Plan:
    """All entries of a kind of device by index (index 0 stays empty), and where its dynamic directories are."""

    entries: list[Entry | None] = field(factory=lambda: [None])
    holders: dict[str, int] = field(factory=dict)


def compile_plan(top: Dir, features: Features) -> Plan:
    """Number the rows of a device's directory, leaving out what this kernel does not have."""
    plan = Plan()
    _add(plan, top, 0, features)
    return plan


def _add(plan: Plan, row: Row, parent: int, features: Features) -> int:
    index = len(plan.entries)
    plan.entries.append(None)
    if isinstance(row, Attr):
        plan.entries[index] = Entry(index, parent, row, stat.S_IFREG | row.mode, row.size)
    elif isinstance(row, Link):
        plan.entries[index] = Entry(index, parent, row, stat.S_IFLNK | 0o777)
    else:
        there = [child for child in row.rows if child.when(features)]
        names = {child.name: _add(plan, child, index, features) for child in there}
        plan.entries[index] = Entry(index, parent, row, stat.S_IFDIR | row.mode, 0, names,
                                    sum(isinstance(child, Dir) for child in there))
        if row.holds:
            plan.holders[row.holds] = index
    return index
