"""/proc/buddyinfo and /proc/pagetypeinfo: free memory by order, by migrate type, and pageblocks by type.

Source: frag_show_print, pagetypeinfo_show (mm/vmstat.c).
Unlike in Linux, buddyinfo leaves out the free pages of a block that is being offlined, so that its sum is MemFree;
pagetypeinfo has them as type Isolate.
"""

from memhpfs.kernel.buddy import (
    NR_ORDERS,
    PAGEBLOCK_ORDER,
    free_by_type,
    free_orders,
    orders_of,
    pageblocks,
)
from memhpfs.kernel.geometry import PAGEBLOCK_PAGES
from memhpfs.kernel.state import Kernel, Node, Zone
from memhpfs.sysfs.items import names_of

__all__ = ["buddyinfo_show", "pagetypeinfo_show"]

_TYPES = """
Unmovable Movable Reclaimable HighAtomic
CMA | cma
Isolate
"""
#: A list is counted only so far, because its zone is locked meanwhile.
_MOST_COUNTED = 100000


def buddyinfo_show(kernel: Kernel) -> str:
    """The text of /proc/buddyinfo."""
    return "".join(
        f"Node {node.id}, zone {zone.name:>8} {_columns(free_orders(kernel, zone))}\n"
        for node in kernel.nodes.values() if node.online for zone in _populated(node)
    )


def pagetypeinfo_show(kernel: Kernel) -> str:
    """The text of /proc/pagetypeinfo; nodes without memory are left out."""
    return "".join(_pagetypeinfo(kernel, node) for node in kernel.nodes.values() if node.online and node.has_memory)


def _pagetypeinfo(kernel: Kernel, node: Node) -> str:
    types = names_of(_TYPES, kernel)
    text = f"Page block order: {PAGEBLOCK_ORDER}\nPages per block:  {PAGEBLOCK_PAGES}\n\n"
    text += f"{'Free pages count per migrate type at order':<43} {_columns(list(range(NR_ORDERS)))}\n"
    for zone in _populated(node):
        free = free_by_type(kernel, zone)
        for name in types:
            text += f"Node {node.id:4}, zone {zone.name:>8}, type {name:>12} {_capped(orders_of(free[name]))}\n"
    text += f"\n{'Number of blocks type ':<23}" + "".join(f"{name:>12} " for name in types) + "\n"
    for zone in _populated(node):
        blocks = pageblocks(kernel, zone)
        text += f"Node {node.id}, zone {zone.name:>8} " + "".join(f"{blocks[name]:12} " for name in types) + "\n"
    return text


def _populated(node: Node) -> list[Zone]:
    return [zone for zone in node.zones.values() if zone.present_pages]


def _columns(counts: list[int]) -> str:
    return "".join(f"{count:6} " for count in counts)


def _capped(counts: list[int]) -> str:
    return "".join(f"{count:6} " if count < _MOST_COUNTED else f">{_MOST_COUNTED:6} " for count in counts)
