"""The kernel's log in the kernel's words: one row per message that users see.

Source: the printk calls of mm/memory_hotplug.c, drivers/base, drivers/acpi, lib/kobject_uevent.c; transcripts (kmsg).
"""

from collections.abc import Callable, Mapping
from typing import Any

from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.journal import LogRecord
from memhpfs.sysfs.node import bitmap_list
from memhpfs.units import KIB

__all__ = ["line"]

Values = Mapping[str, Any]


def _range(values: Values) -> str:
    return f"[mem {values['start']:#010x}-{values['end'] - 1:#010x}]"


def _pfn_range(values: Values) -> str:
    start = values["start"] * PAGE_SIZE
    return _range({"start": start, "end": start + values["nr_pages"] * PAGE_SIZE})


_ANON = ("uptodate", "dirty", "owner_2", "swapbacked")
#: How many references and mappings a page has that is used for something, and its flags.
_PAGES: dict[str, tuple[int, int, str, tuple[str, ...]]] = {
    "RESERVED": (1, 0, "", ("reserved",)),
    "SLAB": (1, 0, "", ("slab",)),
    "ANON": (2, 1, "anon ", _ANON),
    "MLOCK": (2, 1, "anon ", (*_ANON, "unevictable", "mlocked")),
    "PINNED": (1026, 1, "anon ", _ANON),
    "FILE": (3, 0, "", ("uptodate",)),
    "SHM": (3, 0, "", ("uptodate", "dirty", "swapbacked")),
    "HUGE_2M": (2, 1, "", ("uptodate", "head")),
    "HUGE_1G": (2, 1, "", ("uptodate", "head")),
}
_PLAIN_PAGE: tuple[int, int, str, tuple[str, ...]] = (1, 0, "", ())
#: Flags by name; those that a kernel does not have are left out.
_BITS = {"uptodate": 3, "dirty": 4, "head": 6, "owner_2": 11, "reserved": 13, "swapbacked": 17, "unevictable": 18,
         "mlocked": 19}
_OLD_BITS = {"uptodate": 2, "dirty": 3, "slab": 9, "reserved": 12, "head": 16, "swapbacked": 19, "unevictable": 20,
             "mlocked": 21}
_PAGE_TYPES = {"SLAB": "f5(slab)", "PAGETABLES": "f2(table)", "HUGE_2M": "f4(hugetlb)", "HUGE_1G": "f4(hugetlb)"}
#: Where the other parts of a page's flags stand: the last CPU (none), the zone, the node.
_LAST_CPU, _ZONE_SHIFT, _NODE_SHIFT = 0x1FFFFF << 30, 51, 54


def _page(values: Values) -> str:
    """dump_page's first line; the address is a hash, as the kernel prints it."""
    references, mappings, _, _ = _PAGES.get(values["use"], _PLAIN_PAGE)
    address = f"{values['pfn'] * 0x9E3779B1 & 0xFFFFFFFF:016x}" if values["with_pointer"] else ""
    return (f"page:{address} refcount:{references} mapcount:{mappings} mapping:{0:016x} index:0x0 "
            f"pfn:{values['pfn']:#x}")


def _page_flags(values: Values) -> str:
    return f"{_PAGES.get(values['use'], _PLAIN_PAGE)[2]}flags: {_flags(values)}"


def _flags(values: Values) -> str:
    _, _, _, flags = _PAGES.get(values["use"], _PLAIN_PAGE)
    known = _OLD_BITS if values["old"] else _BITS
    names = [name for name in flags if name in known]
    bits = sum(1 << known[name] for name in names)
    bits |= _LAST_CPU | values["zone"] << _ZONE_SHIFT | values["node"] << _NODE_SHIFT
    words = [*names, f"node={values['node']}", f"zone={values['zone']}", "lastcpupid=0x1fffff"]
    return f"{bits:#x}({'|'.join(words)})"


#: Flags of allocations: of the kernel's own, and of memory maps.
_GFP = {"kernel": "0xcc0(GFP_KERNEL)", "retry": "0x4cc0(GFP_KERNEL|__GFP_RETRY_MAYFAIL)"}


def _zone_free(values: Values) -> str:
    """The parts of show_free_areas that tell how scarce memory is."""
    parts = (f"{name}:{values[name] * PAGE_SIZE // KIB}kB" for name in ("free", "min", "low", "high", "present",
                                                                        "managed"))
    return f"Node {values['node']} {values['zone']} {' '.join(parts)}"


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
    "page-type": ("warning", lambda v: f"page_type: {_PAGE_TYPES[v['use']]}"),
    "page-dumped": ("warning", lambda v: f"page dumped because: {v['why']}"),
    "migration-failed": ("warning", lambda v: f"migrating pfn {v['pfn']:x} failed ret:{v['ret']}"),
    "injecting-error": ("info", lambda v: f"Injecting error ({v['error']}) to {v['action']}"),
    "soft-offline-again": ("info", lambda v: f"Soft offline: {v['pfn']:#x}: page already poisoned"),
    "soft-offline-failed": ("info", lambda v: f"Soft offline: {v['pfn']:#x}: {'hugepage' if v['huge'] else 'page'} "
                            f"migration failed -16, type {_flags(v)}"),
    "memory-failure": ("err", lambda v: f"Memory failure: {v['pfn']:#x}: "
                       f"recovery action for {v['what']}: {v['result']}"),
    "memory-failure-outside": ("err", lambda v: f"Memory failure: {v['pfn']:#x}: memory outside kernel control"),
    "memory-failure-unhandlable": ("err", lambda v: f"Memory failure: {v['pfn']:#x}: unhandlable page."),
    "allocation-failure": ("warning", lambda v: f"{v['who']}: {v['what']}: order:{v['order']}, "
                           f"mode:{_GFP[v['gfp']]}, nodemask=(null),cpuset=/,mems_allowed={bitmap_list(v['nodes'])}"),
    "mem-info": ("warning", lambda v: "Mem-Info:"),
    "zone-free": ("warning", _zone_free),
    "fallback-order": ("info", lambda v: f"Fallback order for Node {v['node']}: "
                       + "".join(f"{node} " for node in v["order"])),
    "zonelists-built": ("info", lambda v: f"Built {v['nodes']} zonelists, mobility grouping on.  "
                        f"Total pages: {v['pages']}"),
    "policy-zone": ("info", lambda v: f"Policy zone: {v['zone']}"),
    "demotion-targets": ("info", lambda v: f"Demotion targets for Node {v['node']}: null"),
    "synth-uevent": ("warning", lambda v: f"synth uevent: {v['devpath']}: {v['reason']}"),
    "synth-uevent-failed": ("err", lambda v: f"{v['device']}: uevent: failed to send synthetic uevent: -{v['errno']}"),
}


def line(record: LogRecord) -> tuple[str, str]:
    """Level and text of a log record."""
    if record.kind == "boot":
        return str(record.values["level"]), str(record.values["text"])
    level, words = _LINES[record.kind]
    return level, words(record.values)
