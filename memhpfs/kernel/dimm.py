"""ACPI memory devices: what the guest does when a DIMM is plugged, or asked back.

Source: drivers/acpi/acpi_memhotplug.c, acpi_scan_try_to_offline and acpi_bus_offline (drivers/acpi/scan.c);
transcripts fuzz.* (plug, unplug) and inject.plain.
"""

from memhpfs.errors import AlreadyThere, Busy, NoSuchDevice, SysError
from memhpfs.kernel.device import device_offline, device_online
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hotplug import add_memory, blocks_of, remove_memory
from memhpfs.kernel.lock import with_hotplug_lock
from memhpfs.kernel.pause import Op
from memhpfs.kernel.state import Block, Group, Kernel

__all__ = ["eject", "plug"]


def plug(kernel: Kernel, slot: int, start: int, size: int, node_id: int) -> Op[None]:
    """Add the memory of a DIMM, as one static memory group.

    Args:
        slot: its slot, which names the ACPI device.
        start, size: bytes.

    Raises:
        SysError: nothing was added.
    """

    def work() -> Op[None]:
        group = Group(node_id, max_pages=size // PAGE_SIZE, firmware_slot=slot)
        kernel.groups.append(group)
        kernel.firmware[slot] = (start, size)
        try:
            yield from add_memory(kernel, node_id, start, size, group, memmap_on_memory=True)
        except BaseException as error:
            if isinstance(error, SysError) or not group.blocks:
                kernel.groups.remove(group)
                del kernel.firmware[slot]
                kernel.journal.log("acpi-enable-failed", slot=slot)
            raise

    return with_hotplug_lock(kernel, f"plug of DIMM slot {slot}", work)


def eject(kernel: Kernel, slot: int) -> Op[None]:
    """Give the memory of a DIMM back: offline all blocks, then remove them.

    Two passes, of which the first goes on after a refusal.  When a block refuses for good, those this request took
    offline go online again with the zone that the policy picks now.

    Raises:
        Busy: a block refused; what was online before is online again.
        NoSuchDevice: the slot is empty.
    """

    def work() -> Op[None]:
        if slot not in kernel.firmware:
            raise NoSuchDevice(f"slot {slot} is empty")
        start, size = kernel.firmware[slot]
        blocks = blocks_of(kernel, start, size)
        yield from _try_to_offline(kernel, blocks)
        group = blocks[0].group if blocks else None
        yield from remove_memory(kernel, start, size)
        if group is not None:
            kernel.groups.remove(group)
        del kernel.firmware[slot]

    return with_hotplug_lock(kernel, f"eject of DIMM slot {slot}", work)


def _try_to_offline(kernel: Kernel, blocks: list[Block]) -> Op[None]:
    """Linux: acpi_scan_try_to_offline; `put_online` are the blocks to bring back on failure."""
    put_online: list[Block] = []
    failed = yield from _offline_pass(kernel, blocks, put_online, stop_at_failure=False)
    if failed is None:
        return
    failed = yield from _offline_pass(
        kernel, [block for block in blocks if block not in put_online], put_online, stop_at_failure=True
    )
    if failed is None:
        return
    kernel.journal.log("acpi-offline-failed", block_id=failed.id)
    for block in sorted(put_online, key=lambda item: item.id):
        try:
            device_online(kernel, block)
        except SysError:
            continue
    raise Busy("Offline failed.")


def _offline_pass(
    kernel: Kernel, blocks: list[Block], put_online: list[Block], *, stop_at_failure: bool
) -> Op[Block | None]:
    """Offline blocks in ascending order; the last that refused, or None."""
    failed = None
    for block in blocks:
        try:
            yield from device_offline(kernel, block)
            put_online.append(block)
        except AlreadyThere:
            continue
        except SysError:
            failed = block
            if stop_at_failure:
                break
    return failed
