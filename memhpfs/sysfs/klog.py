"""The kernel's log in the kernel's words: one row per message that users see.

Source: the printk calls of mm/memory_hotplug.c, drivers/base, drivers/acpi, lib/kobject_uevent.c; transcripts (kmsg).
"""

from collections.abc import Callable, Mapping
from typing import Any

from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.journal import LogRecord

__all__ = ["line"]

Values = Mapping[str, Any]


def _range(values: Values) -> str:
    return f"[mem {values['start']:#010x}-{values['end'] - 1:#010x}]"


def _pfn_range(values: Values) -> str:
    start = values["start"] * PAGE_SIZE
    return _range({"start": start, "end": start + values["nr_pages"] * PAGE_SIZE})


_LINES: dict[str, tuple[str, Callable[[Values], str]]] = {
    "offlined-pages": ("debug", lambda v: f"Offlined Pages {v['nr_pages']}"),
    "offline-failed": ("debug", lambda v: f"memory offlining {_range(v)} failed due to {v['reason']}"),
    "online-failed": ("debug", lambda v: f"online_pages {_pfn_range(v)} failed"),
    "still-online": ("warning", lambda v: "removing memory fails, because memory "
                     f"[{v['start']:#018x}-{v['end'] - 1:#018x}] is onlined"),
    "not-addressable": ("warning", lambda v: f"Hotplug memory [{v['start']:#x}-{v['end']:#x}] exceeds maximum "
                        "addressable range"),
    "unaligned": ("err", lambda v: f"Block size [{v['block_size']:#x}] unaligned hotplug range: "
                  f"start {v['start']:#x}, size {v['size']:#x}"),
    "acpi-enable-failed": ("err", lambda v: f"acpi PNP0C80:{v['slot']:02x}: add_memory failed"),
    "acpi-offline-failed": ("warning", lambda v: f"memory memory{v['block_id']}: Offline failed."),
    "injecting-error": ("info", lambda v: f"Injecting error ({v['error']}) to {v['action']}"),
    "soft-offline-again": ("info", lambda v: f"Soft offline: {v['pfn']:#x}: page already poisoned"),
    "memory-failure": ("err", lambda v: f"Memory failure: {v['pfn']:#x}: "
                       f"recovery action for {v['what']}: {v['result']}"),
    "memory-failure-outside": ("err", lambda v: f"Memory failure: {v['pfn']:#x}: memory outside kernel control"),
    "memory-failure-unhandlable": ("err", lambda v: f"Memory failure: {v['pfn']:#x}: unhandlable page."),
    "allocation-failure": ("warning", lambda v: "page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), "
                           f"nodemask=(null); {v['movable_free']} pages are free in zone Movable"),
    "zonelists-built": ("info", lambda v: f"Built {v['nodes']} zonelists, mobility grouping on."),
    "synth-uevent": ("warning", lambda v: f"synth uevent: {v['devpath']}: {v['reason']}"),
    "synth-uevent-failed": ("err", lambda v: f"{v['device']}: uevent: failed to send synthetic uevent: -22"),
}


def line(record: LogRecord) -> tuple[str, str]:
    """Level and text of a log record."""
    if record.kind == "boot":
        return str(record.values["level"]), str(record.values["text"])
    level, words = _LINES[record.kind]
    return level, words(record.values)
