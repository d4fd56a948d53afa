"""Switching a machine on: from its description to a booted kernel inside its hardware."""

from collections.abc import Iterator

from memhpfs.errors import SysError, UserError
from memhpfs.kernel.boot import boot
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pause import run_now
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.workload import add_workload
from memhpfs.machine.description import Filling, Machine
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware

__all__ = ["power_on"]


def power_on(machine: Machine) -> Hardware:
    """Boot a machine, plug the DIMMs and start the workloads that it has from the beginning.

    Raises:
        UserError: exit code 2: DIMMs, or workloads, do not fit; all of them.
    """
    hardware = Hardware(
        boot(machine.spec), slots=machine.slots, ram_bytes=machine.ram_bytes, maxmem_bytes=machine.maxmem_bytes,
        hotplug_base=machine.hotplug_base, name=machine.name,
    )
    for misfits in (_plug(hardware, machine), _fill(hardware, machine)):
        if refused := [f"machine {machine.name}: {what}" for what in misfits]:
            raise UserError(refused, exit_code=2)
    return hardware


def _plug(hardware: Hardware, machine: Machine) -> Iterator[str]:
    """Plug the DIMMs; what does not work."""
    for dimm in machine.dimms:
        try:
            run_now(hardware.plug(dimm.id, dimm.size_bytes, dimm.node_id))
        except (QmpError, SysError) as error:
            yield f"dimm {dimm.id}: {error}"


def _fill(hardware: Hardware, machine: Machine) -> Iterator[str]:
    """Start the workloads; what does not work."""
    for filling in machine.fillings:
        try:
            add_workload(hardware.kernel, filling.id, filling.kind, _size_of(hardware.kernel, filling),
                         filling.node_id, movable=filling.movable, reserved=filling.reserved)
        except SysError as error:
            yield f"workload {filling.id}: {error.reason}"


def _size_of(kernel: Kernel, filling: Filling) -> int:
    """Bytes of a workload; a share is one of the memory that the allocator manages, there or everywhere."""
    if not filling.share:
        return filling.size_bytes
    nodes = [node for node in kernel.nodes.values() if filling.node_id in (None, node.id)]
    pages = sum(zone.managed_pages for node in nodes for zone in node.zones.values())
    return pages * filling.share // 100 * PAGE_SIZE
