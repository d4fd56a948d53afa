"""What comes and goes in directories: block and node devices, and the links between them and from their buses.

Nothing is stored: names and inode numbers follow from the kernel's records.
"""

from collections.abc import Iterator
from typing import Any

from memhpfs.kernel.state import Kernel
from memhpfs.sysfs.plan import BLOCK, BUS_LINK, CPU_LINK, NODE, NODE_LINK, OWN, REVERSE_LINK, inode

__all__ = ["find_held", "held_name", "held_numbers", "held_target"]


def held_numbers(kernel: Kernel, subject: Any, holds: str) -> Iterator[int]:
    """Inode numbers of what comes and goes in a directory."""
    if holds == "blocks":
        yield from (inode(b.serial, BLOCK, OWN) for b in kernel.blocks.values())
    elif holds == "nodes":
        yield from (inode(n.serial, NODE, OWN) for n in kernel.nodes.values() if n.online)
    elif holds == "memory-bus":
        yield from (inode(b.serial, BLOCK, BUS_LINK) for b in kernel.blocks.values())
    elif holds == "node-bus":
        yield from (inode(n.serial, NODE, BUS_LINK) for n in kernel.nodes.values() if n.online)
    elif holds == "node-links":
        yield from (inode(subject.serial, BLOCK, NODE_LINK + i) for i in subject.node_ids)
    elif holds == "block-links":
        yield from (inode(b.serial, BLOCK, REVERSE_LINK + subject.id) for b in subject.links.values())
        yield from (inode(subject.serial, NODE, CPU_LINK + cpu) for cpu in subject.cpus)


def held_name(subject: Any, kind: int, index: int) -> str:
    """The name that goes with such a number; `subject` is the device that it belongs to."""
    if kind == NODE:
        return f"node{subject.id}" if index in (OWN, BUS_LINK) else f"cpu{index - CPU_LINK}"
    return f"node{index - NODE_LINK}" if NODE_LINK <= index < REVERSE_LINK else f"memory{subject.id}"


def find_held(kernel: Kernel, subject: Any, holds: str, name: str) -> int:
    """The inode number of one such name, or 0; the same as searching `held_numbers`, without listing them."""
    word = name.rstrip("0123456789")
    digits = name[len(word):]
    if not digits or (digits[0] == "0" and digits != "0"):
        return 0
    number = int(digits)
    block, node = kernel.blocks.get(number), kernel.nodes.get(number)
    if word == "memory" and block is not None:
        if holds in ("blocks", "memory-bus"):
            return inode(block.serial, BLOCK, OWN if holds == "blocks" else BUS_LINK)
        if holds == "block-links" and number in subject.links:
            return inode(block.serial, BLOCK, REVERSE_LINK + subject.id)
    elif word == "node" and node is not None:
        if holds in ("nodes", "node-bus") and node.online:
            return inode(node.serial, NODE, OWN if holds == "nodes" else BUS_LINK)
        if holds == "node-links" and number in subject.node_ids:
            return inode(subject.serial, BLOCK, NODE_LINK + number)
    elif word == "cpu" and holds == "block-links" and number in subject.cpus:
        return inode(subject.serial, NODE, CPU_LINK + number)
    return 0


def held_target(subject: Any, kind: int, index: int) -> str:
    """The target of a link that stands in another directory, or points to another device."""
    if kind == NODE:
        if index == BUS_LINK:
            return f"../../../devices/system/node/node{subject.id}"
        return f"../../cpu/cpu{index - CPU_LINK}"
    if index == BUS_LINK:
        return f"../../../devices/system/memory/memory{subject.id}"
    if index >= REVERSE_LINK:
        return f"../../memory/memory{subject.id}"
    return f"../../node/node{index - NODE_LINK}"
