"""The kernel command line: which words are about memory, and what the kernel makes of them.

Bad values never stop a boot: the default stays, and some leave a line in the kernel's log.  Nobody reads that, so what
has no effect, or looks like a word that would have one, is also remarked for whoever wrote it.
Source: parse_args (kernel/params.c), setup_memhp_default_state, cmdline_parse_core (mm), memory_hotplug module
parameters; transcripts fuzz.* (machine.cmdline).
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from attrs import define, evolve, field

from memhpfs.errors import BadText, SysError
from memhpfs.kernel.features import Features
from memhpfs.kernel.spec import BootParams, MemmapMode, OnlinePolicy, OnlineType
from memhpfs.parse import kstrtobool, kstrtoull, match_word, memparse
from memhpfs.words import did_you_mean, nearest

__all__ = ["CommandLine", "parse_cmdline", "words_of"]

T = TypeVar("T")
_ONLINE_TYPES = {item.value: item for item in OnlineType}
_POLICIES = {item.value: item for item in OnlinePolicy}
_UINT_MAX = (1 << 32) - 1
_PERCENT = re.compile(r"([0-9]+)%")
_MODULE = "memory_hotplug."
#: Words about memory that Linux acts on and this machine does not, each with what does the same.
_ELSEWHERE = {
    "mem": "write ram =", "memmap": "write [[ram]]", "numa": "write [[node]]", "cma": 'write [[ram]] of kind "cma"',
    "hugepages": 'write a [[workload]] of kind "hugetlb-2M"', "acpi_no_memhotplug": "write slots = 0",
}
#: Words that are not the known ones, however much they look like them, are nearer than this to none of them.
_NEAR = 0.8


@define
class CommandLine:
    """What a command line says about memory.

    Attributes:
        hugetlb_free_vmemmap: whether memory maps of huge pages are optimised away (HVO).
        log: lines of the kernel's log as (level, text).
        remarks: for people: words about memory that have no effect, or not the one that they seem to have.
    """

    params: BootParams = field(factory=BootParams)
    hugetlb_free_vmemmap: bool = False
    log: list[tuple[str, str]] = field(factory=list)
    remarks: list[str] = field(factory=list)


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


def parse_cmdline(cmdline: str, features: Features) -> CommandLine:
    """What the kernel makes of a command line."""
    found = CommandLine()
    for name, value in words_of(cmdline):
        key, word = name.replace("-", "_"), name if value is None else f"{name}={value}"
        try:
            if key.startswith(_MODULE):
                _module_parameter(found, key.removeprefix(_MODULE), value, features)
            elif key in _EARLY:
                _EARLY[key](found, key, value, features)
            elif hint := _meant(key):
                found.remarks.append(f"{word} has no effect{hint}")
        except SysError as error:
            found.remarks.append(f"{word} has no effect: {error.reason}")
    if found.params.kernelcore_mirror:
        found.log.append(("warning", "The system has no mirror memory, ignore kernelcore=mirror."))
        found.remarks.append("kernelcore=mirror has no effect: the machine has no mirrored memory")
    return found


def _meant(key: str) -> str:
    """What to write instead of a word that means nothing here, if it looks as if it should."""
    if key in _ELSEWHERE:
        return f" here; {_ELSEWHERE[key]} in the machine file"
    known = [*_EARLY, *(_MODULE + name for name in _PARAMETERS)]
    near = _MODULE + key if key in _PARAMETERS else nearest(key, known, _NEAR)
    return f"; did you mean {near!r}?" if near else ""


def _one_of(value: str | None, words: Mapping[str, T]) -> T:
    try:
        return match_word(value or "", words)
    except BadText as error:
        raise BadText(error.reason + did_you_mean(value or "", words)) from None


# -- early parameters: each acts, or raises SysError and the default stays --------------------------------------------


def _default_state(found: CommandLine, key: str, value: str | None, features: Features) -> None:
    found.params = evolve(found.params, auto_online=_one_of(value, _ONLINE_TYPES))


def _movable_node(found: CommandLine, key: str, value: str | None, features: Features) -> None:
    found.params = evolve(found.params, movable_node=True)
    if value is not None:
        found.remarks.append(f"movable_node={value} turns it on whatever the value; leave the word out to have it off")


def _free_vmemmap(found: CommandLine, key: str, value: str | None, features: Features) -> None:
    found.hugetlb_free_vmemmap = kstrtobool(value or "", enable_words=features.bool_enable_words)


def _core(found: CommandLine, key: str, value: str | None, features: Features) -> None:
    """kernelcore= and movablecore=: a share, a size, or (kernelcore) `mirror`."""
    text = value or ""
    if key == "kernelcore" and text == "mirror":
        found.params = evolve(found.params, kernelcore_mirror=True)
        return
    percent = _PERCENT.fullmatch(text)
    size, rest = (0, "") if percent else memparse(text)
    changes = {f"{key}_percent": int(percent[1]) if percent else 0, f"{key}_bytes": size}
    found.params = evolve(found.params, **changes)  # type: ignore[arg-type]
    if rest or not text:
        read = text.removesuffix(rest) or "0"
        found.remarks.append(f"{key}={text} is read as {key}={read}; allowed are e.g. 512M, 0x20000000 and 50%")


_Early = Callable[[CommandLine, str, "str | None", Features], None]
_EARLY: dict[str, _Early] = {
    "memhp_default_state": _default_state, "movable_node": _movable_node, "kernelcore": _core, "movablecore": _core,
    "hugetlb_free_vmemmap": _free_vmemmap,
}


# -- memory_hotplug.*: the parsers of the files of the same names -----------------------------------------------------


def _boolean(value: str | None, features: Features) -> bool:
    return True if value is None else kstrtobool(value, enable_words=features.bool_enable_words)


def _memmap(value: str | None, features: Features) -> MemmapMode:
    if features.memmap_force and value is None:
        raise BadText("it needs a value: Y, N or force")
    if features.memmap_force and value in ("force", "FORCE"):
        return MemmapMode.FORCE
    return MemmapMode.YES if _boolean(value, features) else MemmapMode.NO


_PARAMETERS: dict[str, Callable[["str | None", Features], object]] = {
    "online_policy": lambda value, _: _one_of(value, _POLICIES),
    "auto_movable_ratio": lambda value, _: kstrtoull(value or "", limit=_UINT_MAX),
    "auto_movable_numa_aware": _boolean,
    "memmap_on_memory": _memmap,
}


def _module_parameter(found: CommandLine, name: str, value: str | None, features: Features) -> None:
    if name not in _PARAMETERS:
        found.log.append(("warning", f"memory_hotplug: unknown parameter '{name}' ignored"))
        raise BadText(f"there is no such parameter{did_you_mean(name, _PARAMETERS)} "
                      f"(known: {', '.join(_PARAMETERS)})")
    try:
        found.params = evolve(found.params, **{name: _PARAMETERS[name](value, features)})  # type: ignore[arg-type]
    except SysError:
        found.log.append(("err", f"Booting kernel: `{value or ''}' invalid for parameter `memory_hotplug.{name}'"))
        raise
    if name == "memmap_on_memory" and (value or "").lower() == "force" and not features.memmap_force:
        found.remarks.append(f"memory_hotplug.{name}={value} is read as N: kernel {features.release} has no force")
