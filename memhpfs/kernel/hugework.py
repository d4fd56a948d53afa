"""Workloads that use huge pages: those of the pools first, and further ones made for them.

Source: alloc_hugetlb_folio, free_huge_folio, hugetlb_acct_memory (mm/hugetlb.c).
Invariant: what a workload leaves behind is the pool that it found.
"""

from memhpfs.errors import NoMemory
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import (
    GIGANTIC_PAGES,
    allocate_huge_2m,
    available_2m,
    free_huge_2m,
    gigantic_pool,
    set_gigantic_pool,
    take_from_pool_2m,
)
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.kernel.state import Kernel, Workload
from memhpfs.units import format_size

__all__ = ["give_back_gigantic", "give_back_huge_2m", "take_gigantic", "take_huge_2m"]


def take_huge_2m(kernel: Kernel, workload: Workload, node_ids: list[int]) -> None:
    """Use 2 MiB pages, or have free ones promised.

    Raises:
        NoMemory: there are too few; nothing was taken.
    """
    if workload.reserved:
        use, available = Use.HUGE_2M_FREE, available_2m(kernel) * HUGE_2M_PAGES
        workload.from_pool = max(0, min(workload.nr_pages, available))
    else:
        use, workload.from_pool = Use.HUGE_2M, take_from_pool_2m(kernel, workload.nr_pages, node_ids)
    wanted = workload.nr_pages - workload.from_pool
    made = allocate_huge_2m(kernel, use, wanted, node_ids)
    if made < wanted:
        free_huge_2m(kernel, use, made, node_ids)
        if not workload.reserved:
            _return_to_pool(kernel, workload.from_pool, node_ids)
        raise NoMemory(f"{format_size(workload.nr_pages * PAGE_SIZE)} of {workload.kind} do not fit")


def give_back_huge_2m(kernel: Kernel, workload: Workload, node_ids: list[int]) -> None:
    """Free what a workload has used, or take back the promise."""
    if not workload.reserved:
        _return_to_pool(kernel, workload.from_pool, node_ids)
    made = workload.nr_pages - workload.from_pool
    if workload.reserved:
        made = max(0, min(made, available_2m(kernel) * HUGE_2M_PAGES))
    free_huge_2m(kernel, Use.HUGE_2M_FREE if workload.reserved else Use.HUGE_2M, made, node_ids)


def _return_to_pool(kernel: Kernel, nr_pages: int, node_ids: list[int]) -> None:
    """Make used 2 MiB pages free ones."""
    left = nr_pages
    for node_id in node_ids:
        for zone in kernel.nodes[node_id].zones.values():
            for extent in zone.pages.extents if left else ():
                found = min(left, kernel.pages.get(extent, Use.HUGE_2M))
                kernel.pages.convert(zone.pages, extent, Use.HUGE_2M, Use.HUGE_2M_FREE, found)
                left -= found


def take_gigantic(kernel: Kernel, workload: Workload, node_ids: list[int]) -> None:
    """Use free gigantic pages of the pools, growing them where memory allows.

    Raises:
        NoMemory: there are too few; the pools are as before.
    """
    wanted = workload.nr_pages // GIGANTIC_PAGES
    before = {node_id: gigantic_pool(kernel, node_id)[0] for node_id in node_ids}
    for node_id in node_ids:
        free = sum(gigantic_pool(kernel, n)[1] for n in node_ids)
        set_gigantic_pool(kernel, node_id, before[node_id] + max(0, wanted - free))
    free_pages = [page for page in kernel.gigantic if not page.used and page.node_id in before]
    if len(free_pages) < wanted:
        for node_id, total in before.items():
            set_gigantic_pool(kernel, node_id, total)
        raise NoMemory(f"no {wanted} free gigantic pages")
    workload.from_pool = sum(before.values()) * GIGANTIC_PAGES
    for page in free_pages[:wanted]:
        page.used = True


def give_back_gigantic(kernel: Kernel, workload: Workload) -> None:
    """Free its gigantic pages, and shrink the pools to what they were."""
    left = workload.nr_pages // GIGANTIC_PAGES
    for page in [page for page in kernel.gigantic if page.used][:left]:
        page.used = False
    pool = workload.from_pool // GIGANTIC_PAGES
    for node_id in kernel.nodes:
        total, _ = gigantic_pool(kernel, node_id)
        set_gigantic_pool(kernel, node_id, max(0, min(total, pool)))
        pool = max(0, pool - total)
