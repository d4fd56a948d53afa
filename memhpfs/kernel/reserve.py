"""What a kernel keeps for itself at boot: pages that never reach the allocator.

The sizes are typical of a distribution kernel, not exact for any; statistics are compared by how they move.
Early allocations come from the top of each node's memory, as memblock hands them out.
Source: transcripts fuzz.plain (0x000-0xfff and 148 MiB at the top of 6 GiB), load.small (106 MiB at the top of 1 GiB).
"""

from memhpfs.kernel.alloc import allocate, nodes_by_distance
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import UNMOVABLE_USES, Use
from memhpfs.kernel.spec import RamKind, Spec
from memhpfs.kernel.state import Kernel
from memhpfs.units import GIB, MIB

__all__ = ["reserved_ranges", "start_userspace"]

_LOW_PFN = MIB // PAGE_SIZE
_PAGE_STRUCTS_PER_PAGE = 64
#: Kernel image, initial RAM disk and hash tables of the first node, at most a quarter of it.
_KERNEL_PAGES = 116 * MIB // PAGE_SIZE
#: Bounce buffers at the top of the memory below 4 GiB, on machines that have more.
_SWIOTLB_PAGES = 64 * MIB // PAGE_SIZE
_FOUR_GIB_PFN = 4 * GIB // PAGE_SIZE

#: What an idle system uses once it has started: bytes, and a share of memory as one page in so many.
_IDLE_USE = (
    (Use.SLAB, 24 * MIB, 128),
    (Use.PAGETABLES, 1 * MIB, 4096),
    (Use.KERNEL, 6 * MIB, 2048),
    (Use.ANON, 8 * MIB, 2048),
    (Use.FILE, 24 * MIB, 512),
    (Use.SHM, 3 * MIB, 0),
)


def start_userspace(kernel: Kernel) -> None:
    """Give the kernel's own allocations and a few processes the memory they have on an idle system."""
    total = sum(zone.managed_pages for node in kernel.nodes.values() for zone in node.zones.values())
    nodes = [node.id for node in nodes_by_distance(kernel, min(kernel.nodes))]
    for use, least_bytes, share in _IDLE_USE:
        wanted = min(least_bytes // PAGE_SIZE + (total // share if share else 0), total // 32)
        allocate(kernel, use, wanted, nodes, movable=use not in UNMOVABLE_USES)


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
