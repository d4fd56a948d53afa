"""What a machine is made of at boot: the frozen description that `boot` turns into a `Kernel`.

Lives here: records only, sizes in bytes.  Must not: text formats, defaults of machine files (they are `machine/`'s).
"""

from enum import Enum

from attrs import field, frozen

__all__ = ["BootParams", "MemmapMode", "NodeSpec", "OnlinePolicy", "OnlineType", "RamKind", "RamRange", "Spec"]


class OnlineType(Enum):
    """How a block is to go online.  Linux: enum mmop."""

    OFFLINE = "offline"
    ONLINE = "online"
    KERNEL = "online_kernel"
    MOVABLE = "online_movable"


class OnlinePolicy(Enum):
    """How `online` picks a zone.  Linux: enum online_policy."""

    CONTIG_ZONES = "contig-zones"
    AUTO_MOVABLE = "auto-movable"


class MemmapMode(Enum):
    """The parameter memmap_on_memory.  Linux: enum memmap_on_memory mode."""

    NO = "N"
    YES = "Y"
    FORCE = "force"


class RamKind(Enum):
    """What a boot range is for."""

    NORMAL = "normal"
    MOVABLE = "movable"
    RESERVED = "reserved"
    UNMOVABLE = "unmovable"
    CMA = "cma"


@frozen
class RamRange:
    """One range of boot RAM, as a "System RAM" line of /proc/iomem tells it.

    Attributes:
        start: first byte.
        end: byte after the last.
        node: node id.
        kind: what the range is for.
        mirrored: whether firmware says the range is mirrored (kernelcore=mirror).
    """

    start: int
    end: int
    node: int = 0
    kind: RamKind = RamKind.NORMAL
    mirrored: bool = False


@frozen
class NodeSpec:
    """A possible NUMA node.

    Attributes:
        id: node number.
        cpus: the CPUs it has.
        distances: SLIT row by node id; missing entries are 10 to itself, 20 to others.
    """

    id: int
    cpus: tuple[int, ...] = ()
    distances: tuple[tuple[int, int], ...] = ()


@frozen
class BootParams:
    """What the kernel command line says about memory, parsed.

    Attributes:
        auto_online: `memhp_default_state=`, or None for the profile's default.
        kernelcore_bytes, kernelcore_percent, movablecore_bytes, movablecore_percent: 0 where not given.
        kernelcore_mirror: `kernelcore=mirror`.
    """

    auto_online: OnlineType | None = None
    movable_node: bool = False
    kernelcore_bytes: int = 0
    kernelcore_percent: int = 0
    kernelcore_mirror: bool = False
    movablecore_bytes: int = 0
    movablecore_percent: int = 0
    online_policy: OnlinePolicy = OnlinePolicy.CONTIG_ZONES
    auto_movable_ratio: int = 301
    auto_movable_numa_aware: bool = True
    memmap_on_memory: MemmapMode = MemmapMode.NO


@frozen
class Spec:
    """A machine at boot.

    Attributes:
        release: behaviour profile, e.g. "6.12"; a key of `features.RELEASES`.
        arch: e.g. "x86_64"; a key of `geometry.ARCHES`.
        cmdline: the kernel command line as given (shown by /proc/cmdline).
        params: the same, parsed.
        nodes: possible nodes, ascending.
        ram: boot ranges, ascending and disjoint.
        block_size_bytes: 0 for the architecture's rule.
        max_address: first byte that can never be memory (boot RAM and all that can be plugged lie below).
        migration_rate: bytes a second that migration moves; 0: as fast as the model can.
        hugetlb_free_vmemmap: whether memory maps of huge pages are optimised away (HVO).
        with_files, without_files: optional files switched on or off against the profile, by feature name.
        log: lines that parsing the command line left in the kernel's log, as (level, text).
    """

    release: str
    arch: str
    ram: tuple[RamRange, ...]
    nodes: tuple[NodeSpec, ...] = (NodeSpec(0),)
    cmdline: str = ""
    params: BootParams = field(factory=BootParams)
    block_size_bytes: int = 0
    max_address: int = 1 << 46
    migration_rate: int = 0
    hugetlb_free_vmemmap: bool = False
    with_files: frozenset[str] = frozenset()
    without_files: frozenset[str] = frozenset()
    log: tuple[tuple[str, str], ...] = ()
