"""Workloads: something in the machine that uses memory, from when it is added until it is deleted.

A workload is a promise over counts, not over pages: its pages move and mix with others of the same use.
Memory to be pinned for long is first there like any other of a program; what lies in ZONE_MOVABLE then moves away.
Source: the gfp masks of each kind's allocations; long-term pins leave ZONE_MOVABLE and CMA first
(check_and_migrate_movable_pages, mm/gup.c).
"""

from attrs import frozen

from memhpfs.errors import AlreadyExists, BadText, NoMemory, NoSuchDevice
from memhpfs.kernel.alloc import MOVABLE_ALLOCATIONS, allocate, nodes_by_distance, pages_in_movable, release_pages
from memhpfs.kernel.dump import warn_alloc
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import GIGANTIC_PAGES
from memhpfs.kernel.hugework import give_back_gigantic, give_back_huge_2m, take_gigantic, take_huge_2m
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.kernel.state import Kernel, Workload
from memhpfs.units import align_up, format_size

__all__ = ["KINDS", "Kind", "add_workload", "delete_workload"]


@frozen
class Kind:
    """A kind of workload: the use its pages have, and whether they may be movable, or only reserved."""

    use: Use
    chunk: int = 1
    may_move: bool = False
    may_reserve: bool = False


KINDS: dict[str, Kind] = {
    "anon": Kind(Use.ANON),
    "file": Kind(Use.FILE),
    "shm": Kind(Use.SHM),
    "mlock": Kind(Use.MLOCK),
    "hugetlb-2M": Kind(Use.HUGE_2M, HUGE_2M_PAGES, may_reserve=True),
    "hugetlb-1G": Kind(Use.HUGE_1G, GIGANTIC_PAGES),
    "pinned": Kind(Use.PINNED, may_move=True),
    "slab": Kind(Use.SLAB),
    "pagetables": Kind(Use.PAGETABLES),
    "kernel": Kind(Use.KERNEL),
    "balloon": Kind(Use.BALLOON, may_move=True),
    "cma": Kind(Use.CMA),
}


def add_workload(
    kernel: Kernel, name: str, kind: str, size_bytes: int, node_id: int | None = None, *, movable: bool = False,
    reserved: bool = False,
) -> Workload:
    """Fill memory.

    Args:
        name: a new name.
        kind: key of KINDS.
        size_bytes: rounded up to whole pages of the kind.
        node_id: only this node; None: node 0 first, then by distance.
        movable: for `pinned`: a short-term pin, which may stand in ZONE_MOVABLE; for `balloon`: pages that can migrate.
        reserved: for `hugetlb-2M`: pages of the pool are promised, and stay free until they are used.

    Raises:
        AlreadyExists: the name is taken.
        NoSuchDevice: no such node.
        BadText: no such kind, it cannot be movable or reserved, or balloons of both sorts.
        NoMemory: it does not fit; nothing was taken.
    """
    if name in kernel.workloads:
        raise AlreadyExists(f"workload {name!r} exists already")
    if kind not in KINDS:
        raise BadText(f"kind {kind!r} is none of {', '.join(KINDS)}")
    row = KINDS[kind]
    if movable and not row.may_move:
        raise BadText(f"kind {kind!r} cannot be movable; only pinned and balloon can")
    if reserved and not row.may_reserve:
        raise BadText(f"kind {kind!r} cannot be reserved; only hugetlb-2M can")
    if node_id is not None and node_id not in kernel.nodes:
        raise NoSuchDevice(f"node {node_id} does not exist")
    nr_pages = align_up(-(-size_bytes // PAGE_SIZE), row.chunk)
    workload = Workload(name, kind, nr_pages, node_id, movable, reserved=reserved)
    if any(other.kind == kind == "balloon" and other.movable != movable for other in kernel.workloads.values()):
        raise BadText("a kernel has balloons with compaction or without, not both")
    _take(kernel, workload, row, _nodes(kernel, node_id))
    if row.use is Use.BALLOON:
        kernel.balloon_compaction = movable
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
        give_back_gigantic(kernel, workload)
    elif row.use is Use.HUGE_2M:
        give_back_huge_2m(kernel, workload, everywhere)
    else:
        _count_balloon(kernel, row, "balloon_deflate", release_pages(kernel, row.use, workload.nr_pages, everywhere))


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
        take_gigantic(kernel, workload, nodes)
    elif row.use is Use.HUGE_2M:
        take_huge_2m(kernel, workload, nodes)
    else:
        movable = row.use in MOVABLE_ALLOCATIONS or workload.movable
        away = pages_in_movable(kernel, wanted, nodes) if row.use is Use.PINNED and not movable else 0
        found = allocate(kernel, row.use, wanted, nodes, movable=movable)
        kernel.events["pgmigrate_success" if found == wanted else "pgmigrate_fail"] += away
        _count_balloon(kernel, row, "balloon_inflate", found)
        if found < wanted:
            _count_balloon(kernel, row, "balloon_deflate", release_pages(kernel, row.use, found, nodes))
            if not movable:
                warn_alloc(kernel, workload.name, "page allocation failure", "kernel")
            raise NoMemory(f"{format_size(workload.nr_pages * PAGE_SIZE)} of {workload.kind} do not fit")


def _count_balloon(kernel: Kernel, row: Kind, event: str, nr_pages: int) -> None:
    if row.use is Use.BALLOON:
        kernel.events[event] += nr_pages


def _take_cma(kernel: Kernel, wanted: int) -> None:
    total = sum(zone.pages.totals[Use.CMA] for node in kernel.nodes.values() for zone in node.zones.values())
    if kernel.cma_used + wanted > total:
        raise NoMemory(f"{format_size(wanted * PAGE_SIZE)} do not fit into CMA, which has "
                       f"{format_size((total - kernel.cma_used) * PAGE_SIZE)} left")
    kernel.cma_used += wanted
