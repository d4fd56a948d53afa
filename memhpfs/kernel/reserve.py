"""What a kernel keeps for itself at boot: pages that never reach the allocator.

The sizes are typical of a distribution kernel, not exact for any; statistics are compared by how they move.
Early allocations come from the top of each node's memory, as memblock hands them out.
Source: transcripts fuzz.plain (0x000-0xfff and 148 MiB at the top of 6 GiB), load.small (106 MiB at the top of 1 GiB).
"""

from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.spec import RamKind, Spec
from memhpfs.units import GIB, MIB

__all__ = ["reserved_ranges"]

_LOW_PFN = MIB // PAGE_SIZE
_PAGE_STRUCTS_PER_PAGE = 64
#: Kernel image, initial RAM disk and hash tables of the first node, at most a quarter of it.
_KERNEL_PAGES = 104 * MIB // PAGE_SIZE
#: Bounce buffers at the top of the memory below 4 GiB, on machines that have more.
_SWIOTLB_PAGES = 64 * MIB // PAGE_SIZE
_FOUR_GIB_PFN = 4 * GIB // PAGE_SIZE


def reserved_ranges(spec: Spec) -> list[tuple[int, int]]:
    """Reserved pfn ranges [start, end), disjoint."""
    ram = [(-(-item.start // PAGE_SIZE), item.end // PAGE_SIZE, item) for item in spec.ram]
    taken = [(start, min(end, _LOW_PFN)) for start, end, _ in ram if start < _LOW_PFN]
    taken += [(start, end) for start, end, item in ram if item.kind is RamKind.RESERVED and start >= _LOW_PFN]
    free = [(max(start, _LOW_PFN), end, item.node) for start, end, item in ram
            if item.kind is RamKind.NORMAL and end > _LOW_PFN]
    if any(end > _FOUR_GIB_PFN for _, end, _ in free):
        low = [part for part in free if part[1] <= _FOUR_GIB_PFN]
        _take_from_top(low, min(_SWIOTLB_PAGES, sum(end - start for start, end, _ in low) // 4), taken, free)
    nodes = sorted({node for _, _, node in free})
    for node in nodes:
        parts = [part for part in free if part[2] == node]
        total = sum(end - start for start, end, _ in parts)
        wanted = total // _PAGE_STRUCTS_PER_PAGE + (min(_KERNEL_PAGES, total // 4) if node == nodes[0] else 0)
        _take_from_top(parts, wanted, taken, free)
    return taken


def _take_from_top(
    parts: list[tuple[int, int, int]], wanted: int, taken: list[tuple[int, int]], free: list[tuple[int, int, int]]
) -> None:
    """Move `wanted` pages from the top of the parts to `taken`, and out of `free`."""
    for start, end, node in sorted(parts, reverse=True):
        cut = min(wanted, end - start)
        if not cut:
            break
        taken.append((end - cut, end))
        free[free.index((start, end, node))] = (start, end - cut, node)
        wanted -= cut
