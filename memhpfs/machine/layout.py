"""Where QEMU's pc machine puts boot RAM, and where it places what is plugged.

Source: pc_memory_init (hw/i386/pc.c) and the firmware's memory map; transcripts (boot.iomem of 1G and 6G machines).
"""

from collections.abc import Sequence

from memhpfs.kernel.spec import RamRange
from memhpfs.units import GIB, KIB, MIB, align_up

__all__ = ["hotplug_base_of", "qemu_ram"]

#: Below 4 GiB QEMU keeps 3.5 GiB of RAM where that is all; else 3 GiB, and the rest above 4 GiB.
_LOW_ALL, _LOW_SPLIT = 3584 * MIB, 3 * GIB
_FOUR_GIB = 4 * GIB
#: The firmware keeps the end of low memory, and everything between 639 KiB and 1 MiB.
_FIRMWARE_TOP, _FIRST_PAGE, _EBDA = 128 * KIB, 4 * KIB, 639 * KIB


def qemu_ram(sizes: Sequence[tuple[int, int]]) -> tuple[RamRange, ...]:
    """Boot ranges of a machine whose nodes have (node id, bytes), in this order."""
    total = sum(size for _, size in sizes)
    low = total if total <= _LOW_ALL else _LOW_SPLIT
    usable = [(_FIRST_PAGE, _EBDA), (MIB, low - _FIRMWARE_TOP)]
    if total > low:
        usable.append((_FOUR_GIB, _FOUR_GIB + total - low))
    found: list[RamRange] = []
    at = 0
    for node, size in sizes:
        for start, end in usable:
            first, last = max(start, _address(at, low)), min(end, _address(at + size, low, end=True))
            if first < last:
                found.append(RamRange(first, last, node))
        at += size
    return tuple(sorted(found, key=lambda item: item.start))


def _address(offset: int, low: int, *, end: bool = False) -> int:
    """Guest address of an offset into RAM, of an end that may lie just below the hole."""
    below = offset <= low if end else offset < low
    return offset if below else offset - low + _FOUR_GIB


def hotplug_base_of(ram: Sequence[RamRange]) -> int:
    """Where plugged devices are placed from: the end of boot RAM, at least 4 GiB, up to the next GiB."""
    return align_up(max(_FOUR_GIB, *(item.end for item in ram)), GIB)
