"""The records of the model: what the kernel knows about its memory.  No behaviour beyond trivial look-ups.

Lives here: Kernel, Node, Zone, Group, Block, Params.  All numbers of memory are pages (pfn: page frame number) unless
the name says bytes.  Verb modules change these records; sysfs/ only reads them.

Invariants (see check.py): a zone's present pages are those of the online blocks it holds; spans cover them; managed
never exceeds present; a block's node is the node of its zone.
"""

from collections import Counter
from enum import Enum

from attrs import define, field

from memhpfs.kernel.features import Features
from memhpfs.kernel.geometry import PAGE_SIZE, Arch
from memhpfs.kernel.journal import Journal
from memhpfs.kernel.pages import PageCounts, ZonePages
from memhpfs.kernel.spec import MemmapMode, OnlinePolicy, OnlineType, Spec

__all__ = [
    "MOVABLE", "Block", "BlockState", "Fault", "Gigantic", "Group", "HotplugLock", "Kernel", "Node", "Notifier",
    "Params", "Resource", "Workload", "Zone",
]

MOVABLE = "Movable"


class BlockState(Enum):
    """State of a memory block.  Linux: MEM_ONLINE, MEM_GOING_OFFLINE, MEM_OFFLINE."""

    ONLINE = "online"
    GOING_OFFLINE = "going-offline"
    OFFLINE = "offline"


@define(eq=False)
class Zone:
    """A zone of a node.  Linux: struct zone.

    Attributes:
        name: DMA, DMA32, Normal or Movable.
        start_pfn, spanned_pages: the span; both 0 for an empty zone.
        present_pages: pages of online blocks inside the span.
        present_early_pages: those of boot memory.
        managed_pages: pages given to the page allocator.
        cma_pages: managed pages that belong to CMA.
        pages: what the managed pages are used for.
    """

    node_id: int
    name: str
    index: int
    start_pfn: int = 0
    spanned_pages: int = 0
    present_pages: int = 0
    present_early_pages: int = 0
    managed_pages: int = 0
    cma_pages: int = 0
    pages: ZonePages = field(factory=ZonePages)

    @property
    def end_pfn(self) -> int:
        return self.start_pfn + self.spanned_pages

    @property
    def movable(self) -> bool:
        return self.name == MOVABLE

    def intersects(self, start_pfn: int, nr_pages: int) -> bool:
        """Whether the span overlaps the range; holes inside the span count.  Linux: zone_intersects."""
        return self.spanned_pages > 0 and start_pfn < self.end_pfn and start_pfn + nr_pages > self.start_pfn


@define(eq=False)
class Node:
    """A possible NUMA node.  Linux: pg_data_t and struct node.

    Attributes:
        zones: by name, in zone order, Movable last.
        online: registered as a device.
        has_memory, has_normal_memory: the node masks N_MEMORY and N_NORMAL_MEMORY.
        serial: number of the node device, new each time it is registered; 0 while it is not.
        links: blocks that have a nodeN link to this node, ascending.
        zone_ever_online: names of zones that were populated after boot (their watermarks stay).
        memory_failure: what hard offlining came to, by counter.
    """

    id: int
    cpus: tuple[int, ...]
    zones: dict[str, Zone]
    distances: dict[int, int] = field(factory=dict)
    online: bool = False
    has_memory: bool = False
    has_normal_memory: bool = False
    serial: int = 0
    links: dict[int, "Block"] = field(factory=dict)
    zone_ever_online: set[str] = field(factory=set)
    memory_failure: dict[str, int] = field(
        factory=lambda: dict.fromkeys(("total", "ignored", "failed", "delayed", "recovered"), 0)
    )

    @property
    def present_pages(self) -> int:
        return sum(zone.present_pages for zone in self.zones.values())

    @property
    def spanned_pages(self) -> int:
        spans = [zone for zone in self.zones.values() if zone.spanned_pages]
        return max(z.end_pfn for z in spans) - min(z.start_pfn for z in spans) if spans else 0


@define(eq=False)
class Group:
    """A memory group: blocks that belong to one device.  Linux: struct memory_group.

    Attributes:
        node_id: its node.
        max_pages: size of a static group (a DIMM); 0 for a dynamic one.
        unit_pages: unit of a dynamic group (virtio-mem); 0 for a static one.
        firmware_slot: DIMM slot whose ACPI device the blocks are linked to, or -1.
        blocks: its blocks by id.
    """

    node_id: int
    max_pages: int = 0
    unit_pages: int = 0
    present_kernel_pages: int = 0
    present_movable_pages: int = 0
    firmware_slot: int = -1
    blocks: dict[int, "Block"] = field(factory=dict)

    @property
    def dynamic(self) -> bool:
        return self.unit_pages > 0


@define(eq=False)
class Block:
    """A memory block.  Linux: struct memory_block.

    Attributes:
        id: block number; it covers pfn [id * pages_per_block, (id + 1) * pages_per_block).
        node_id: its node (for several, the last one found at boot).
        node_ids: all nodes it has links to.
        state: what `state` shows.
        device_offline: what `online` shows, inverted.  Linux: dev->offline.
        online_type: the sticky type of the last request; OFFLINE when none is left.
        zone: the zone of an online block; None when offline or ambiguous.
        group: its memory group.
        early: boot memory.
        present_pages: pages that are RAM (fewer than a block's where it has holes).
        unmanaged_pages: present pages that boot reserved, so the allocator never had them.
        extents: where its pages are counted, one for each zone it lies in; none while it is offline.
        vmemmap_pages: pages at its start that hold its own memmap (memmap_on_memory).
        nr_hwpoison: poisoned pages.
        serial: number of the device, never used twice.
        parts: for boot blocks in several zones, the RAM as (zone, first pfn, pfn after the last), ascending.
    """

    id: int
    node_id: int
    serial: int
    state: BlockState = BlockState.OFFLINE
    device_offline: bool = True
    online_type: OnlineType = OnlineType.OFFLINE
    zone: Zone | None = None
    group: Group | None = None
    early: bool = False
    present_pages: int = 0
    unmanaged_pages: int = 0
    extents: tuple[int, ...] = ()
    vmemmap_pages: int = 0
    nr_hwpoison: int = 0
    node_ids: tuple[int, ...] = ()
    parts: tuple[tuple[Zone, int, int], ...] = ()


