"""The rows of /proc that are about memory.

Their open makes no second check, their size is 0, and a write fails with EIO: there is no method.
Source: fs/proc, mm/vmstat.c, kernel/resource.c.
"""

from typing import Any

from memhpfs.kernel.state import Kernel
from memhpfs.sysfs.attr import Attr, Dir
from memhpfs.sysfs.buddyinfo import buddyinfo_show, pagetypeinfo_show
from memhpfs.sysfs.iomem import iomem_show
from memhpfs.sysfs.meminfo import meminfo_show
from memhpfs.sysfs.vmstat import vmstat_show
from memhpfs.sysfs.zoneinfo import zoneinfo_show

__all__ = ["PROC_DIR"]


def _row(name: str, show: Any, source: str, mode: int = 0o444) -> Attr:
    return Attr(name, mode, lambda kernel, _: show(kernel), source=source, size=0, kernfs=False)


def _cmdline_show(kernel: Kernel) -> str:
    return kernel.spec.cmdline + "\n"


PROC_DIR = Dir("proc", (
    _row("meminfo", meminfo_show, "meminfo_proc_show"),
    _row("zoneinfo", zoneinfo_show, "zoneinfo_show"),
    _row("vmstat", vmstat_show, "vmstat_show"),
    _row("buddyinfo", buddyinfo_show, "frag_show"),
    _row("pagetypeinfo", pagetypeinfo_show, "pagetypeinfo_show", mode=0o400),
    _row("iomem", iomem_show, "r_show"),
    _row("cmdline", _cmdline_show, "cmdline_proc_show"),
), mode=0o555)
