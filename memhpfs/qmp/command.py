"""What a QMP command is: a row with a name, typed arguments and what it does."""

import json
import re
from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware
from memhpfs.units import parse_size

__all__ = ["Args", "Argument", "Command"]

Args = dict[str, Any]
_TYPE_WORDS = {str: "string", int: "integer", bool: "boolean", list: "array"}
_BACKENDS = ("memory-backend-ram",)
#: QEMU: id_wellformed.
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,40}|[0-9]{1,40})")
#: Numbers of JSON, and those of properties by the C type that QEMU has for them.
_INT64 = range(-1 << 63, 1 << 63)
_C_NUMBERS = {"int32_t": range(-1 << 31, 1 << 31), "uint32_t": range(1 << 32), "uint64_t": range(1 << 64)}


@frozen
class Argument:
    """An argument of a command.

    Attributes:
        kind: a JSON type, `object` for any; "uint64", a number; "size", that or a text like "1G"; "id", an
            identifier; "backend", a type of memory backend; or, as QEMU has it for properties of devices, "text" or
            one of the C types, each with or without quotes.
    """

    kind: type | str = str
    required: bool = True


@frozen
class Command:
    """A command.

    Attributes:
        help: one line.
        arguments: by name.
        run: takes the hardware and the checked arguments; the result is what `return` holds.
        unexpected: what is said of an argument that it does not have.
        skips: values of these types count as not given.
    """

    help: str
    run: Callable[[Hardware, Args], Any]
    arguments: dict[str, Argument] = field(factory=dict)
    unexpected: str = "Parameter '{}' is unexpected"
    skips: tuple[type, ...] = ()

    def check(self, given: Any) -> Args:
        """The arguments, checked.

        Raises:
            QmpError: with QEMU's words.
        """
        if not isinstance(given, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        given = {name: value for name, value in given.items() if not isinstance(value, self.skips)}
        for name in given:
            if name not in self.arguments:
                raise QmpError(self.unexpected.format(name))
        found = {}
        for name, argument in self.arguments.items():
            if name in given:
                found[name] = _typed(name, argument.kind, given[name])
            elif argument.required:
                raise QmpError(f"Parameter '{name}' is missing")
        return found


def _typed(name: str, kind: type | str, value: Any) -> Any:
    if isinstance(kind, type):
        return _of_type(name, kind, value)
    if kind == "size":
        try:
            return parse_size(value)
        except ValueError:
            raise QmpError(f"Parameter '{name}' expects a non-negative number below 2^64") from None
    if kind == "uint64":
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise QmpError(f"Parameter '{name}' expects uint64")
        return value
    if kind == "id":
        if not _IDENTIFIER.fullmatch(_of_type(name, str, value)):
            raise QmpError(f"Parameter '{name}' expects an identifier")
        return value
    if kind == "backend":
        if _of_type(name, str, value) not in _BACKENDS:
            raise QmpError(f"Parameter '{name}' does not accept value '{value}'")
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return _c_number(name, kind, text) if kind in _C_NUMBERS else text


def _c_number(name: str, kind: str, text: str) -> int:
    """A number of a property: 64 bits are read, of which fewer may be allowed; in `uint64_t` -1 is 2^64 - 1."""
    number = int(text, 0 if "x" in text.lower() else 10) if _NUMBER.fullmatch(text) else 1 << 64
    if number not in _INT64 and (kind != "uint64_t" or number not in _C_NUMBERS[kind]):
        raise QmpError(f"Parameter '{name}' expects integer")
    if kind == "uint64_t":
        return number % (1 << 64)
    if number not in _C_NUMBERS[kind]:
        raise QmpError(f"Parameter '{name}' expects {kind}")
    return number


def _of_type(name: str, kind: type, value: Any) -> Any:
    if kind is not object and (type(value) is not kind or (kind is int and value not in _INT64)):
        raise QmpError(f"Invalid parameter type for '{name}', expected: {_TYPE_WORDS[kind]}")
    return value
