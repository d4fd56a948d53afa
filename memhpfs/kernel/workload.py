"""Workloads: something in the machine that uses memory, from when it is added until it is deleted.

A workload is a promise over counts, not over pages: its pages move and mix with others of the same use.
Source: the gfp masks of each kind's allocations; long-term pins leave ZONE_MOVABLE and CMA first
(check_and_migrate_movable_pages, mm/gup.c).
"""

from attrs import frozen

from memhpfs.errors import AlreadyExists, BadText, NoMemory, NoSuchDevice
from memhpfs.kernel.alloc import MOVABLE_ALLOCATIONS, allocate, nodes_by_distance, release_pages
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import GIGANTIC_PAGES, gigantic_pool, set_gigantic_pool
from memhpfs.kernel.pages import HUGE_2M_PAGES, UNMOVABLE_USES, Use
from memhpfs.kernel.state import Kernel, Workload
from memhpfs.units import align_up

__all__ = ["KINDS", "Kind", "add_workload", "delete_workload"]


@frozen
class Kind:
    """A kind of workload: the use its pages have, and whether it may say that they can move."""

    use: Use
    chunk: int = 1
    may_move: bool = False


KINDS: dict[str, Kind] = {
    "anon": Kind(Use.ANON),
    "file": Kind(Use.FILE),
    "shm": Kind(Use.SHM),
    "mlock": Kind(Use.MLOCK),
    "hugetlb-2M": Kind(Use.HUGE_2M, HUGE_2M_PAGES),
    "hugetlb-1G": Kind(Use.HUGE_1G, GIGANTIC_PAGES),
    "pinned": Kind(Use.PINNED, may_move=True),
    "slab": Kind(Use.SLAB),
    "pagetables": Kind(Use.PAGETABLES),
    "kernel": Kind(Use.KERNEL),
    "balloon": Kind(Use.BALLOON, may_move=True),
    "cma": Kind(Use.CMA),
}


