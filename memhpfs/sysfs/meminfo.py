"""/proc/meminfo, and what it shares with the meminfo of a node.

Source: meminfo_proc_show (fs/proc/meminfo.c), hugetlb_report_meminfo (mm/hugetlb.c), arch_report_meminfo
(arch/x86/mm/pat/set_memory.c); formats of 6.1, 6.12 and 7.3 kernel images, and of a running 6.18.
"""

from memhpfs.kernel.directmap import direct_map
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.hugetlb import pool_2m, reserved_2m
from memhpfs.kernel.pages import HUGE_2M_PAGES
from memhpfs.kernel.state import Kernel
from memhpfs.kernel.stats import (
    Stats,
    available,
    commit_limit,
    committed,
    hugetlb_pages,
    machine_stats,
    percpu_pages,
)
from memhpfs.sysfs.items import names_of
from memhpfs.units import GIB, KIB, MIB

__all__ = ["common_values", "meminfo_show"]

_LABELS = """
MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive
Active(anon) Inactive(anon) Active(file) Inactive(file) Unevictable Mlocked
SwapTotal SwapFree Zswap Zswapped Dirty Writeback AnonPages Mapped Shmem
KReclaimable Slab SReclaimable SUnreclaim KernelStack PageTables SecPageTables
NFS_Unstable Bounce WritebackTmp CommitLimit Committed_AS VmallocTotal VmallocUsed VmallocChunk Percpu
HardwareCorrupted | page-offline
AnonHugePages ShmemHugePages ShmemPmdMapped FileHugePages FilePmdMapped
CmaTotal CmaFree | cma
Unaccepted | 6.6 6.12 6.18 7.3 x86_64
Balloon | 6.18 7.3
GPUActive GPUReclaim | 7.3
HugePages_Total HugePages_Free HugePages_Rsvd HugePages_Surp Hugepagesize Hugetlb
DirectMap4k DirectMap2M DirectMap1G | x86_64
"""

#: Lines that are not "label, 8 columns, kB".
_FORMATS = {
    "HardwareCorrupted": "HardwareCorrupted: {:5} kB\n",
    "HugePages_Total": "HugePages_Total:   {:5}\n",
    "HugePages_Free": "HugePages_Free:    {:5}\n",
    "HugePages_Rsvd": "HugePages_Rsvd:    {:5}\n",
    "HugePages_Surp": "HugePages_Surp:    {:5}\n",
}
_KIB_PER_PAGE = PAGE_SIZE // KIB
#: Size of the vmalloc area with four levels of page tables.
_VMALLOC_TOTAL_KIB = (1 << 35) - 1
_MOST_BUFFERS_PAGES = 4 * MIB // PAGE_SIZE


def meminfo_show(kernel: Kernel) -> str:
    """The text of /proc/meminfo."""
    machine = machine_stats(kernel)
    values = common_values(machine) | _machine_values(kernel, machine) | _hugetlb_values(kernel)
    values |= {f"DirectMap{name}": mapped // KIB for name, mapped in _named(direct_map(kernel)).items()}
    return "".join(_line(label, values.get(label, 0)) for label in names_of(_LABELS, kernel))


def common_values(stats: Stats) -> dict[str, int]:
    """Lines that the machine and a node have in common, in kB; what is missing is 0."""
    pages = {
        "MemTotal": stats.managed,
        "MemFree": stats["nr_free_pages"],
        "Active": stats["nr_active_anon"] + stats["nr_active_file"],
        "Inactive": stats["nr_inactive_anon"] + stats["nr_inactive_file"],
        "Active(anon)": stats["nr_active_anon"],
        "Inactive(anon)": stats["nr_inactive_anon"],
        "Active(file)": stats["nr_active_file"],
        "Inactive(file)": stats["nr_inactive_file"],
        "Unevictable": stats["nr_unevictable"],
        "Mlocked": stats["nr_mlock"],
        "AnonPages": stats["nr_anon_pages"],
        "Mapped": stats["nr_mapped"],
        "Shmem": stats["nr_shmem"],
        "KReclaimable": stats["nr_slab_reclaimable"],
        "Slab": stats["nr_slab_reclaimable"] + stats["nr_slab_unreclaimable"],
        "SReclaimable": stats["nr_slab_reclaimable"],
        "SUnreclaim": stats["nr_slab_unreclaimable"],
        "PageTables": stats["nr_page_table_pages"],
        "Balloon": stats["nr_balloon_pages"],
    }
    values = {label: count * _KIB_PER_PAGE for label, count in pages.items()}
    return values | {"KernelStack": stats["nr_kernel_stack"]}


def _machine_values(kernel: Kernel, machine: Stats) -> dict[str, int]:
    """Lines of the machine only, in kB."""
    buffers = min(_MOST_BUFFERS_PAGES, (machine["nr_file_pages"] - machine["nr_shmem"]) // 8)
    pages = {
        "MemAvailable": available(kernel, machine),
        "Buffers": buffers,
        "Cached": machine["nr_file_pages"] - buffers,
        "CommitLimit": commit_limit(kernel, machine),
        "Committed_AS": committed(machine),
        "VmallocUsed": machine["nr_vmalloc"],
        "Percpu": percpu_pages(kernel),
        "HardwareCorrupted": len(kernel.poisoned) + kernel.poisoned_elsewhere,
        "CmaTotal": sum(zone.cma_pages for node in kernel.nodes.values() for zone in node.zones.values()),
        "CmaFree": machine["nr_free_cma"],
    }
    return {label: count * _KIB_PER_PAGE for label, count in pages.items()} | {"VmallocTotal": _VMALLOC_TOTAL_KIB}


def _hugetlb_values(kernel: Kernel) -> dict[str, int]:
    """The pool of 2 MiB pages in pages, and all pools in kB."""
    pools = [pool_2m(kernel, node_id) for node_id in kernel.nodes]
    return {
        "HugePages_Total": sum(total for total, _ in pools),
        "HugePages_Free": sum(free for _, free in pools),
        "HugePages_Rsvd": reserved_2m(kernel),
        "Hugepagesize": HUGE_2M_PAGES * _KIB_PER_PAGE,
        "Hugetlb": hugetlb_pages(kernel) * _KIB_PER_PAGE,
    }


def _named(mapped: dict[int, int]) -> dict[str, int]:
    return {"4k": mapped[PAGE_SIZE], "2M": mapped[2 * MIB], "1G": mapped[GIB]}


def _line(label: str, value: int) -> str:
    if label in _FORMATS:
        return _FORMATS[label].format(value)
    return f"{label + ':':<16}{value:8} kB\n"
