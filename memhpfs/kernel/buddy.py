"""Free pages as the buddy allocator files them: by migrate type and order, and the pageblocks of each type.

The model counts pages and does not place them, so free memory is as little fragmented as its amount allows.  Kernel
allocations keep the rest of the pageblocks they have started.
Source: free_area of struct zone, mobility grouping (mm/page_alloc.c), pagetypeinfo_showblockcount_print (mm/vmstat.c).
Invariant: the free pages of a zone are the sum over its types but Isolate, and over its orders.
"""

from memhpfs.kernel.geometry import PAGEBLOCK_PAGES
from memhpfs.kernel.pages import Use
from memhpfs.kernel.state import Kernel, Zone

__all__ = ["ISOLATE", "NR_ORDERS", "PAGEBLOCK_ORDER", "free_by_type", "free_orders", "orders_of", "pageblocks"]

NR_ORDERS = 11
PAGEBLOCK_ORDER = PAGEBLOCK_PAGES.bit_length() - 1
ISOLATE = "Isolate"


def free_by_type(kernel: Kernel, zone: Zone) -> dict[str, int]:
    """Free pages by migrate type.

    Those of a block that is being offlined are isolated: nr_free_pages does not count them.  It counts those of CMA.
    """
    isolated = sum(kernel.pages.get(extent, Use.FREE) for extent in zone.pages.isolated)
    free = zone.pages.totals[Use.FREE] - isolated
    unmovable, reclaimable = _kernel_uses(zone)
    free_unmovable = min(free, -unmovable % PAGEBLOCK_PAGES)
    free_reclaimable = min(free - free_unmovable, -reclaimable % PAGEBLOCK_PAGES)
    return {
        "Unmovable": free_unmovable,
        "Movable": free - free_unmovable - free_reclaimable,
        "Reclaimable": free_reclaimable,
        "HighAtomic": 0,
        "CMA": _free_cma(kernel, zone),
        ISOLATE: isolated,
    }


def free_orders(kernel: Kernel, zone: Zone) -> list[int]:
    """Free areas by order, without isolated ones."""
    types = [orders_of(pages) for name, pages in free_by_type(kernel, zone).items() if name != ISOLATE]
    return [sum(counts) for counts in zip(*types, strict=True)]


def orders_of(nr_pages: int) -> list[int]:
    """The fewest areas that hold that many pages, by order."""
    largest = NR_ORDERS - 1
    return [nr_pages >> order & 1 for order in range(largest)] + [nr_pages >> largest]


def pageblocks(kernel: Kernel, zone: Zone) -> dict[str, int]:
    """Online pageblocks of a zone by migrate type."""
    total = left = -(-zone.present_pages // PAGEBLOCK_PAGES)
    unmovable, reclaimable = _kernel_uses(zone)
    isolated = len(zone.pages.isolated) * kernel.pages_per_block
    found = {"Movable": 0, "HighAtomic": 0}
    for name, pages in (("CMA", zone.pages.totals[Use.CMA]), (ISOLATE, isolated), ("Unmovable", unmovable),
                        ("Reclaimable", reclaimable)):
        found[name] = min(left, -(-pages // PAGEBLOCK_PAGES))
        left -= found[name]
    return found | {"Movable": total - sum(found.values())}


def _kernel_uses(zone: Zone) -> tuple[int, int]:
    """Unmovable and reclaimable pages of a zone."""
    totals = zone.pages.totals
    reclaimable = totals[Use.SLAB] // 2
    return totals[Use.KERNEL] + totals[Use.PAGETABLES] + totals[Use.SLAB] - reclaimable, reclaimable


def _free_cma(kernel: Kernel, zone: Zone) -> int:
    """Free pages of the zone's CMA areas; the areas are used up in the order of the zones."""
    if not zone.pages.totals[Use.CMA]:
        return 0
    used = kernel.cma_used
    for other in (other for node in kernel.nodes.values() for other in node.zones.values()):
        taken = min(used, other.pages.totals[Use.CMA])
        if other is zone:
            return zone.pages.totals[Use.CMA] - taken
        used -= taken
    return 0
