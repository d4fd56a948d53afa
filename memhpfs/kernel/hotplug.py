"""Adding and removing memory: ranges, resources, block devices, nodes, auto-onlining.

Source: add_memory_resource, try_remove_memory, __try_online_node, try_offline_node (mm/memory_hotplug.c).
All Ops here expect the hotplug lock to be held.
"""

from memhpfs.errors import AlreadyThere, BadText, NoMemory, OutOfRange, Overlaps, StillOnline, SysError, Unaligned
from memhpfs.kernel.alloc import allocate, nodes_by_distance, release_pages
from memhpfs.kernel.device import create_block, device_online, link_to_node, remove_block
from memhpfs.kernel.dump import warn_alloc
from memhpfs.kernel.faults import strike
from memhpfs.kernel.geometry import PAGE_SIZE, PAGEBLOCK_PAGES
from memhpfs.kernel.iomem import claim, release
from memhpfs.kernel.journal import DeviceGone, DeviceNew, Uevent
from memhpfs.kernel.lock import with_hotplug_lock
from memhpfs.kernel.pages import Use
from memhpfs.kernel.pause import Op, Pause
from memhpfs.kernel.spec import MemmapMode, OnlineType
from memhpfs.kernel.state import Block, BlockState, Group, Kernel, Node
from memhpfs.kernel.zonelists import log_zonelists

__all__ = ["add_memory", "blocks_of", "probe_memory", "remove_memory", "vmemmap_pages_of"]

#: Others may run between two blocks of a large device.
_NEXT_BLOCK = Pause("next memory block")

_PAGE_STRUCT_BYTES = 64
#: Memory maps are allocated 2 MiB at a time, by the thread that serves ACPI.
_MEMMAP_ORDER, _HOTPLUG_WORKER = 9, "kworker/u8:0"


def blocks_of(kernel: Kernel, start: int, size: int) -> list[Block]:
    """The existing blocks of a range, ascending."""
    first, count = start // kernel.block_size_bytes, size // kernel.block_size_bytes
    return [kernel.blocks[i] for i in range(first, first + count) if i in kernel.blocks]


def vmemmap_pages_of(kernel: Kernel, size: int) -> int:
    """Pages at the start of each block that hold its own memmap, or 0 where that is off or impossible.

    Linux: mhp_supports_memmap_on_memory, memory_block_memmap_on_memory_pages.
    """
    mode, per_block = kernel.params.memmap_on_memory, kernel.pages_per_block
    if mode is MemmapMode.NO or (kernel.features.memmap_single_block and size != kernel.block_size_bytes):
        return 0
    pages = _memmap_pages(kernel)
    return pages if pages % PAGEBLOCK_PAGES == 0 and pages < per_block else 0


def add_memory(
    kernel: Kernel, node_id: int, start: int, size: int, group: Group | None = None, *, memmap_on_memory: bool = False
) -> Op[list[Block]]:
    """Add a range of RAM: resource, blocks, node, links; then online the blocks if auto_online_blocks says so.

    Args:
        start, size: bytes, whole blocks.
        group: the device's memory group.
        memmap_on_memory: whether the source asks for self-hosted memmaps.

    Returns:
        The new blocks, ascending.

    Raises:
        OutOfRange, Overlaps, Unaligned, BadText, NoMemory: nothing was added.
    """
    _check_range(kernel, node_id, start, size)
    first, count = start // kernel.block_size_bytes, size // kernel.block_size_bytes
    strike(kernel, "add", range(first, first + count))
    resource = claim(kernel, start, start + size)
    try:
        if start % kernel.block_size_bytes or size % kernel.block_size_bytes or not size:
            kernel.journal.log("unaligned", block_size=kernel.block_size_bytes, start=start, size=size)
            raise Unaligned()
        if any(block_id in kernel.blocks for block_id in range(first, first + count)):
            raise Overlaps("a section of the range is populated already")
        vmemmap_pages = vmemmap_pages_of(kernel, size) if memmap_on_memory else 0
        if not vmemmap_pages:
            _allocate_memmap(kernel, node_id, count)
    except SysError:
        kernel.iomem.remove(resource)
        raise
    if kernel.features.node_added_first:
        _online_node(kernel, kernel.nodes[node_id])
    blocks = [create_block(kernel, block_id, node_id, group, vmemmap_pages) for block_id in range(first, first + count)]
    _online_node(kernel, kernel.nodes[node_id])
    for block in blocks:
        link_to_node(kernel, block)
    yield from _auto_online(kernel, blocks)
    return blocks


