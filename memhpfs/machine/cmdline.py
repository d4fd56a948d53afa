"""The kernel command line: which words are about memory, and what the kernel makes of them.

Bad values never stop a boot: the default stays, and some leave a line in the kernel's log.
Source: parse_args (kernel/params.c), setup_memhp_default_state, cmdline_parse_core (mm), memory_hotplug module
parameters; transcripts fuzz.* (machine.cmdline).
"""

import re
import shlex
from collections.abc import Callable, Iterator

from attrs import evolve

from memhpfs.errors import SysError
from memhpfs.kernel.features import Features
from memhpfs.kernel.spec import BootParams, MemmapMode, OnlinePolicy, OnlineType
from memhpfs.parse import kstrtobool, kstrtoull, match_word, memparse

__all__ = ["parse_cmdline", "words_of"]

Log = list[tuple[str, str]]
_ONLINE_TYPES = {item.value: item for item in OnlineType}
_POLICIES = {item.value: item for item in OnlinePolicy}
_UINT_MAX = (1 << 32) - 1
_PERCENT = re.compile(r"([0-9]+)%")


def words_of(cmdline: str) -> Iterator[tuple[str, str | None]]:
    """Name and value of each word; value None where there is no `=`.  Double quotes keep blanks together."""
    lexer = shlex.shlex(cmdline, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.quotes, lexer.escape = True, "", '"', ""
    try:
        words = list(lexer)
    except ValueError:
        words = cmdline.replace('"', "").split()
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        yield name, value if equals else None


def parse_cmdline(cmdline: str, features: Features) -> tuple[BootParams, bool, Log]:
    """What a command line says about memory.

    Returns:
        The parameters, whether hugetlb_free_vmemmap is on, and lines of the kernel's log as (level, text).
    """
    params, free_vmemmap, log = BootParams(), False, Log()
    for name, value in words_of(cmdline):
        key = name.replace("-", "_")
        if key.startswith("memory_hotplug."):
            params = _module_parameter(params, key.removeprefix("memory_hotplug."), value, features, log)
        elif key == "memhp_default_state":
            params = evolve(params, auto_online=_ONLINE_TYPES.get(value or "", params.auto_online))
        elif key == "movable_node":
            params = evolve(params, movable_node=True)
        elif key in ("kernelcore", "movablecore"):
            params = _core(params, key, value or "")
        elif key == "hugetlb_free_vmemmap":
            free_vmemmap = _bool_or(value, free_vmemmap, features)
    if params.kernelcore_mirror:
        log.append(("warning", "The system has no mirror memory, ignore kernelcore=mirror."))
    return params, free_vmemmap, log


def _bool_or(value: str | None, default: bool, features: Features) -> bool:
    try:
        return kstrtobool(value or "", enable_words=features.bool_enable_words)
    except SysError:
        return default


def _module_parameter(params: BootParams, name: str, value: str | None, features: Features, log: Log) -> BootParams:
    """One memory_hotplug.* word: the parsers of the files of the same names."""
    def boolean() -> bool:
        return True if value is None else kstrtobool(value, enable_words=features.bool_enable_words)

    def memmap() -> MemmapMode:
        if features.memmap_force and value is not None and value in ("force", "FORCE"):
            return MemmapMode.FORCE
        if features.memmap_force and value is None:
            return MemmapMode(match_word("", {}))
        return MemmapMode.YES if boolean() else MemmapMode.NO

    parsers: dict[str, Callable[[], object]] = {
        "online_policy": lambda: match_word(value or "", _POLICIES),
        "auto_movable_ratio": lambda: kstrtoull(value or "", limit=_UINT_MAX),
        "auto_movable_numa_aware": boolean,
        "memmap_on_memory": memmap,
    }
    if name not in parsers:
        log.append(("warning", f"memory_hotplug: unknown parameter '{name}' ignored"))
        return params
    try:
        return evolve(params, **{name: parsers[name]()})  # type: ignore[arg-type]
    except SysError:
        log.append(("err", f"Booting kernel: `{value or ''}' invalid for parameter `memory_hotplug.{name}'"))
        return params


def _core(params: BootParams, key: str, value: str) -> BootParams:
    """kernelcore= and movablecore=: a share, a size, or (kernelcore) `mirror`."""
    if key == "kernelcore" and value == "mirror":
        return evolve(params, kernelcore_mirror=True)
    percent = _PERCENT.fullmatch(value)
    size = 0 if percent else memparse(value)[0]
    changes = {f"{key}_percent": int(percent[1]) if percent else 0, f"{key}_bytes": size}
    return evolve(params, **changes)  # type: ignore[arg-type]
