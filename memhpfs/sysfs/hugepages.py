"""The rows of nodeN/hugepages: the pools of 2 MiB and 1 GiB pages.

Source: nr_hugepages_store and its neighbours, demote_store (mm/hugetlb.c); transcript vfs.plain.
"""

from collections.abc import Callable

from memhpfs.errors import BadText
from memhpfs.kernel.hugetlb import gigantic_pool, pool_2m, resize_gigantic_pool, set_gigantic_pool, set_pool_2m
from memhpfs.kernel.pause import Op
from memhpfs.kernel.state import Kernel, Node
from memhpfs.parse import kstrtoull
from memhpfs.sysfs.attr import Attr, Dir

__all__ = ["HUGEPAGES_DIR"]

Pool = Callable[[Kernel, int], tuple[int, int]]
SetPool = Callable[[Kernel, int, int], Op[None] | None]

_DEMOTE_SIZES_KB = (2048,)


def _pool_rows(pool: Pool, set_pool: SetPool) -> tuple[Attr, ...]:
    def store(kernel: Kernel, node: Node, text: str) -> Op[None] | None:
        """A request that memory cannot meet succeeds, and the pool gets what there is."""
        return set_pool(kernel, node.id, kstrtoull(text, base=10))

    return (
        Attr("nr_hugepages", 0o644, lambda kernel, node: f"{pool(kernel, node.id)[0]}\n", store, "nr_hugepages_store"),
        Attr("free_hugepages", 0o444, lambda kernel, node: f"{pool(kernel, node.id)[1]}\n",
             source="free_hugepages_show"),
        Attr("surplus_hugepages", 0o444, lambda kernel, node: "0\n", source="surplus_hugepages_show"),
    )


def _demote_store(kernel: Kernel, node: Node, text: str) -> None:
    """Split free 1 GiB pages into 2 MiB pages, as many as there are."""
    wanted = kstrtoull(text, base=10)
    total, free = gigantic_pool(kernel, node.id)
    split = min(wanted, free)
    if split:
        before = pool_2m(kernel, node.id)[0]
        set_gigantic_pool(kernel, node.id, total - split)
        set_pool_2m(kernel, node.id, before + split * 512)


def _demote_size_store(kernel: Kernel, node: Node, text: str) -> None:
    word = text.removesuffix("\n")
    if word not in {f"{size}kB" for size in _DEMOTE_SIZES_KB} | {"2M"}:
        raise BadText(f"{word!r} is not a size that a 1 GiB page can be split into")


HUGEPAGES_DIR = Dir("hugepages", (
    Dir("hugepages-2048kB", _pool_rows(pool_2m, set_pool_2m)),
    Dir("hugepages-1048576kB", (
        *_pool_rows(gigantic_pool, resize_gigantic_pool),
        Attr("demote", 0o200, None, _demote_store, "demote_store"),
        Attr("demote_size", 0o644, lambda kernel, node: "2048kB\n", _demote_size_store, "demote_size_store"),
    )),
))
