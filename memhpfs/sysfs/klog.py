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


#: How many references and mappings a page has that is used for something, and its flags by bit.
_PAGES: dict[str, tuple[int, int, str, dict[int, str]]] = {
    "RESERVED": (1, 0, "", {13: "reserved"}),
    "ANON": (2, 1, "anon ", {3: "uptodate", 4: "dirty", 11: "owner_2", 17: "swapbacked"}),
    "MLOCK": (2, 1, "anon ", {3: "uptodate", 4: "dirty", 11: "owner_2", 17: "swapbacked", 18: "unevictable",
                              19: "mlocked"}),
    "PINNED": (1026, 1, "anon ", {3: "uptodate", 4: "dirty", 11: "owner_2", 17: "swapbacked"}),
    "FILE": (3, 0, "", {3: "uptodate"}),
    "SHM": (3, 0, "", {3: "uptodate", 4: "dirty", 17: "swapbacked"}),
}
_PLAIN_PAGE: tuple[int, int, str, dict[int, str]] = (1, 0, "", {})
#: Where the other parts of a page's flags stand: the last CPU (none), the zone, the node.
_LAST_CPU, _ZONE_SHIFT, _NODE_SHIFT = 0x1FFFFF << 30, 51, 54


def _page(values: Values) -> str:
    """dump_page's first line; the address is a hash, as the kernel prints it."""
    references, mappings, _, _ = _PAGES.get(values["use"], _PLAIN_PAGE)
    address = f"{values['pfn'] * 0x9E3779B1 & 0xFFFFFFFF:016x}" if values["with_pointer"] else ""
    return (f"page:{address} refcount:{references} mapcount:{mappings} mapping:{0:016x} index:0x0 "
            f"pfn:{values['pfn']:#x}")


def _page_flags(values: Values) -> str:
    _, _, kind, names = _PAGES.get(values["use"], _PLAIN_PAGE)
    bits = sum(1 << bit for bit in names) | _LAST_CPU | values["zone"] << _ZONE_SHIFT | values["node"] << _NODE_SHIFT
    words = [*(["|".join(names.values())] if names else []), f"node={values['node']}", f"zone={values['zone']}",
             "lastcpupid=0x1fffff"]
    return f"{kind}flags: {bits:#x}({'|'.join(words)})"


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
    "page": ("warning", _page),
    "page-flags": ("warning", _page_flags),
    "page-type": ("warning", lambda v: "page_type: f5(slab)"),
    "page-dumped": ("warning", lambda v: f"page dumped because: {v['why']}"),
    "migration-failed": ("warning", lambda v: f"migrating pfn {v['pfn']:x} failed ret:{v['ret']}"),
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
