"""What memory is used for, as numbers: one record for a zone, a node and the machine.

The items have the names of the kernel's own counters (vmstat_text in mm/vmstat.c) and their units: pages, but kB for
nr_kernel_stack.  An item that the model does not have is 0.  Everything is computed at call time from the totals of
uses that each zone keeps.
Source: si_meminfo, si_mem_available (mm/show_mem.c), global_dirtyable_memory (mm/page-writeback.c), vm_commit_limit
(mm/util.c).
Invariants: an item of a node is the sum over its zones, one of the machine the sum over its nodes; so is the sum of
managed pages, which is MemTotal.
"""

from collections.abc import Iterable

from attrs import frozen

from memhpfs.kernel.buddy import ISOLATE, free_by_type
from memhpfs.kernel.geometry import PAGE_SIZE, PAGEBLOCK_PAGES
from memhpfs.kernel.hugetlb import GIGANTIC_PAGES, gigantic_pool, pool_2m
from memhpfs.kernel.pages import HUGE_2M_PAGES, Use
from memhpfs.kernel.state import Kernel, Node, Zone
from memhpfs.kernel.watermarks import online_cpus, total_reserve, watermarks
from memhpfs.units import KIB, MIB

__all__ = [
    "Stats", "available", "commit_limit", "committed", "hugetlb_pages", "machine_stats", "node_stats", "percpu_pages",
    "system_items", "zone_stats",
]

_STACK_PAGES = 16 * KIB // PAGE_SIZE
#: Kernel threads and processes of an idle system.
_TASKS, _TASKS_PER_CPU = 90, 20
_VMALLOC_PAGES = 3 * MIB // PAGE_SIZE
_PERCPU_PAGES = 344 * KIB // PAGE_SIZE
#: Files that running programs map.
_MAPPED_PAGES = 12 * MIB // PAGE_SIZE
_PAGE_STRUCT_BYTES = 64
_OVERCOMMIT_PERCENT = 50
#: dirty_ratio and dirty_background_ratio, in pages of a page as the kernel rounds them.
_DIRTY_RATIO, _DIRTY_BACKGROUND_RATIO = 20 * PAGE_SIZE // 100, 10 * PAGE_SIZE // 100


@frozen
class Stats:
    """Counters of a zone, a node or the machine.

    Attributes:
        managed: pages the allocator manages.
        items: counters by name.
    """

    managed: int
    items: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.items.get(name, 0)