@define
class Params:
    """What can be changed at run time: module parameters and auto_online_blocks.

    Attributes:
        movable_node: from the command line, for ever.
    """

    auto_online: OnlineType
    online_policy: OnlinePolicy
    auto_movable_ratio: int
    auto_movable_numa_aware: bool
    memmap_on_memory: MemmapMode
    movable_node: bool
    drivers_autoprobe: dict[str, bool] = field(factory=lambda: {"memory": True, "node": True})


@define(eq=False)
class Resource:
    """A range of the physical address map.  Linux: struct resource, only RAM here.

    Attributes:
        start, end: bytes; end is exclusive.
        name: e.g. "System RAM".
    """

    start: int
    end: int
    name: str = "System RAM"


@define(eq=False)
class HotplugLock:
    """The global device hotplug lock.  Linux: device_hotplug_lock.

    Attributes:
        owner: a word for whoever holds it, or None.
        releases: how often it was released; the driver wakes waiters when it moves.
    """

    owner: str | None = None
    releases: int = 0


@define(eq=False)
class Notifier:
    """The memory notifier chain as far as it can be steered: errors injected at GOING_ONLINE and GOING_OFFLINE.

    Attributes:
        inject: errno (positive) by action name; 0 lets the action pass.  Linux: lib/memory-notifier-error-inject.c.
    """

    inject: dict[str, int] = field(factory=lambda: {"MEM_GOING_ONLINE": 0, "MEM_GOING_OFFLINE": 0})


@define(eq=False)
class Gigantic:
    """One 1 GiB page of a pool: the blocks it lies in, and whether it is in use."""

    node_id: int
    block_ids: tuple[int, ...]
    used: bool = False


@define(eq=False)
class Workload:
    """Something in the machine that uses memory.

    Attributes:
        kind: key of workload.KINDS.
        nr_pages: its size.
        node_id: the node it asked for, or None.
        from_pool: pages that were in a huge page pool before.
        reserved: whether it holds huge pages for itself without using them yet.
    """

    name: str
    kind: str
    nr_pages: int
    node_id: int | None
    movable: bool
    from_pool: int = 0
    reserved: bool = False


@define(eq=False)
class Fault:
    """A failure on demand.

    Attributes:
        operation: online, offline, add or remove.
        errno: positive.
        block_id: only this block, or None for all.
        count: how often it still acts, or None for ever.
    """

    name: str
    operation: str
    errno: int
    block_id: int | None = None
    count: int | None = None


@define(eq=False)
class Kernel:
    """The whole model.

    Attributes:
        nodes: possible nodes by id.
        blocks: existing blocks by id, ascending.
        devices: existing block and node devices by serial.
        groups: living memory groups.
        iomem: RAM resources, ascending.
        poisoned: poisoned pages by pfn, and whether the allocator lost them; it never had, say, reserved ones.
        poisoned_elsewhere: poisoned pages that count although no block has them.
        gigantic: 1 GiB pages of all pools.
        workloads, faults: by name.
        balloon_compaction: whether pages of a balloon can migrate.
        cma_used: CMA pages in use.
        hvo_boot_pages: memory map pages of boot memory that HVO has made ordinary ones.
        hvo_given_back: memory map pages that HVO does without at the moment.
        events: counters of /proc/vmstat that only grow.
        pages: what pages are used for.
        power: what was written to power/ files, by (device serial or root device, file name).
        next_serial: number of the next device; devices never share one.
        firmware: (start, size) in bytes of the memory that the ACPI device of each DIMM slot added.
    """

    spec: Spec
    features: Features
    arch: Arch
    block_size_bytes: int
    params: Params
    nodes: dict[int, Node]
    blocks: dict[int, Block] = field(factory=dict)
    devices: "dict[int, Block | Node]" = field(factory=dict)
    groups: list[Group] = field(factory=list)
    iomem: list[Resource] = field(factory=list)
    journal: Journal = field(factory=Journal)
    lock: HotplugLock = field(factory=HotplugLock)
    notifier: Notifier = field(factory=Notifier)
    firmware: dict[int, tuple[int, int]] = field(factory=dict)
    poisoned: dict[int, bool] = field(factory=dict)
    poisoned_elsewhere: int = 0
    gigantic: list[Gigantic] = field(factory=list)
    workloads: dict[str, Workload] = field(factory=dict)
    faults: dict[str, Fault] = field(factory=dict)
    balloon_compaction: bool = True
    cma_used: int = 0
    hvo_boot_pages: int = 0
    hvo_given_back: int = 0
    events: Counter[str] = field(factory=Counter)
    pages: PageCounts = field(init=False)
    power: dict[tuple[str, str], str] = field(factory=dict)
    next_serial: int = 1

    def __attrs_post_init__(self) -> None:
        self.pages = PageCounts(self.pages_per_block)

    @property
    def pages_per_block(self) -> int:
        return self.block_size_bytes // PAGE_SIZE

    def take_serial(self) -> int:
        """A device number never used before."""
        self.next_serial += 1
        return self.next_serial - 1
