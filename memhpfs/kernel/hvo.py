"""The memory map of huge pages, which HugeTLB Vmemmap Optimization mostly gives back and needs again to split a page.

Memory maps of hot-added memory are pages of the kernel like others; of those that boot reserved, pages that HVO gives
back become ordinary ones.  A memory map that its block hosts is never given back.
Source: hugetlb_vmemmap_optimize_folio, hugetlb_vmemmap_restore_folio, free_vmemmap_page (mm/hugetlb_vmemmap.c).
Invariant: no more is given back than the maps of all memory could spare.
"""

from memhpfs.errors import CannotDissolve
from memhpfs.kernel.alloc import allocate, nodes_by_distance, release_pages
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import Use
from memhpfs.kernel.state import Kernel

__all__ = ["optimize_memmap", "restore_memmap"]

_PAGE_STRUCT_BYTES = 64
_PAGE_STRUCTS = PAGE_SIZE // _PAGE_STRUCT_BYTES


def _spared(nr_pages: int) -> int:
    """Memory map pages that a huge page of so many pages does without: all but one."""
    return nr_pages // _PAGE_STRUCTS - 1


def optimize_memmap(kernel: Kernel, node_id: int, nr_pages: int, count: int = 1) -> None:
    """Huge pages were made: give back most of their memory maps.

    Args:
        nr_pages: pages of one huge page.
        count: how many there are.
    """
    if not kernel.spec.hugetlb_free_vmemmap:
        return
    nodes = [node.id for node in nodes_by_distance(kernel, node_id)]
    wanted = count * _spared(nr_pages)
    ordinary = max(0, _hot_added_maps(kernel) + kernel.hvo_boot_pages - kernel.hvo_given_back)
    kernel.hvo_given_back += release_pages(kernel, Use.KERNEL, min(wanted, ordinary), nodes)
    kernel.hvo_given_back += _free_reserved(kernel, nodes, max(0, wanted - ordinary))


def restore_memmap(kernel: Kernel, node_id: int, nr_pages: int) -> None:
    """A huge page is to be split: allocate what its memory map lacks.

    Raises:
        CannotDissolve: there is no memory for it in the kernel zones.
    """
    wanted = min(_spared(nr_pages), kernel.hvo_given_back)
    if not wanted:
        return
    nodes = [node.id for node in nodes_by_distance(kernel, node_id)]
    found = allocate(kernel, Use.KERNEL, wanted, nodes, movable=False)
    if found < wanted:
        release_pages(kernel, Use.KERNEL, found, nodes)
        raise CannotDissolve()
    kernel.hvo_given_back -= wanted


def _hot_added_maps(kernel: Kernel) -> int:
    """Pages in memory maps of hot-added blocks that do not host their own."""
    hot_added = sum(not block.early and not block.vmemmap_pages for block in kernel.blocks.values())
    return hot_added * kernel.pages_per_block // _PAGE_STRUCTS


def _free_reserved(kernel: Kernel, node_ids: list[int], wanted: int) -> int:
    """Hand reserved pages of boot blocks to the allocator, from the top down; how many there were.

    Linux: free_bootmem_page.
    """
    early = [block for block in kernel.blocks.values() if block.early]
    spare = sum(block.present_pages for block in early) // _PAGE_STRUCTS - kernel.hvo_boot_pages
    wanted = left = max(0, min(wanted, spare))
    for block in sorted(early, key=lambda block: (node_ids.index(block.node_id), -block.id)):
        zone = block.zone
        if not left or zone is None or not block.extents or block.extents[0] in zone.pages.isolated:
            continue
        found = min(left, block.unmanaged_pages)
        block.unmanaged_pages -= found
        zone.managed_pages += found
        kernel.pages.add(zone.pages, block.extents[0], Use.FREE, found)
        left -= found
    kernel.hvo_boot_pages += wanted - left
    return wanted - left
