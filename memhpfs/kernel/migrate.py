"""The migration engine: emptying an isolated block, with retries that only a signal ends.

Source: scan_movable_pages, do_migrate_range, the loops of offline_pages (mm/memory_hotplug.c), alloc_migration_target
(mm/migrate.c), dissolve_free_hugetlb_folios (mm/hugetlb.c); transcripts load.*.
At each pause the counts add up: a batch of pages is either still here or already there.
"""

from collections.abc import Callable

from memhpfs.errors import Interrupted, UnmovablePage
from memhpfs.kernel.alloc import allocate, free_pages, nodes_by_distance
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import GIGANTIC_PAGES, dissolve, move_gigantic, move_huge_2m, used_gigantic
from memhpfs.kernel.pages import HUGE_2M_PAGES, MOVABLE_USES, Use
from memhpfs.kernel.pause import Nudge, Op, Pause
from memhpfs.kernel.state import Kernel, Zone

__all__ = ["migrate_extent", "migration_nodes"]

#: The longest pause of a batch, so that a signal is seen in time.
_BATCH_NS = 4_000_000
#: Less than one page in so many is free: memory is scarce.  Bytes a second that move then.
_SCARCE, _RATE_WHERE_SCARCE = 4, 128 << 20
#: After a pass that moved nothing Linux spins; others must run here.
_RETRY = Pause("retrying migration", cost_ns=8_000_000, interruptible=True)
_LOOP = Pause("migrating pages", interruptible=True)


def migrate_extent(kernel: Kernel, zone: Zone, extent: int, complain: Callable[[], None]) -> Op[None]:
    """Empty an isolated extent: move what moves, retry what does not, dissolve free huge pages.

    Args:
        complain: called after the first of several passes that move nothing; Linux logs a few of the failures.

    Raises:
        Interrupted: the caller has a signal.
        UnmovablePage: a balloon page that cannot move.
        CannotDissolve: a free huge page is reserved, or its memory map cannot be restored.
    """
    moved, pause = True, _LOOP
    while True:
        if (yield pause) is Nudge.SIGNAL:
            raise Interrupted()
        left = _still_to_move(kernel, extent)
        if left:
            before, moved = moved, (yield from _one_pass(kernel, zone, extent))
            pause = _LOOP if moved else _RETRY
            if before and not moved:
                complain()
            continue
        if kernel.pages.get(extent, Use.BALLOON):
            raise UnmovablePage()
        dissolve(kernel, zone, extent)
        return


def _still_to_move(kernel: Kernel, extent: int) -> int:
    """Pages that the scan finds: LRU pages, movable balloon pages, used huge pages."""
    uses = (*MOVABLE_USES, Use.HUGE_2M, Use.PINNED)
    balloon = kernel.pages.get(extent, Use.BALLOON) if kernel.balloon_compaction else 0
    return kernel.pages.total(extent, uses) + balloon + len(used_gigantic(kernel, extent))


def _one_pass(kernel: Kernel, zone: Zone, extent: int) -> Op[bool]:
    """Try to move everything once, in batches as large as the migration rate allows; whether anything moved."""
    moved, rate = False, _rate(kernel, zone)
    uses = (*MOVABLE_USES, *((Use.BALLOON,) if kernel.balloon_compaction else ()))
    for use in uses:
        while here := kernel.pages.get(extent, use):
            found = _move(kernel, zone, extent, use, min(here, _batch_pages(kernel, rate)))
            if not found:
                break
            moved = True
            yield from _pace(rate, found)
    while here := kernel.pages.get(extent, Use.HUGE_2M):
        wanted = min(here, max(_batch_pages(kernel, rate), HUGE_2M_PAGES))
        found = move_huge_2m(kernel, zone, extent, wanted, migration_nodes(kernel, zone.node_id))
        if not found:
            break
        moved = True
        yield from _pace(rate, found)
    for page in used_gigantic(kernel, extent):
        if move_gigantic(kernel, page):
            moved = True
            yield from _pace(rate, GIGANTIC_PAGES)
    return moved


def _rate(kernel: Kernel, zone: Zone) -> int:
    """How fast pages move, in bytes a second; 0 is at once.

    Where memory is scarce the kernel reclaims and compacts before it finds a place, and is slow on any computer.
    Transcript load.small: a locked block, with a fifth of the memory free, takes more than half a second.
    """
    rate = kernel.spec.migration_rate
    zones = [other for node in migration_nodes(kernel, zone.node_id) for other in kernel.nodes[node].zones.values()]
    if sum(free_pages(kernel, other) for other in zones) * _SCARCE >= sum(other.managed_pages for other in zones):
        return rate
    return min(rate, _RATE_WHERE_SCARCE) if rate else _RATE_WHERE_SCARCE


def _batch_pages(kernel: Kernel, rate: int) -> int:
    return max(1, rate * _BATCH_NS // 1_000_000_000 // PAGE_SIZE) if rate else kernel.pages_per_block


def _pace(rate: int, nr_pages: int) -> Op[None]:
    """Let the time pass that moving takes; a signal is seen here as well.

    Raises:
        Interrupted: the caller has a signal.
    """
    if not rate:
        return
    cost_ns = nr_pages * PAGE_SIZE * 1_000_000_000 // rate
    if (yield Pause("migrating pages", cost_ns=cost_ns, interruptible=True)) is Nudge.SIGNAL:
        raise Interrupted()


def migration_nodes(kernel: Kernel, node_id: int) -> list[int]:
    """Nodes that migration may use: all others with memory; the page's own only when there is no other."""
    others = [node.id for node in nodes_by_distance(kernel, node_id) if node.has_memory and node.id != node_id]
    return others or [node_id]


def _move(kernel: Kernel, zone: Zone, extent: int, use: Use, nr_pages: int) -> int:
    """Move pages of a use to where the zone lists allow it; how many found a place."""
    movable = use is not Use.BALLOON or kernel.balloon_compaction
    found = allocate(kernel, use, nr_pages, migration_nodes(kernel, zone.node_id), movable=movable)
    if found:
        kernel.pages.convert(zone.pages, extent, use, Use.FREE, found)
    kernel.events["pgmigrate_success"] += found
    kernel.events["pgmigrate_fail"] += nr_pages - found
    kernel.events["balloon_migrate"] += found if use is Use.BALLOON else 0
    return found
