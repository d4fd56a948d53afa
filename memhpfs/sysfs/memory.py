"""The rows of /sys/devices/system/memory and of memoryN.

Source: drivers/base/memory.c, drivers/base/core.c; transcripts params.*, vfs.plain.
"""

from collections.abc import Callable

from memhpfs.errors import BadText, TooLarge
from memhpfs.kernel.device import online_store, state_store
from memhpfs.kernel.hotplug import probe_memory
from memhpfs.kernel.pause import Op, Pause
from memhpfs.kernel.poison import hard_offline_page, soft_offline_page
from memhpfs.kernel.policy import block_zone
from memhpfs.kernel.spec import OnlineType
from memhpfs.kernel.state import MOVABLE, Block, BlockState, Kernel
from memhpfs.kernel.zones import first_intersecting_kernel_zone
from memhpfs.parse import kstrtobool, kstrtoull, match_word
from memhpfs.sysfs.attr import Attr, Dir, Link, Store, has
from memhpfs.sysfs.power import power_dir
from memhpfs.sysfs.uevent import device_uevent_store, root_uevent_store, uevent_show

__all__ = ["BLOCK_DIR", "MEMORY_DIR"]

ONLINE_TYPES = {item.value: item for item in OnlineType}

#: Reading `online` takes the device lock, which whoever works on the block holds.
_DEVICE_LOCK = Pause("waiting for the device lock", cost_ns=5_000_000, for_lock=True)


def _state_show(kernel: Kernel, block: Block) -> str:
    return block.state.value + "\n"


def _state_store(kernel: Kernel, block: Block, text: str) -> Op[None]:
    return state_store(kernel, block, match_word(text, ONLINE_TYPES))


def _online_show(kernel: Kernel, block: Block) -> "str | Op[str]":
    if block.state is BlockState.GOING_OFFLINE:
        return _online_show_later(block)
    return "0\n" if block.device_offline else "1\n"


def _online_show_later(block: Block) -> Op[str]:
    while block.state is BlockState.GOING_OFFLINE:
        yield _DEVICE_LOCK
    return "0\n" if block.device_offline else "1\n"


def _online_store(kernel: Kernel, block: Block, text: str) -> Op[None]:
    wanted = kstrtobool(text, enable_words=kernel.features.bool_enable_words)
    return online_store(kernel, block, wanted)


def _valid_zones_show(kernel: Kernel, block: Block) -> str:
    """The zone of an online block; else the zone it would get, then the other one it may ask for."""
    if block.state is BlockState.ONLINE:
        return f"{block.zone.name}\n" if block.zone is not None else "none\n"
    start_pfn, nr_pages = block.id * kernel.pages_per_block, kernel.pages_per_block
    kernel_zone = first_intersecting_kernel_zone(kernel.nodes[block.node_id], start_pfn, nr_pages)
    names = [block_zone(kernel, OnlineType.ONLINE, block.id).name, kernel_zone.name, MOVABLE]
    return " ".join(dict.fromkeys(names)) + "\n"


def _auto_online_show(kernel: Kernel, subject: Kernel) -> str:
    return kernel.params.auto_online.value + "\n"


def _auto_online_store(kernel: Kernel, subject: Kernel, text: str) -> None:
    kernel.params.auto_online = match_word(text, ONLINE_TYPES)


def _probe_store(kernel: Kernel, subject: Kernel, text: str) -> Op[None]:
    address = kstrtoull(text)
    if address % kernel.block_size_bytes:
        raise BadText(f"{address:#x} is not the start of a block")
    return probe_memory(kernel, address)


def _page_offline_store(offline: Callable[[Kernel, int], None]) -> Store:
    def store(kernel: Kernel, subject: Kernel, text: str) -> None:
        """A physical address; a number that is too large is a bad one here."""
        try:
            address = kstrtoull(text)
        except TooLarge:
            raise BadText(f"{text!r} is too large") from None
        offline(kernel, address)

    return store


def _firmware_node(kernel: Kernel, block: Block) -> str:
    assert block.group is not None
    return f"../../../LNXSYSTM:00/LNXSYBUS:00/PNP0A06:04/PNP0C80:{block.group.firmware_slot:02x}"


def _has_firmware_node(kernel: Kernel, block: Block) -> bool:
    return block.group is not None and block.group.firmware_slot >= 0


BLOCK_DIR = Dir("memoryN", (
    Attr("uevent", 0o644, uevent_show, device_uevent_store, "uevent_show, uevent_store", counted=True),
    Attr("phys_index", 0o444, lambda kernel, block: f"{block.id:08x}\n", source="phys_index_show"),
    Attr("state", 0o644, _state_show, _state_store, "state_show, state_store"),
    Attr("phys_device", 0o444, lambda kernel, block: "0\n", source="phys_device_show"),
    Attr("removable", 0o444, lambda kernel, block: "1\n", source="removable_show"),
    Attr("valid_zones", 0o444, _valid_zones_show, source="valid_zones_show"),
    Attr("online", 0o644, _online_show, _online_store, "online_show, online_store"),
    Link("subsystem", lambda kernel, block: "../../../../bus/memory", "bus_add_device"),
    Link("firmware_node", _firmware_node, "acpi_bind_one", exists=_has_firmware_node),
    power_dir(),
), holds="node-links")

MEMORY_DIR = Dir("memory", (
    Attr("uevent", 0o644, uevent_show, root_uevent_store("memory"), "uevent_show; filtered by dev_uevent_filter",
         counted=True),
    Attr("auto_online_blocks", 0o644, _auto_online_show, _auto_online_store, "auto_online_blocks_show, _store"),
    Attr("block_size_bytes", 0o444, lambda kernel, _: f"{kernel.block_size_bytes:x}\n", source="block_size_bytes_show"),
    Attr("crash_hotplug", 0o444, lambda kernel, _: "0\n", source="crash_hotplug_show: no crash image is loaded",
         when=has("crash_hotplug")),
    Attr("probe", 0o200, None, _probe_store, "probe_store", when=has("probe")),
    Attr("soft_offline_page", 0o200, None, _page_offline_store(soft_offline_page), "soft_offline_page_store",
         when=has("page_offline")),
    Attr("hard_offline_page", 0o200, None, _page_offline_store(hard_offline_page), "hard_offline_page_store",
         when=has("page_offline")),
    power_dir("memory"),
), holds="blocks")
