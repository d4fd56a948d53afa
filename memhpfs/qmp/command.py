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
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)")


@frozen
class Argument:
    """An argument of a command.

    Attributes:
        kind: a JSON type; "uint64", a number; "size", that or a text like "1G"; "id", an identifier; "backend",
            a type of memory backend; or, as QEMU has it for properties of devices, "text" and "number", each with or
            without quotes.
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
    """

    help: str
    run: Callable[[Hardware, Args], Any]
    arguments: dict[str, Argument] = field(factory=dict)
    unexpected: str = "Parameter '{}' is unexpected"

    def check(self, given: Any) -> Args:
        """The arguments, checked.

        Raises:
            QmpError: with QEMU's words.
        """
        if not isinstance(given, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
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
    if kind == "number":
        if not _NUMBER.fullmatch(text):
            raise QmpError(f"Parameter '{name}' expects integer")
        return int(text, 0 if "x" in text.lower() else 10)
    return text


def _of_type(name: str, kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise QmpError(f"Invalid parameter type for '{name}', expected: {_TYPE_WORDS[kind]}")
    return value
