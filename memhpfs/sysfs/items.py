"""Tables of names: which lines a statistics file of this kernel has, and in what order.

A table is text.  Each line holds names, and after a bar the conditions under which the kernel has them: releases, of
which one must match, and further words, which must all hold: an architecture, `numa`, `cma` or `page-offline`.
`{zone}` in a name stands for each zone of the architecture, in lower case.
"""

from functools import lru_cache

from memhpfs.kernel.features import RELEASES
from memhpfs.kernel.state import Kernel

__all__ = ["conditions", "names_of", "zone_names"]

#: Releases whose distribution kernels have CONFIG_CMA; in others it comes with a machine that has such memory.
_CMA_RELEASES = frozenset({"7.3"})


def names_of(table: str, kernel: Kernel) -> tuple[str, ...]:
    """The names of a table that this kernel has."""
    return _names(table, conditions(kernel), zone_names(kernel))


def conditions(kernel: Kernel) -> frozenset[str]:
    """All conditions that hold."""
    features = kernel.features
    cma = features.release in _CMA_RELEASES or any(
        zone.cma_pages for node in kernel.nodes.values() for zone in node.zones.values()
    )
    switched = {"numa": features.numa, "page-offline": features.page_offline, "cma": cma}
    return frozenset({features.release, kernel.arch.name, *(word for word, holds in switched.items() if holds)})


def zone_names(kernel: Kernel) -> tuple[str, ...]:
    """All zones of the kernel's configuration; ZONE_DEVICE exists but is always empty here."""
    first = next(iter(kernel.nodes.values()))
    return (*first.zones, "Device")


@lru_cache(maxsize=128)
def _names(table: str, holding: frozenset[str], zones: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for line in table.strip().splitlines():
        names, _, words = line.partition("|")
        if _holds(set(words.split()), holding):
            for name in names.split():
                found += [name.format(zone=zone.lower()) for zone in zones] if "{" in name else [name]
    return tuple(found)


def _holds(words: set[str], holding: frozenset[str]) -> bool:
    releases = words & RELEASES.keys()
    return (not releases or bool(releases & holding)) and words - releases <= holding