def _memmap_pages(kernel: Kernel) -> int:
    return kernel.pages_per_block * _PAGE_STRUCT_BYTES // PAGE_SIZE


def _allocate_memmap(kernel: Kernel, node_id: int, nr_blocks: int) -> None:
    """Take the memory map of new blocks from the node, or the nearest with memory.  Linux: sparse_add_section.

    Raises:
        NoMemory: it does not fit.
    """
    nodes = [node.id for node in nodes_by_distance(kernel, node_id)]
    wanted = nr_blocks * _memmap_pages(kernel)
    found = allocate(kernel, Use.KERNEL, wanted, nodes, movable=False)
    if found < wanted:
        release_pages(kernel, Use.KERNEL, found, nodes)
        warn_alloc(kernel, _HOTPLUG_WORKER, "vmemmap alloc failure", "retry", _MEMMAP_ORDER)
        raise NoMemory()


def _check_range(kernel: Kernel, node_id: int, start: int, size: int) -> None:
    """Linux: check_hotplug_memory_addressable, node_possible."""
    if start + size > kernel.spec.max_address:
        kernel.journal.log("not-addressable", start=start, end=start + size)
        raise OutOfRange()
    if node_id not in kernel.nodes:
        raise BadText(f"node {node_id} is not possible")


def _auto_online(kernel: Kernel, blocks: list[Block]) -> Op[None]:
    """Online new blocks in ascending order, up to the first that fails; the add has succeeded all the same."""
    if kernel.params.auto_online is OnlineType.OFFLINE:
        return
    for block in blocks:
        yield _NEXT_BLOCK
        block.online_type = kernel.params.auto_online
        try:
            device_online(kernel, block)
        except AlreadyThere:
            continue
        except SysError:
            return


def probe_memory(kernel: Kernel, start: int) -> Op[None]:
    """Add one block by hand; nothing checks that there is RAM.  Linux: probe_store, __add_memory.

    Args:
        start: first byte of the block.

    Raises:
        SysError: see add_memory.
    """

    def work() -> Op[None]:
        node_id = next((node.id for node in kernel.nodes.values() if node.online), 0)
        yield from add_memory(kernel, node_id, start, kernel.block_size_bytes)

    return with_hotplug_lock(kernel, "probe", work)


def remove_memory(kernel: Kernel, start: int, size: int) -> Op[None]:
    """Remove a range whose blocks are all offline, and its node if that leaves it empty.

    Raises:
        StillOnline: a block is online; nothing was removed.
    """
    blocks = blocks_of(kernel, start, size)
    if any(block.state is not BlockState.OFFLINE for block in blocks):
        kernel.journal.log("still-online", start=start, end=start + size)
        raise StillOnline()
    first, count = start // kernel.block_size_bytes, size // kernel.block_size_bytes
    strike(kernel, "remove", range(first, first + count))
    nodes = {node_id for block in blocks for node_id in block.node_ids}
    for i, block in enumerate(blocks):
        if not block.early and not block.vmemmap_pages:
            by_distance = [node.id for node in nodes_by_distance(kernel, block.node_id)]
            release_pages(kernel, Use.KERNEL, _memmap_pages(kernel), by_distance)
        remove_block(kernel, block)
        release(kernel, block.id * kernel.block_size_bytes, (block.id + 1) * kernel.block_size_bytes)
        if i + 1 < len(blocks):
            yield _NEXT_BLOCK
    for node_id in sorted(nodes):
        _offline_empty_node(kernel, kernel.nodes[node_id])


def _online_node(kernel: Kernel, node: Node) -> None:
    """Register the node device if it is not there yet."""
    if node.online:
        return
    node.online, node.serial = True, kernel.take_serial()
    log_zonelists(kernel)
    kernel.devices[node.serial] = node
    kernel.journal.add(DeviceNew("node", node.id, node.serial))
    kernel.journal.add(Uevent("add", "node", node.id))


def _offline_empty_node(kernel: Kernel, node: Node) -> None:
    """Unregister a node without memory, blocks and CPUs.  Linux: try_offline_node."""
    if not node.online or node.links or node.spanned_pages or node.cpus:
        return
    node.online = False
    del kernel.devices[node.serial]
    kernel.journal.add(Uevent("remove", "node", node.id))
    kernel.journal.add(DeviceGone("node", node.id, node.serial))