def add_workload(
    kernel: Kernel, name: str, kind: str, size_bytes: int, node_id: int | None = None, *, movable: bool = False
) -> Workload:
    """Fill memory.

    Args:
        name: a new name.
        kind: key of KINDS.
        size_bytes: rounded up to whole pages of the kind.
        node_id: only this node; None: node 0 first, then by distance.
        movable: for `pinned`: a short-term pin, which may stand in ZONE_MOVABLE; for `balloon`: pages that can migrate.

    Raises:
        AlreadyExists: the name is taken.
        NoSuchDevice: no such node.
        BadText: no such kind, or it cannot be movable.
        NoMemory: it does not fit; nothing was taken.
    """
    if name in kernel.workloads:
        raise AlreadyExists(f"workload {name!r} exists already")
    if kind not in KINDS:
        raise BadText(f"kind {kind!r} is none of {', '.join(KINDS)}")
    row = KINDS[kind]
    if movable and not row.may_move:
        raise BadText(f"kind {kind!r} cannot be movable; only pinned and balloon can")
    if node_id is not None and node_id not in kernel.nodes:
        raise NoSuchDevice(f"node {node_id} does not exist")
    nr_pages = align_up(-(-size_bytes // PAGE_SIZE), row.chunk)
    workload = Workload(name, kind, nr_pages, node_id, movable)
    if row.use is Use.BALLOON:
        kernel.balloon_compaction = movable
    _take(kernel, workload, row, _nodes(kernel, node_id))
    kernel.workloads[name] = workload
    return workload


def delete_workload(kernel: Kernel, name: str) -> None:
    """Free what a workload holds.

    Raises:
        NoSuchDevice: no such workload.
    """
    workload = kernel.workloads.pop(name, None)
    if workload is None:
        raise NoSuchDevice(f"workload {name!r} does not exist")
    row, nodes = KINDS[workload.kind], _nodes(kernel, workload.node_id)
    everywhere = [*nodes, *(node_id for node_id in kernel.nodes if node_id not in nodes)]
    if row.use is Use.CMA:
        kernel.cma_used -= workload.nr_pages
    elif row.use is Use.HUGE_1G:
        _give_back_gigantic(kernel, workload)
    else:
        _return_to_pool(kernel, workload, everywhere)
        release_pages(kernel, row.use, workload.nr_pages - workload.from_pool, everywhere)


def _nodes(kernel: Kernel, node_id: int | None) -> list[int]:
    if node_id is not None:
        return [node_id]
    return [node.id for node in nodes_by_distance(kernel, min(kernel.nodes))]


def _take(kernel: Kernel, workload: Workload, row: Kind, nodes: list[int]) -> None:
    """Allocate all of it or nothing.

    Raises:
        NoMemory: it does not fit.
    """
    wanted = workload.nr_pages
    if row.use is Use.CMA:
        _take_cma(kernel, wanted)
    elif row.use is Use.HUGE_1G:
        _take_gigantic(kernel, workload, nodes)
    else:
        if row.use is Use.HUGE_2M:
            workload.from_pool = _take_from_pool(kernel, wanted, nodes)
            wanted -= workload.from_pool
        movable = row.use in MOVABLE_ALLOCATIONS or workload.movable
        found = allocate(kernel, row.use, wanted, nodes, movable=movable, chunk=row.chunk)
        if found < wanted:
            release_pages(kernel, row.use, found, nodes)
            _return_to_pool(kernel, workload, nodes)
            _log_failure(kernel, row, movable)
            raise NoMemory(f"{workload.nr_pages * PAGE_SIZE} bytes of {workload.kind} do not fit")


def _log_failure(kernel: Kernel, row: Kind, movable: bool) -> None:
    """Linux: warn_alloc; told for kernel allocations, which fail while ZONE_MOVABLE may have room."""
    if row.use in UNMOVABLE_USES or not movable:
        free = sum(z.pages.totals[Use.FREE] for n in kernel.nodes.values() for z in n.zones.values() if z.movable)
        kernel.journal.log("allocation-failure", movable_free=free)


def _take_from_pool(kernel: Kernel, wanted: int, nodes: list[int]) -> int:
    """Use free 2 MiB pages of the pool; how many pages that were."""
    left = wanted
    for node_id in nodes:
        for zone in kernel.nodes[node_id].zones.values():
            for extent in zone.pages.extents if zone.pages.totals[Use.HUGE_2M_FREE] else ():
                found = min(left, kernel.pages.get(extent, Use.HUGE_2M_FREE))
                kernel.pages.convert(zone.pages, extent, Use.HUGE_2M_FREE, Use.HUGE_2M, found)
                left -= found
    return wanted - left


def _return_to_pool(kernel: Kernel, workload: Workload, nodes: list[int]) -> None:
    """Give what came from the pool back to it."""
    left, workload.from_pool = workload.from_pool, 0
    for node_id in nodes:
        for zone in kernel.nodes[node_id].zones.values():
            for extent in zone.pages.extents if left else ():
                found = min(left, kernel.pages.get(extent, Use.HUGE_2M))
                kernel.pages.convert(zone.pages, extent, Use.HUGE_2M, Use.HUGE_2M_FREE, found)
                left -= found


def _take_cma(kernel: Kernel, wanted: int) -> None:
    total = sum(zone.pages.totals[Use.CMA] for node in kernel.nodes.values() for zone in node.zones.values())
    if kernel.cma_used + wanted > total:
        raise NoMemory(f"{wanted * PAGE_SIZE} bytes do not fit into CMA, which has "
                       f"{(total - kernel.cma_used) * PAGE_SIZE} left")
    kernel.cma_used += wanted


def _take_gigantic(kernel: Kernel, workload: Workload, nodes: list[int]) -> None:
    """Use free gigantic pages of the pools, growing them where memory allows."""
    wanted = workload.nr_pages // GIGANTIC_PAGES
    before = {node_id: gigantic_pool(kernel, node_id)[0] for node_id in nodes}
    for node_id in nodes:
        free = sum(gigantic_pool(kernel, n)[1] for n in nodes)
        set_gigantic_pool(kernel, node_id, before[node_id] + max(0, wanted - free))
    free_pages = [page for page in kernel.gigantic if not page.used and page.node_id in before]
    if len(free_pages) < wanted:
        for node_id, total in before.items():
            set_gigantic_pool(kernel, node_id, total)
        raise NoMemory(f"no {wanted} free gigantic pages")
    workload.from_pool = sum(before.values()) * GIGANTIC_PAGES
    for page in free_pages[:wanted]:
        page.used = True


def _give_back_gigantic(kernel: Kernel, workload: Workload) -> None:
    """Free its gigantic pages, and shrink the pools to what they were."""
    left = workload.nr_pages // GIGANTIC_PAGES
    for page in [page for page in kernel.gigantic if page.used][:left]:
        page.used = False
    pool = workload.from_pool // GIGANTIC_PAGES
    for node_id in kernel.nodes:
        total, _ = gigantic_pool(kernel, node_id)
        set_gigantic_pool(kernel, node_id, max(0, min(total, pool)))
        pool = max(0, pool - total)
