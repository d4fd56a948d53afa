"""The shape of a machine file: tables and keys as attrs classes, read with cattrs.

Lives here: which keys there are and of what type; errors that name file, key, value and what is allowed.
Must not: what the values mean together (resolve.py).
"""

import difflib
from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, fields, frozen
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from memhpfs.errors import UserError
from memhpfs.kernel.spec import RamKind
from memhpfs.units import parse_size

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
    """All keys of a machine file; names have `-` where the fields have `_`."""

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
    node: list[NodeTable] = field(factory=list)
    ram_ranges: list[RamTable] = field(factory=list)
    dimm: list[DimmTable] = field(factory=list)
    workload: list[WorkloadTable] = field(factory=list)
    timing: TimingTable = field(factory=TimingTable)


_TABLES = (NodeTable, RamTable, DimmTable, WorkloadTable, TimingTable, MachineFile)
_WORDS: dict[type, str] = {str: "a string", int: "an integer", bool: "true or false"}
#: Where both forms of boot RAM meet: `ram = "6G"` stays `ram`, `[[ram]]` is read as this.
_RANGES = "ram-ranges"
#: So much of a value is repeated in an error.
_SAID = 60
_ARRAYS = ("node", "ram", "dimm", "workload")


def _key(item: "Attribute[Any]") -> str:
    """The key in the file of a field: `block_size` is `block-size`, `with_` is `with`."""
    return item.name.rstrip("_").replace("_", "-")


def structure(data: dict[str, Any], where: str) -> MachineFile:
    """A machine file's tables as records.

    Args:
        where: the file's name for errors.

    Raises:
        UserError: exit code 2; names the key, the value and what is allowed, and the nearest known key.
    """
    tables = dict(data)
    for name, what in RESERVED.items():
        if name in tables:
            raise UserError(f"{where}: {name}: this version does not have {what}", exit_code=2)
    for name in _ARRAYS:
        if isinstance(tables.get(name), dict):
            raise UserError(f"{where}: {name}: must be an array of tables; write [[{name}]]", exit_code=2)
    if isinstance(tables.get("ram"), list):
        tables[_RANGES] = tables.pop("ram")
    try:
        return _converter().structure(tables, MachineFile)
    except (ClassValidationError, IterableValidationError) as error:
        path, what = _first_mistake(error, "")
        raise UserError(f"{where}: {path.replace(_RANGES, 'ram')}: {what}", exit_code=2) from None


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
            hint = "; put it in quotes" if kind is str and isinstance(value, int | float) else ""
            raise ValueError(f"must be {_WORDS[kind]}, not {_say(value)}{hint}")
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


def _first_mistake(error: BaseException, path: str) -> tuple[str, str]:
    """Key and reason of the first mistake in cattrs' tree of errors."""
    if isinstance(error, ClassValidationError):
        marked, others = error.group_exceptions()
        # A key that is misspelt is also one that is missing.
        if marked and not any(isinstance(other, ForbiddenExtraKeysError) for other in others):
            inner, note = marked[0]
            name = _key(getattr(fields(error.cl), note.name))
            return _first_mistake(inner, f"{path}.{name}" if path else name)
        return _first_mistake(max(others, key=lambda other: isinstance(other, ForbiddenExtraKeysError)), path)
    if isinstance(error, IterableValidationError):
        marked_items, _ = error.group_exceptions()
        inner, item = marked_items[0]
        return _first_mistake(inner, f"{path}[{item.index}]")
    if isinstance(error, ForbiddenExtraKeysError):
        key = sorted(error.extra_fields)[0]
        shown = key if key.isprintable() and len(key) < _SAID else _say(key)
        return f"{path}.{shown}" if path else shown, _unknown(key, error.cl)
    if isinstance(error, KeyError):
        return path, "is missing"
    if isinstance(error, TypeError):
        return path, "must be an array"
    return path, str(error)


def _unknown(key: str, table: type) -> str:
    names = sorted(_key(item) for item in fields(table) if _key(item) != _RANGES)
    near = difflib.get_close_matches(key, names, 1, 0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown key{hint} (known: {', '.join(names)})"


def _say(value: Any) -> str:
    """A value as the file may have it, cut where it is long."""
    return f"{value!r}"[:_SAID] if not isinstance(value, bool) else str(value).lower()
