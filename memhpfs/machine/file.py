"""The shape of a machine file: tables and keys as attrs classes, read with cattrs.

Lives here: which keys there are and of what type; errors that name file, key, value and what is allowed.
Must not: what the values mean together (resolve.py).
"""

from collections.abc import Callable, Iterator
from typing import Any

from attrs import Attribute, field, fields, frozen
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from memhpfs.kernel.spec import RamKind
from memhpfs.machine.mistakes import Mistakes
from memhpfs.units import parse_size
from memhpfs.words import did_you_mean, nearest

__all__ = ["DimmTable", "MachineFile", "NodeTable", "RamTable", "Size", "TimingTable", "WorkloadTable", "structure"]

#: Names that the format reserves, and that this version does not have.
RESERVED = {"virtio-mem": "virtio-mem devices"}


@frozen
class Size:
    """A size in bytes, as a type for cattrs."""

    bytes: int


@frozen
class NodeTable:
    """[[node]]"""

    id: int
    cpus: str = ""
    ram: Size | None = None
    distances: list[int] = field(factory=list)


@frozen
class RamTable:
    """[[ram]]"""

    start: Size
    end: Size
    node: int = 0
    kind: str = RamKind.NORMAL.value


@frozen
class DimmTable:
    """[[dimm]]"""

    id: str
    size: Size
    node: int = 0


@frozen
class WorkloadTable:
    """[[workload]]: something that uses memory from the start."""

    id: str
    kind: str
    size: Size | None = None
    share: str = ""
    node: int | None = None
    movable: bool = False
    reserved: bool = False


@frozen
class TimingTable:
    """[timing]"""

    migration_rate: Size = Size(0)


@frozen
class MachineFile:
    """All keys of a machine file; names have `-` where the fields have `_`.

    A table of an array is None where it could not be read, so that the others keep their numbers.
    """

    kernel: str = "6.12"
    arch: str = "x86_64"
    cmdline: str = ""
    ram: Size | None = None
    block_size: Size | None = None
    slots: int = 16
    maxmem: Size | None = None
    hotplug_base: Size | None = None
    without: list[str] = field(factory=list)
    with_: list[str] = field(factory=list)
    node: list[NodeTable | None] = field(factory=list)
    ram_ranges: list[RamTable | None] = field(factory=list)
    dimm: list[DimmTable | None] = field(factory=list)
    workload: list[WorkloadTable | None] = field(factory=list)
    timing: TimingTable = field(factory=TimingTable)


_TABLES = (NodeTable, RamTable, DimmTable, WorkloadTable, TimingTable, MachineFile)
_WORDS: dict[type, str] = {str: "a string", int: "an integer", bool: "true or false"}
#: Where both forms of boot RAM meet: `ram = "6G"` stays `ram`, `[[ram]]` is read as this.
_RANGES = "ram-ranges"
#: So much of a value is repeated in an error.
_SAID = 60
_ARRAYS = ("node", "ram", "dimm", "workload")
#: Where a value stands: keys of tables, numbers of items.
_Path = tuple[str | int, ...]


class _LacksQuotes(ValueError):
    """A number where a string must be."""

    def __init__(self, value: float) -> None:
        super().__init__(f"must be a string, not {value!r}")
        self.value = value


def _key(item: "Attribute[Any]") -> str:
    """The key in the file of a field: `block_size` is `block-size`, `with_` is `with`."""
    return item.name.rstrip("_").replace("_", "-")


def structure(data: dict[str, Any], mistakes: Mistakes) -> MachineFile:
    """A machine file's tables as records; what cannot be read is left out, and told to `mistakes`."""
    tables = dict(data)
    for path, what in [*_misplaced(tables), *_too_large(tables, ())]:
        _refuse(tables, path, what, mistakes)
    if isinstance(tables.get("ram"), list):
        tables[_RANGES] = tables.pop("ram")
    converter = _converter()
    try:
        return converter.structure(tables, MachineFile)
    except ClassValidationError as error:
        for path, what in list(_reasons(error, ())):
            _refuse(tables, path, what, mistakes)
    return converter.structure(tables, MachineFile)


