"""One client's side of the protocol: bytes in, objects out, nothing waits.

Source: QEMU's monitor/qmp.c, qapi/qmp-dispatch.c and docs/interop/qmp-spec.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field

from memhpfs.errors import SysError
from memhpfs.qmp.commands import CAPABILITIES, COMMANDS, VERSION
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware
from memhpfs.qmp.stream import Frames

__all__ = ["MAX_REQUEST_BYTES", "Session"]

#: Longest request that is taken.
MAX_REQUEST_BYTES = 1 << 20
_MAX_DIGITS = 100

Reply = dict[str, Any]


@define(eq=False)
class Session:
    """One client.

    Attributes:
        on_bug: told of what a command should never raise, which the client gets as an error; None: it is raised.
        negotiated: it has sent qmp_capabilities, and gets events from now on.
    """

    hardware: Hardware
    on_bug: Callable[[str, Exception], None] | None = None
    negotiated: bool = False
    _out_of_band: bool = field(default=False, init=False)
    _frames: Frames = field(factory=Frames, init=False)

    def greeting(self) -> Reply:
        """What a new client is told first."""
        return {"QMP": {"version": VERSION, "capabilities": list(CAPABILITIES)}}

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The answers to what these bytes complete.  After the answer to a text that is too long listen no more."""
        for text in self._frames.feed(data):
            if (reply := self.receive(text)) is not None:
                yield reply
        if self.overrun:
            yield _error(QmpError(f"JSON token size limit exceeded: a request may have {MAX_REQUEST_BYTES} bytes"))

    @property
    def overrun(self) -> bool:
        """Whether the client sends something that is too long."""
        return self._frames.pending_bytes > MAX_REQUEST_BYTES

    def receive(self, line: bytes) -> Reply | None:
        """The answer to one text, or None for an empty one."""
        if not line.strip():
            return None
        try:
            request = json.loads(line, object_pairs_hook=_object, parse_int=_int, parse_float=_float,
                                 parse_constant=_float)
        except (ValueError, RecursionError) as error:
            return _error(QmpError(f"JSON parse error, {_reason(error)}"))
        reply = self._dispatch(request)
        if isinstance(request, dict) and "id" in request:
            reply["id"] = request["id"]
        return reply

    def _dispatch(self, request: Any) -> Reply:
        try:
            return {"return": self._execute(request)}
        except QmpError as error:
            return _error(error)
        except SysError as error:
            return _error(QmpError(error.reason))
        except Exception as error:
            if self.on_bug is None:
                raise
            self.on_bug("QMP", error)
            return _error(QmpError("a bug in memhpfs; the machine is tainted"))

    def _execute(self, request: Any) -> Any:
        if not isinstance(request, dict):
            raise QmpError("QMP input must be a JSON object")
        name, out_of_band = self._command_name(request)
        if not self.negotiated and name != "qmp_capabilities":
            raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
        if self.negotiated and name == "qmp_capabilities":
            raise QmpError("Capabilities negotiation is already complete, command ignored", "CommandNotFound")
        command = COMMANDS.get(name)
        if command is None:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        if out_of_band:
            raise QmpError(f"The command {name} does not support OOB")
        args = command.check(request.get("arguments", {}))
        result = command.run(self.hardware, args)
        if not self.negotiated:
            self.negotiated, self._out_of_band = True, "oob" in args.get("enable", [])
        return result

    def _command_name(self, request: dict[str, Any]) -> tuple[str, bool]:
        """The command that a request is for, and whether it is to be run out of band."""
        verbs = ("execute", "exec-oob") if self._out_of_band else ("execute",)
        for member in request:
            if member not in (*verbs, "arguments", "id"):
                raise QmpError(f"QMP input member '{member}' is unexpected")
        found = [verb for verb in request if verb in verbs]
        if not found:
            raise QmpError("QMP input lacks member 'execute'")
        if len(found) > 1:
            raise QmpError(f"QMP input member '{found[1]}' clashes with '{found[0]}'")
        name = request[found[0]]
        if not isinstance(name, str):
            raise QmpError(f"QMP input member '{found[0]}' must be a string")
        return name, found[0] == "exec-oob"


def _error(error: QmpError) -> Reply:
    return {"error": {"class": error.kind, "desc": error.desc}}


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _int(text: str) -> int:
    """A number of JSON; Python refuses to convert thousands of digits."""
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number has too many digits")
    return int(text)


def _float(text: str) -> float:
    """A number of JSON, which has none like NaN and Infinity."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which QEMU wants each key once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found
