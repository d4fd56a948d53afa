"""What a machine file comes to: the kernel's boot description and the hardware around it."""

from collections.abc import Iterable

from attrs import frozen

from memhpfs.kernel.geometry import ARCHES, block_size_of
from memhpfs.kernel.spec import RamRange, Spec
from memhpfs.units import MIB, align_up

__all__ = ["Dimm", "Filling", "Machine", "installed_bytes"]


@frozen
class Dimm:
    """A DIMM that is plugged before the first read."""

    id: str
    size_bytes: int
    node_id: int = 0


@frozen
class Filling:
    """A workload that is there before the first read.

    Attributes:
        kind: key of kernel.workload.KINDS.
        size_bytes: how much; 0 where `share` says it.
        share: percent of the memory that is online, of its node if it has one.
        node_id: the only node it uses, or None.
        movable, reserved: see kernel.workload.add_workload.
    """

    id: str
    kind: str
    size_bytes: int = 0
    share: int = 0
    node_id: int | None = None
    movable: bool = False
    reserved: bool = False


@frozen
class Machine:
    """A machine.

    Attributes:
        name: preset name, or the file's name.
        explain: one line of what it is for; may be empty.
        spec: what the kernel boots with.
        slots: DIMM slots.
        maxmem_bytes: boot RAM and all that can be plugged.
        hotplug_base: address from which plugged devices are placed.
        dimms: those plugged at boot, in order.
        fillings: workloads started after that, in order.
        remarks: on what of the file has no effect, for whoever wrote it.
    """

    name: str
    explain: str
    spec: Spec
    slots: int
    maxmem_bytes: int
    hotplug_base: int
    dimms: tuple[Dimm, ...] = ()
    fillings: tuple[Filling, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def ram_bytes(self) -> int:
        """Boot RAM that is installed, in bytes."""
        return installed_bytes(self.spec.ram)

    @property
    def block_size_bytes(self) -> int:
        """The size of its memory blocks."""
        return self.spec.block_size_bytes or block_size_of(ARCHES[self.spec.arch], self.spec.ram)


def installed_bytes(ram: Iterable[RamRange]) -> int:
    """The RAM that is installed, of which firmware keeps less than a MiB from the kernel."""
    return align_up(sum(item.end - item.start for item in ram), MIB)
