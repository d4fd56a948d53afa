"""What a QMP command is: a row with a name, typed arguments and what it does."""

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware
from memhpfs.units import parse_size

__all__ = ["Args", "Argument", "Command"]

Args = dict[str, Any]
_TYPE_WORDS = {str: "string", int: "integer", bool: "boolean", list: "array"}


@frozen
class Argument:
    """An argument of a command: its type, `str`, `int`, `bool` or `size` (an integer or a text like "1G")."""

    kind: type | str = str
    required: bool = True


@frozen
class Command:
    """A command.

    Attributes:
        help: one line.
        arguments: by name.
        run: takes the hardware and the checked arguments; the result is what `return` holds.
    """

    help: str
    run: Callable[[Hardware, Args], Any]
    arguments: dict[str, Argument] = field(factory=dict)

    def check(self, given: Any) -> Args:
        """The arguments, checked.

        Raises:
            QmpError: with QEMU's words.
        """
        if not isinstance(given, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        for name in given:
            if name not in self.arguments:
                raise QmpError(f"Parameter '{name}' is unexpected")
        found = {}
        for name, argument in self.arguments.items():
            if name in given:
                found[name] = _typed(name, argument.kind, given[name])
            elif argument.required:
                raise QmpError(f"Parameter '{name}' is missing")
        return found


def _typed(name: str, kind: type | str, value: Any) -> Any:
    if kind == "size":
        try:
            return parse_size(value)
        except ValueError:
            raise QmpError(f"Parameter '{name}' expects a non-negative number below 2^64") from None
    assert isinstance(kind, type)
    if type(value) is not kind:
        raise QmpError(f"Invalid parameter type for '{name}', expected: {_TYPE_WORDS[kind]}")
    return value
