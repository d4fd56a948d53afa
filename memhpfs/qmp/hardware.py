"""QEMU's side of a machine: memory backends, DIMMs, slots and addresses, and what it tells its clients.

Lives here: placement, QEMU's refusals, and the firmware's talk with the guest (ACPI notifications and _OST).
Must not: JSON, sockets.  The guest's part of the work are Ops in `work`, to be run one after the other as Linux's ACPI
hotplug queue does; events for clients gather in `events`, without time stamps.
Source: hw/mem/memory-device.c, hw/mem/pc-dimm.c, hw/acpi/memory_hotplug.c, backends/hostmem.c of QEMU; transcripts
fuzz.* (plug, unplug).
"""

from collections import deque
from typing import Any

from attrs import define, field

from memhpfs.errors import Busy, SysError
from memhpfs.kernel import dimm
from memhpfs.kernel.pause import Op
from memhpfs.kernel.state import Kernel
from memhpfs.qmp.errors import QmpError
from memhpfs.units import GIB, MIB, align_up

__all__ = ["KERNEL_LOG_LINES", "Backend", "DimmDevice", "Event", "Hardware"]

Event = dict[str, Any]
#: How many lines of the kernel's log are kept.
KERNEL_LOG_LINES = 4096

#: Alignment of a RAM backend's memory, which is that of huge pages on x86.
_BACKEND_ALIGN = 2 * MIB
#: ACPI: what the firmware asked for, and how it ended (_OST source and status).
_DEVICE_CHECK, _EJECT_REQUEST = 1, 3
_OST_SUCCESS, _OST_FAILURE, _OST_BUSY, _OST_IN_PROGRESS = 0, 1, 0x82, 0x84


@define(eq=False)
class Backend:
    """A memory backend (memory-backend-ram).

    Attributes:
        options: properties that somebody gave, which change nothing here.
        in_use: a device maps it.
    """

    id: str
    size_bytes: int
    options: dict[str, bool] = field(factory=dict)
    in_use: bool = False


@define(eq=False)
class DimmDevice:
    """A pc-dimm.

    Attributes:
        id: None if nobody gave it one.
        path: its place in QEMU's tree of objects.
        hotplugged: plugged after boot.
        unplugging: the guest was asked to give it back, and has not answered.
    """

    id: str | None
    path: str
    backend: Backend
    slot: int
    address: int
    node_id: int
    hotplugged: bool = True
    unplugging: bool = False


