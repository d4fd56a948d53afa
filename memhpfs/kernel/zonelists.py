"""Zone lists, which the kernel builds anew when a zone gets its first memory or loses its last.

The model walks nodes and zones at each allocation and keeps no lists; what remains is what the log says.
Source: build_all_zonelists, build_zonelists, nr_free_zone_pages (mm/page_alloc.c); dump_demotion_targets
(mm/memory-tiers.c).
"""

from memhpfs.kernel.alloc import nodes_by_distance
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.watermarks import watermarks

__all__ = ["log_demotion_targets", "log_zonelists"]


def log_zonelists(kernel: Kernel) -> None:
    """Say in which order nodes are tried, and how much memory there is above the high watermarks."""
    if kernel.features.numa:
        for node_id in kernel.nodes:
            order = [node.id for node in nodes_by_distance(kernel, node_id) if node.has_memory]
            kernel.journal.log("fallback-order", node=node_id, order=order)
    marks = watermarks(kernel)
    kernel.journal.log(
        "zonelists-built", nodes=sum(node.online for node in kernel.nodes.values()),
        pages=sum(max(0, zone.managed_pages - marks[zone].high) for zone in marks),
    )
    populated = [zone for zone in marks if zone.present_pages and not zone.movable]
    if kernel.features.numa and populated:
        kernel.journal.log("policy-zone", zone=max(populated, key=lambda zone: zone.index).name)


def log_demotion_targets(kernel: Kernel) -> None:
    """A node gained its first memory or lost its last.  All memory is alike here, so none is demoted to."""
    for node in kernel.nodes.values():
        if node.has_memory and kernel.features.numa:
            kernel.journal.log("demotion-targets", node=node.id)
