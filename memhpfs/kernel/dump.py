"""What the kernel says of pages in its log: dumps of single ones, and what is free where when memory ran out.

Source: __dump_page (mm/debug.c), warn_alloc (mm/page_alloc.c), show_free_areas (mm/show_mem.c); transcripts load.small,
fuzz.small.
"""

from memhpfs.kernel.pages import Use
from memhpfs.kernel.state import Kernel, Zone
from memhpfs.kernel.watermarks import watermarks

__all__ = ["dump_page", "warn_alloc"]


def dump_page(kernel: Kernel, zone: Zone, pfn: int, use: Use | None, why: str) -> None:
    """Say what is known of a page.

    Args:
        use: None for a page that boot reserved.
        why: the reason, as the last line has it.
    """
    old, name = kernel.features.old_page_dumps, use.name if use is not None else "RESERVED"
    kernel.journal.log("page", pfn=pfn, use=name, old=old)
    kernel.journal.log("page-flags", use=name, node=zone.node_id, zone=zone.index, old=old)
    kernel.journal.log("page-dumped", why=why)


def warn_alloc(kernel: Kernel, who: str, what: str, gfp: str, order: int = 0) -> None:
    """Say that an allocation failed, and what is free in each zone.

    Args:
        who: name of the process.
        what: "page allocation failure" and the like.
        gfp: a key of the flags in sysfs/klog.py.
    """
    nodes = [node.id for node in kernel.nodes.values() if node.has_memory]
    kernel.journal.log("allocation-failure", who=who, what=what, gfp=gfp, order=order, nodes=nodes)
    kernel.journal.log("mem-info")
    for zone, marks in watermarks(kernel).items():
        if zone.present_pages:
            isolated = sum(kernel.pages.get(extent, Use.FREE) for extent in zone.pages.isolated)
            kernel.journal.log(
                "zone-free", node=zone.node_id, zone=zone.name, free=zone.pages.totals[Use.FREE] - isolated,
                min=marks.min, low=marks.low, high=marks.high, present=zone.present_pages, managed=zone.managed_pages,
            )
