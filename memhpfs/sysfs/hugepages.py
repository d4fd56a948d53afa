"""The rows of nodeN/hugepages.

The pools are empty: no huge page is ever reserved by writing here.
Source: mm/hugetlb.c (nr_hugepages_store and its neighbours); transcript vfs.plain.
"""

from typing import Any

from memhpfs.kernel.state import Kernel
from memhpfs.parse import kstrtoull
from memhpfs.sysfs.attr import Attr, Dir

__all__ = ["HUGEPAGES_DIR"]


def _zero(kernel: Kernel, subject: Any) -> str:
    return "0\n"


def _pool_store(kernel: Kernel, subject: Any, text: str) -> None:
    """A request that the allocator cannot meet succeeds and leaves the pool as it is."""
    kstrtoull(text, base=10)


_POOL = (
    Attr("nr_hugepages", 0o644, _zero, _pool_store, "nr_hugepages_show, nr_hugepages_store"),
    Attr("free_hugepages", 0o444, _zero, source="free_hugepages_show"),
    Attr("surplus_hugepages", 0o444, _zero, source="surplus_hugepages_show"),
)

HUGEPAGES_DIR = Dir("hugepages", (Dir("hugepages-2048kB", _POOL), Dir("hugepages-1048576kB", _POOL)))
