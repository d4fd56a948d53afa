"""Blocks as devices: created, removed, and put online or offline by the device core.

The device core keeps a flag of its own (`online`), sends the uevents and tells "already there" apart from failure.
Source: device_online, device_offline (drivers/base/core.c); memory_subsys_online, memory_subsys_offline, state_store,
create_memory_block_devices, remove_memory_block_devices (drivers/base/memory.c).
"""

from memhpfs.errors import AlreadyThere, Gone
from memhpfs.kernel.journal import DeviceGone, DeviceNew, LinkNew, Uevent
from memhpfs.kernel.lock import with_hotplug_lock
from memhpfs.kernel.offline import memory_block_offline
from memhpfs.kernel.online import memory_block_online
from memhpfs.kernel.pause import Op
from memhpfs.kernel.poison import forget_poison
from memhpfs.kernel.spec import OnlineType
from memhpfs.kernel.state import Block, Group, Kernel

__all__ = [
    "create_block", "device_offline", "device_online", "link_to_node", "online_store", "remove_block", "state_store",
]


def create_block(kernel: Kernel, block_id: int, node_id: int, group: Group | None, vmemmap_pages: int) -> Block:
    """Make the device of an added, offline block and announce it.  Linux: add_memory_block."""
    block = Block(block_id, node_id, kernel.take_serial(), group=group, vmemmap_pages=vmemmap_pages)
    block.present_pages = kernel.pages_per_block
    kernel.blocks[block_id] = kernel.devices[block.serial] = block
    if group is not None:
        group.blocks[block_id] = block
    kernel.journal.add(DeviceNew("memory", block_id, block.serial))
    kernel.journal.add(Uevent("add", "memory", block_id))
    return block


def link_to_node(kernel: Kernel, block: Block) -> None:
    """Make the two links between a block and its node.  Linux: register_memory_blocks_under_node_hotplug."""
    block.node_ids = (block.node_id,)
    kernel.nodes[block.node_id].links[block.id] = block
    kernel.journal.add(LinkNew(block.id, block.node_id))


def remove_block(kernel: Kernel, block: Block) -> None:
    """Remove the device of an offline block and announce it.  Linux: remove_memory_block_devices."""
    for node_id in block.node_ids:
        kernel.nodes[node_id].links.pop(block.id, None)
    del kernel.blocks[block.id], kernel.devices[block.serial]
    if block.group is not None:
        del block.group.blocks[block.id]
    forget_poison(kernel, block)
    for key in [key for key in kernel.power if key[0] == str(block.serial)]:
        del kernel.power[key]
    kernel.journal.add(Uevent("remove", "memory", block.id))
    kernel.journal.add(DeviceGone("memory", block.id, block.serial, block.node_ids))


def device_online(kernel: Kernel, block: Block) -> None:
    """Put the block online with its sticky type, or type "online" when none is left; the type is used up either way.

    Raises:
        AlreadyThere: it is online; the sticky type stays.
        Poisoned, Vetoed: it stays offline.
    """
    if not block.device_offline:
        raise AlreadyThere()
    online_type = block.online_type if block.online_type is not OnlineType.OFFLINE else OnlineType.ONLINE
    block.online_type = OnlineType.OFFLINE
    memory_block_online(kernel, block, online_type)
    kernel.journal.add(Uevent("online", "memory", block.id))
    block.device_offline = False


def device_offline(kernel: Kernel, block: Block) -> Op[None]:
    """Take the block offline.

    Raises:
        AlreadyThere: it is offline.
        SysError: see memory_block_offline; it stays online.
    """
    if block.device_offline:
        raise AlreadyThere()
    yield from memory_block_offline(kernel, block)
    kernel.journal.add(Uevent("offline", "memory", block.id))
    block.device_offline = True


def state_store(kernel: Kernel, block: Block, wanted: OnlineType) -> Op[None]:
    """What a write to `state` does, once the word is known.

    The requested type stays behind when the block is online already, and a later `online` uses it.

    Raises:
        AlreadyThere: EINVAL here, unlike `online`.
        Gone: the block was removed while the writer waited for the lock.
    """

    def work() -> Op[None]:
        _must_exist(kernel, block)
        if wanted is OnlineType.OFFLINE:
            yield from device_offline(kernel, block)
        else:
            block.online_type = wanted
            device_online(kernel, block)

    return with_hotplug_lock(kernel, "state", work)


def online_store(kernel: Kernel, block: Block, wanted: bool) -> Op[None]:
    """What a write to `online` does: like `state`, but asking for what is already so is a success."""

    def work() -> Op[None]:
        _must_exist(kernel, block)
        try:
            if wanted:
                device_online(kernel, block)
            else:
                yield from device_offline(kernel, block)
        except AlreadyThere:
            return

    return with_hotplug_lock(kernel, "online", work)


def _must_exist(kernel: Kernel, block: Block) -> None:
    if kernel.blocks.get(block.id) is not block:
        raise Gone()
