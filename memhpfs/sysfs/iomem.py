"""/proc/iomem: the RAM of the model, and around it what firmware keeps on a QEMU PC.

Source: r_show (kernel/resource.c); transcripts fuzz.* (key iomem).
A range that lies in another one is its child and stands two blanks further right.
"""

from memhpfs.kernel.state import Kernel
from memhpfs.units import KIB, MIB

__all__ = ["iomem_show"]

Row = tuple[int, int, str]

#: Fixed ranges of firmware; `end` is exclusive here as everywhere.
_PC_FIRMWARE: tuple[Row, ...] = (
    (0x0, 0x1000, "Reserved"),
    (0x9FC00, 0xA0000, "Reserved"),
    (0xF0000, 0x100000, "Reserved"),
    (0xF0000, 0x100000, "System ROM"),
    (0xFEFFC000, 0xFF000000, "Reserved"),
    (0xFFFC0000, 0x100000000, "Reserved"),
)
_KERNEL_IMAGE: tuple[Row, ...] = (
    (0x1000000, 0x2200000, "Kernel code"),
    (0x2200000, 0x2E0A000, "Kernel rodata"),
    (0x3000000, 0x327C100, "Kernel data"),
    (0x3B34000, 0x3C58000, "Kernel bss"),
)
#: Firmware takes this much at the top of the memory below 4 GiB.
_TOP_RESERVED = 128 * KIB


def iomem_show(kernel: Kernel, privileged: bool = True) -> str:
    """The text of /proc/iomem.

    Args:
        privileged: whether the reader has CAP_SYS_ADMIN; others see zeros for addresses.
    """
    rows = [(item.start, item.end, item.name) for item in kernel.iomem]
    if kernel.arch.name == "x86_64":
        rows += _firmware(kernel)
        rows += [row for row in _KERNEL_IMAGE if any(start <= row[0] and row[1] <= end for start, end, _ in rows)]
    text, parents = "", list[Row]()
    for row in sorted(rows, key=lambda row: (row[0], -row[1])):
        while parents and row[1] > parents[-1][1]:
            parents.pop()
        first, last = (row[0], row[1] - 1) if privileged else (0, 0)
        text += f"{'  ' * len(parents)}{first:08x}-{last:08x} : {row[2]}\n"
        parents.append(row)
    return text


def _firmware(kernel: Kernel) -> list[Row]:
    """What firmware reserves, as far as RAM leaves room."""
    tops = [(item.end, item.end + _TOP_RESERVED, "Reserved") for item in kernel.spec.ram
            if item.end > MIB and (item.end + _TOP_RESERVED) % MIB == 0]
    return [(start, end, name) for start, end, name in (*_PC_FIRMWARE, *tops)
            if not any(start < item.end and item.start < end for item in kernel.iomem)]
