"""Page, section and block sizes of each architecture, and the rule that picks the block size at boot.

Source: arch/x86/mm/init_64.c probe_memory_block_size (a guest under a hypervisor).
"""

from attrs import frozen

from memhpfs.kernel.spec import RamRange
from memhpfs.units import GIB, MIB

__all__ = ["ARCHES", "MAX_ORDER_PAGES", "PAGEBLOCK_PAGES", "PAGE_SIZE", "Arch", "block_size_of"]

PAGE_SIZE = 4096
PAGEBLOCK_PAGES = 512
#: Boundaries of ZONE_MOVABLE at boot are multiples of this many pages.
MAX_ORDER_PAGES = 1024


@frozen
class Arch:
    """What the model needs to know of an architecture.

    Attributes:
        zone_limits: (name, first pfn after the zone) for each kernel zone, ascending; the last has no limit.
        section_bytes: smallest unit of memory with a memmap.
    """

    name: str
    section_bytes: int
    zone_limits: tuple[tuple[str, int | None], ...]


ARCHES: dict[str, Arch] = {
    "x86_64": Arch("x86_64", 128 * MIB, (("DMA", 4096), ("DMA32", 1 << 20), ("Normal", None))),
}

_X86_CANDIDATES = (2 * GIB, 1 * GIB, 512 * MIB, 256 * MIB)


def block_size_of(arch: Arch, ram: tuple[RamRange, ...]) -> int:
    """The block size in bytes that the architecture picks for this boot RAM."""
    end = max((item.end for item in ram), default=0)
    if end < 64 * GIB:
        return arch.section_bytes
    return next((size for size in _X86_CANDIDATES if end % size == 0), arch.section_bytes)