def _misplaced(tables: dict[str, Any]) -> Iterator[tuple[_Path, str]]:
    """Keys that are no tables of this version, and tables that should be arrays of them."""
    for name, what in RESERVED.items():
        if name in tables:
            yield (name,), f"this version does not have {what}"
    for name in _ARRAYS:
        if isinstance(tables.get(name), dict):
            yield (name,), f"must be an array of tables; write [[{name}]]"


def _too_large(data: Any, path: _Path) -> Iterator[tuple[_Path, str]]:
    """Numbers beyond what TOML promises to hold."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _too_large(value, (*path, key))
    elif isinstance(data, int) and not -1 << 63 <= data < 1 << 63:
        yield path, "a number in TOML has at most 64 bits"


def _refuse(tables: dict[str, Any], path: _Path, what: str, mistakes: Mistakes) -> None:
    """Tell a mistake and take it out: of an array the table that has it, else the whole key."""
    top, inner = str(path[0]), path[1:]
    mistakes.add(_spelled(path), what)
    mistakes.doubt(nearest(top, _keys(MachineFile)) or "")
    if inner and isinstance(inner[0], int):
        tables[top] = [None if index == inner[0] else item for index, item in enumerate(tables[top])]
    else:
        tables.pop(top, None)


def _spelled(path: _Path) -> str:
    """`dimm[0].size`; a key that is no word as Python writes it."""
    words = [f"[{part}]" if isinstance(part, int) else
             f".{part}" if part.isprintable() and len(part) < _SAID else f".{_say(part)}" for part in path]
    return "".join(words).removeprefix(".").replace(_RANGES, "ram")


def _converter() -> Converter:
    converter = Converter()
    for kind in _WORDS:
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook_func(lambda kind: kind == list[str], _words)
    converter.register_structure_hook(Size, lambda value, _: Size(parse_size(value)))
    for table in _TABLES:
        renamed = {item.name: override(rename=_key(item)) for item in fields(table)}
        hook = make_dict_structure_fn(table, converter, _cattrs_forbid_extra_keys=True, **renamed)  # type: ignore[arg-type]
        converter.register_structure_hook(table, _only_tables(hook))
    return converter


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
                raise _LacksQuotes(value)
            raise ValueError(f"must be {_WORDS[kind]}, not {_say(value)}")
        return value

    return check


def _words(value: Any, _: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"must be an array of strings, not {_say(value)}")
    return value


def _only_tables(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def check(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be a table, not {_say(value)}")
        return hook(value, kind)

    return check


def _reasons(error: BaseException, path: _Path) -> Iterator[tuple[_Path, str]]:
    """Path and reason of all mistakes in cattrs' tree of errors."""
    if isinstance(error, ClassValidationError):
        marked, others = error.group_exceptions()
        unknown = {key for other in others if isinstance(other, ForbiddenExtraKeysError) for key in other.extra_fields}
        for key in sorted(unknown):
            yield (*path, key), _unknown(key, error.cl)
        meant = {nearest(key, _keys(error.cl)) for key in unknown}
        for inner, note in marked:
            key = _key(getattr(fields(error.cl), note.name))
            # A key that is misspelt is also one that is missing.
            if not (isinstance(inner, KeyError) and key in meant):
                yield from _reasons(inner, (*path, key))
        yield from ((path, str(other)) for other in others if not isinstance(other, ForbiddenExtraKeysError))
    elif isinstance(error, IterableValidationError):
        for inner, item in error.group_exceptions()[0]:
            yield from _reasons(inner, (*path, item.index))
    else:
        yield path, _reason(error, path)


def _reason(error: BaseException, path: _Path) -> str:
    """What is wrong with one key."""
    if isinstance(error, KeyError):
        return "is missing"
    if isinstance(error, TypeError):
        return "must be an array"
    hint = f'; put it in quotes: {path[-1]} = "{error.value!r}"' if isinstance(error, _LacksQuotes) else ""
    return f"{error}{hint}"


def _keys(table: type) -> list[str]:
    """The keys that a table may have, by the alphabet."""
    return sorted(_key(item) for item in fields(table) if _key(item) != _RANGES)


def _unknown(key: str, table: type) -> str:
    names = _keys(table)
    return f"unknown key{did_you_mean(key, names)} (known: {', '.join(names)})"


def _say(value: Any) -> str:
    """A value as the file may have it, cut where it is long."""
    return f"{value!r}"[:_SAID] if not isinstance(value, bool) else str(value).lower()
