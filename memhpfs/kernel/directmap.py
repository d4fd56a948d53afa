"""How the kernel maps all memory for itself: with the largest pages that fit.

Source: init_memory_mapping, split_mem_range, arch_add_memory (arch/x86/mm/init.c, init_64.c).
"""

from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.state import Kernel, Resource
from memhpfs.units import GIB, MIB, align_down, align_up

__all__ = ["TEXT_SPLITS", "direct_map"]

_SIZES = (GIB, 2 * MIB, PAGE_SIZE)
#: 2 MiB pages that boot splits, because parts of them hold code or read-only data.
TEXT_SPLITS = 32


def direct_map(kernel: Kernel) -> dict[int, int]:
    """Bytes mapped by pages of 4 KiB, 2 MiB and 1 GiB, by page size."""
    mapped = dict.fromkeys(_SIZES, 0)
    for item in kernel.iomem:
        piece = _mapped_at_once(kernel, item)
        pieces = max(1, (item.end - item.start) // piece)
        _map(item.start, item.start + piece, _SIZES, mapped, pieces)
    split = min(TEXT_SPLITS * 2 * MIB, mapped[2 * MIB])
    mapped[2 * MIB] -= split
    mapped[PAGE_SIZE] += split
    return mapped


def _mapped_at_once(kernel: Kernel, item: Resource) -> int:
    """An added range is mapped in one go, but block by block where the blocks host their own memmaps."""
    block = kernel.blocks.get(item.start // kernel.block_size_bytes)
    if block is not None and block.vmemmap_pages:
        return kernel.block_size_bytes
    return item.end - item.start


def _map(start: int, end: int, sizes: tuple[int, ...], mapped: dict[int, int], times: int) -> None:
    """Count the aligned middle for the largest size, and what is left on both sides for the smaller ones."""
    size, smaller = sizes[0], sizes[1:]
    low, high = align_up(start, size), align_down(end, size)
    if low < high:
        mapped[size] += (high - low) * times
    else:
        low = high = start
    if smaller:
        _map(start, low, smaller, mapped, times)
        _map(high, end, smaller, mapped, times)