def zone_stats(kernel: Kernel, zone: Zone) -> Stats:
    """The counters of a zone."""
    used = zone.pages.totals
    free = free_by_type(kernel, zone)
    anon, file, slab = used[Use.ANON] + used[Use.PINNED], used[Use.FILE], used[Use.SLAB]
    lru = {
        "inactive_anon": anon - anon // 8 + used[Use.SHM],
        "active_anon": anon // 8,
        "inactive_file": file - file // 2,
        "active_file": file // 2,
        "unevictable": used[Use.MLOCK],
    }
    areas = [pages for name, pages in free.items() if name != ISOLATE]
    items = {
        "nr_free_pages": sum(areas),
        "nr_free_pages_blocks": sum(pages // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES for pages in areas),
        "nr_mlock": used[Use.MLOCK],
        "nr_free_cma": free["CMA"],
        "nr_slab_reclaimable": slab // 2,
        "nr_slab_unreclaimable": slab - slab // 2,
        "nr_anon_pages": anon + used[Use.MLOCK],
        "nr_file_pages": file + used[Use.SHM],
        "nr_shmem": used[Use.SHM],
        "nr_page_table_pages": used[Use.PAGETABLES],
        "nr_balloon_pages": used[Use.BALLOON],
    }
    return Stats(zone.managed_pages, items | {f"nr_{name}": pages for name, pages in lru.items()}
                 | {f"nr_zone_{name}": pages for name, pages in lru.items()})


def node_stats(kernel: Kernel, node: Node) -> Stats:
    """The counters of a node."""
    stacks = (_TASKS + _TASKS_PER_CPU * len(online_cpus(kernel))) * _STACK_PAGES
    used_gigantic = sum(page.used for page in kernel.gigantic if page.node_id == node.id)
    own = Stats(0, {
        "nr_kernel_stack": _share(kernel, node, Use.KERNEL, stacks) * PAGE_SIZE // KIB,
        "nr_vmalloc": _share(kernel, node, Use.KERNEL, stacks + _VMALLOC_PAGES),
        "nr_mapped": _share(kernel, node, Use.FILE, _MAPPED_PAGES),
        "nr_hugetlb": _used(node, Use.HUGE_2M) + used_gigantic * GIGANTIC_PAGES,
    })
    return _sum([own, *(zone_stats(kernel, zone) for zone in node.zones.values())])


def machine_stats(kernel: Kernel) -> Stats:
    """The counters of the whole machine."""
    return _sum(node_stats(kernel, node) for node in kernel.nodes.values())


def available(kernel: Kernel, machine: Stats) -> int:
    """Pages that new programs can have without swapping.  Linux: si_mem_available."""
    low = sum(marks.low for marks in watermarks(kernel).values())
    cache = machine["nr_active_file"] + machine["nr_inactive_file"]
    slab = machine["nr_slab_reclaimable"]
    free = machine["nr_free_pages"] - total_reserve(kernel)
    return max(0, free + cache - min(cache // 2, low) + slab - min(slab // 2, low))


def hugetlb_pages(kernel: Kernel) -> int:
    """Pages in all huge page pools."""
    return sum(pool_2m(kernel, node_id)[0] * HUGE_2M_PAGES + gigantic_pool(kernel, node_id)[0] * GIGANTIC_PAGES
               for node_id in kernel.nodes)


def commit_limit(kernel: Kernel, machine: Stats) -> int:
    """Linux: vm_commit_limit."""
    return (machine.managed - hugetlb_pages(kernel)) * _OVERCOMMIT_PERCENT // 100


def committed(machine: Stats) -> int:
    """What programs have asked for: half as much again as they use."""
    return (machine["nr_anon_pages"] + machine["nr_shmem"]) * 3 // 2


def percpu_pages(kernel: Kernel) -> int:
    """Memory of per-CPU variables."""
    return _PERCPU_PAGES * len(online_cpus(kernel))


def system_items(kernel: Kernel, machine: Stats) -> dict[str, int]:
    """The counters that exist for the machine only.  Linux: enum vm_stat_item."""
    dirtyable = (max(0, machine["nr_free_pages"] - total_reserve(kernel))
                 + machine["nr_inactive_file"] + machine["nr_active_file"])
    memmap = kernel.pages_per_block * _PAGE_STRUCT_BYTES // PAGE_SIZE
    return {
        "nr_dirty_threshold": dirtyable * _DIRTY_RATIO // PAGE_SIZE,
        "nr_dirty_background_threshold": dirtyable * _DIRTY_BACKGROUND_RATIO // PAGE_SIZE,
        "nr_memmap_pages": memmap * sum(not block.early for block in kernel.blocks.values()),
        "nr_memmap_boot_pages": _boot_memmap_pages(kernel) - kernel.hvo_boot_pages,
    }


def _boot_memmap_pages(kernel: Kernel) -> int:
    """Memmaps of the sections that had RAM at boot, holes included."""
    section, sections, done = kernel.arch.section_bytes, 0, 0
    for item in kernel.spec.ram:
        first, end = max(done, item.start // section), -(-item.end // section)
        sections, done = sections + max(0, end - first), max(done, end)
    return sections * section // PAGE_SIZE * _PAGE_STRUCT_BYTES // PAGE_SIZE


def _used(node: Node, use: Use) -> int:
    return sum(zone.pages.totals[use] for zone in node.zones.values())


def _share(kernel: Kernel, node: Node, use: Use, wanted: int) -> int:
    """A fixed amount lies where boot put it: what the first nodes cannot hold is on the next.  The part of one node."""
    for other in kernel.nodes.values():
        part = min(wanted, _used(other, use))
        if other is node:
            return part
        wanted -= part
    return 0


def _sum(parts: Iterable[Stats]) -> Stats:
    managed, items = 0, dict[str, int]()
    for part in parts:
        managed += part.managed
        for name, value in part.items.items():
            items[name] = items.get(name, 0) + value
    return Stats(managed, items)
