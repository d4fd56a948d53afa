"""The physical address map: RAM resources, ascending and disjoint.

Source: register_memory_resource, release_mem_region_adjustable (kernel/resource.c); transcripts fuzz.* (key iomem).
"""

from memhpfs.errors import Overlaps
from memhpfs.kernel.state import Kernel, Resource

__all__ = ["claim", "ram_bytes_in", "release"]


def claim(kernel: Kernel, start: int, end: int, name: str = "System RAM") -> Resource:
    """Insert a range.

    Args:
        start, end: bytes, end exclusive.

    Raises:
        Overlaps: any byte of it belongs to another range.
    """
    if any(start < other.end and other.start < end for other in kernel.iomem):
        raise Overlaps(f"{start:#x}-{end - 1:#x} overlaps System RAM")
    resource = Resource(start, end, name)
    kernel.iomem.append(resource)
    kernel.iomem.sort(key=lambda item: item.start)
    return resource


def release(kernel: Kernel, start: int, end: int) -> None:
    """Take a range out; a resource that only partly lies in it is cut or split."""
    kept: list[Resource] = []
    for item in kernel.iomem:
        if item.end <= start or end <= item.start:
            kept.append(item)
            continue
        if item.start < start:
            kept.append(Resource(item.start, start, item.name))
        if end < item.end:
            kept.append(Resource(end, item.end, item.name))
    kernel.iomem[:] = kept


def ram_bytes_in(kernel: Kernel, start: int, end: int) -> int:
    """How many bytes of [start, end) are System RAM.  Linux: walk_system_ram_range, as offline_pages counts."""
    return sum(max(0, min(end, item.end) - max(start, item.start)) for item in kernel.iomem)