@define(eq=False)
class Hardware:
    """The hardware around one kernel.

    Attributes:
        slots: DIMM slots.
        ram_bytes: boot RAM.
        maxmem_bytes: boot RAM and all that can be plugged.
        hotplug_base: first address of the area for plugged devices.
        name: the machine's name.
        work: Ops for the guest, to be run in order.
        events: for clients, oldest first.
        kernel_log: the end of the kernel's log, as on a serial console; lines have seq, seconds, level and text.
        quitting: somebody said `quit`.
    """

    kernel: Kernel
    slots: int
    ram_bytes: int
    maxmem_bytes: int
    hotplug_base: int
    name: str = ""
    work: "deque[Op[object]]" = field(factory=deque)
    events: deque[Event] = field(factory=deque)
    kernel_log: deque[dict[str, Any]] = field(factory=lambda: deque(maxlen=KERNEL_LOG_LINES), init=False)
    backends: dict[str, Backend] = field(factory=dict)
    devices: list[DimmDevice] = field(factory=list)
    quitting: bool = False
    _nameless: int = field(default=0, init=False)

    @property
    def pluggable_bytes(self) -> int:
        """How much memory may be plugged altogether."""
        return self.maxmem_bytes - self.ram_bytes

    # -- backends -----------------------------------------------------------------------------------------------

    def add_backend(self, name: str, size_bytes: int, options: dict[str, bool] | None = None) -> Backend:
        """Make a memory backend.

        Raises:
            QmpError: the name is taken, or the size is no size for memory.
        """
        if name in self.backends:
            raise QmpError(f"attempt to add duplicate property '{name}' to object (type 'container')")
        if size_bytes <= 0:
            raise QmpError("property 'size' of memory-backend-ram doesn't take value '0'")
        self.backends[name] = Backend(name, size_bytes, options or {})
        return self.backends[name]

    def delete_backend(self, name: str) -> None:
        """Delete a memory backend.

        Raises:
            QmpError: no such backend, or a device uses it.
        """
        backend = self.backends.get(name)
        if backend is None:
            raise QmpError(f"object '{name}' not found")
        if backend.in_use:
            raise QmpError(f"object '{name}' is in use, can not be deleted")
        del self.backends[name]

    # -- devices ------------------------------------------------------------------------------------------------

    def device(self, name: str) -> DimmDevice:
        """The device with an id, or at a path.

        Raises:
            QmpError: no such device.
        """
        for device in self.devices:
            if name in (device.id, device.path):
                return device
        raise QmpError(f"Device '{name}' not found", "DeviceNotFound")

    def add_dimm(
        self, name: str | None, backend_name: str, node_id: int = 0, address: int | None = None, slot: int | None = None
    ) -> DimmDevice:
        """Plug a DIMM and notify the guest, whose work is queued.

        Args:
            address: where to map it; None: the lowest free gap.
            slot: None: the lowest free one.

        Raises:
            QmpError: with QEMU's words; nothing was plugged.
        """
        device = self._place(name, backend_name, node_id, address, slot)
        self.work.append(self._insert(device))
        return device

    def plug(self, name: str, size_bytes: int, node_id: int = 0) -> Op[None]:
        """The guest's work for a DIMM that is there at boot; nothing is reported of it.

        Raises:
            QmpError: it does not fit.
        """
        device = self._place(name, self.add_backend(f"mem-{name}", size_bytes).id, node_id, None, None)
        device.hotplugged = False
        return dimm.plug(self.kernel, device.slot, device.address, size_bytes, node_id)

    def delete_dimm(self, name: str) -> None:
        """Ask the guest to give a DIMM back; its work is queued, once.

        Raises:
            QmpError: no such device.
        """
        device = self.device(name)
        if not device.unplugging:
            device.unplugging = True
            self.work.append(self._remove(device))

    def _place(
        self, name: str | None, backend_name: str, node_id: int, address: int | None, slot: int | None
    ) -> DimmDevice:
        if name is not None and name in [device.id for device in self.devices]:
            raise QmpError(f"Duplicate device ID '{name}'")
        backend = self.backends.get(backend_name.removeprefix("/objects/"))
        if backend is None:
            raise QmpError(f"Device '{backend_name}' not found", "DeviceNotFound")
        if backend.in_use:
            raise QmpError(f"can't use already busy memdev: {backend.id}")
        if node_id not in self.kernel.nodes:
            raise QmpError(f"'DIMM property node has value {node_id}' which exceeds the number of numa nodes: "
                           f"{len(self.kernel.nodes)}")
        slot = self._free_slot(slot)
        place = f"peripheral/{name}" if name is not None else f"peripheral-anon/device[{self._nameless}]"
        device = DimmDevice(name, f"/machine/{place}", backend, slot,
                            self._free_address(backend.size_bytes, address), node_id)
        self._nameless += name is None
        backend.in_use = True
        self.devices.append(device)
        return device

    def _free_slot(self, slot: int | None) -> int:
        """Linux sees one ACPI device for each slot.  QEMU: pc_dimm_get_free_slot."""
        taken = {device.slot for device in self.devices}
        if slot is None:
            free = (number for number in range(self.slots) if number not in taken)
            if (found := next(free, None)) is None:
                raise QmpError("no free slots available")
            return found
        if not 0 <= slot < self.slots:
            raise QmpError(f"invalid slot number {slot}, valid range is [0-{self.slots - 1}]")
        if slot in taken:
            raise QmpError(f"slot {slot} is busy")
        return slot

    def _free_address(self, size: int, address: int | None) -> int:
        """The lowest gap that holds `size` bytes, or the given address.  QEMU: memory_device_get_free_addr."""
        used = sum(device.backend.size_bytes for device in self.devices)
        if used + size > self.pluggable_bytes:
            raise QmpError(f"not enough space, currently 0x{used:x} in use of total space for memory devices "
                           f"0x{self.pluggable_bytes:x}")
        if size % _BACKEND_ALIGN:
            raise QmpError(f"backend memory size must be multiple of 0x{_BACKEND_ALIGN:x}")
        area_end = self.hotplug_base + self.pluggable_bytes + self.slots * GIB
        if address is not None:
            return self._fixed_address(size, address, area_end)
        at = self.hotplug_base
        for other in sorted(self.devices, key=lambda device: device.address):
            if at + size <= other.address:
                break
            at = align_up(max(at, other.address + other.backend.size_bytes), _BACKEND_ALIGN)
        if at + size > area_end:
            raise QmpError("could not find position in guest address space for memory device - memory fragmented "
                           "due to alignments")
        return at

    def _fixed_address(self, size: int, address: int, area_end: int) -> int:
        if address % _BACKEND_ALIGN:
            raise QmpError(f"address must be aligned to 0x{_BACKEND_ALIGN:x} bytes")
        if not self.hotplug_base <= address or address + size > area_end:
            raise QmpError(f"can't add memory device [0x{address:x}:0x{size:x}], usable range for memory devices "
                           f"[0x{self.hotplug_base:x}:0x{area_end - self.hotplug_base:x}]")
        for other in self.devices:
            if address < other.address + other.backend.size_bytes and other.address < address + size:
                raise QmpError(f"address range conflicts with memory device id='{other.id or '(unnamed)'}'")
        return address

    # -- the guest's side, as the firmware sees it --------------------------------------------------------------

    def _insert(self, device: DimmDevice) -> Op[None]:
        """The guest adds the memory.  When it fails the device stays, with no memory in the guest."""
        status = _OST_SUCCESS
        try:
            yield from dimm.plug(
                self.kernel, device.slot, device.address, device.backend.size_bytes, device.node_id
            )
        except SysError:
            status = _OST_FAILURE
        self._ost(device, _DEVICE_CHECK, status)

    def _remove(self, device: DimmDevice) -> Op[None]:
        """The guest offlines and removes the memory, or says why not."""
        self._ost(device, _EJECT_REQUEST, _OST_IN_PROGRESS)
        try:
            if device.slot in self.kernel.firmware:
                yield from dimm.eject(self.kernel, device.slot)
        except SysError as error:
            device.unplugging = False
            self._ost(device, _EJECT_REQUEST, _OST_BUSY if isinstance(error, Busy) else _OST_FAILURE)
            self._event("MEM_UNPLUG_ERROR", device=device.id or "", msg=f"the guest refused: {error.reason}")
            self._event("DEVICE_UNPLUG_GUEST_ERROR", **_names(device))
            return
        device.backend.in_use = False
        self.devices.remove(device)
        self._ost(device, _EJECT_REQUEST, _OST_SUCCESS)
        self._event("DEVICE_DELETED", **_names(device))

    def _ost(self, device: DimmDevice, source: int, status: int) -> None:
        name = {} if device.id is None else {"device": device.id}
        info = {**name, "slot": str(device.slot), "slot-type": "DIMM", "source": source, "status": status}
        self._event("ACPI_DEVICE_OST", info=info)

    def _event(self, name: str, **data: object) -> None:
        self.events.append({"event": name, "data": data})


def _names(device: DimmDevice) -> dict[str, str]:
    """How events name a device."""
    return {"path": device.path} if device.id is None else {"device": device.id, "path": device.path}
