"""One client's side of the protocol: lines in, objects out, nothing waits.

Source: QEMU's monitor/qmp.c, qapi/qmp-dispatch.c and docs/interop/qmp-spec.
"""

import json
from typing import Any

from attrs import define

from memhpfs.errors import SysError
from memhpfs.qmp.commands import COMMANDS, VERSION
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware

__all__ = ["MAX_LINE_BYTES", "Session"]

#: Longest line that is taken.
MAX_LINE_BYTES = 1 << 20

Reply = dict[str, Any]


@define(eq=False)
class Session:
    """One client.

    Attributes:
        negotiated: it has sent qmp_capabilities, and gets events from now on.
    """

    hardware: Hardware
    negotiated: bool = False

    def greeting(self) -> Reply:
        """What a new client is told first."""
        return {"QMP": {"version": VERSION, "capabilities": []}}

    def too_long(self) -> Reply:
        """The answer to a line that is longer than MAX_LINE_BYTES."""
        return _error(QmpError(f"JSON token size limit exceeded: a line may have {MAX_LINE_BYTES} bytes"))

    def receive(self, line: bytes) -> Reply | None:
        """The answer to one line, or None for an empty one."""
        if not line.strip():
            return None
        try:
            request = json.loads(line)
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

    def _execute(self, request: Any) -> Any:
        if not isinstance(request, dict):
            raise QmpError("QMP input must be a JSON object")
        for member in request:
            if member not in ("execute", "arguments", "id"):
                raise QmpError(f"QMP input member '{member}' is unexpected")
        name = request.get("execute")
        if name is None:
            raise QmpError("QMP input lacks member 'execute'")
        if not isinstance(name, str):
            raise QmpError("QMP input member 'execute' must be a string")
        command = COMMANDS.get(name)
        if not self.negotiated and name != "qmp_capabilities":
            raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
        if command is None or (self.negotiated and name == "qmp_capabilities"):
            what = "Capabilities negotiation is already complete, command" if command else "The command"
            raise QmpError(f"{what} {name} " + ("ignored" if command else "has not been found"), "CommandNotFound")
        result = command.run(self.hardware, command.check(request.get("arguments", {})))
        self.negotiated = True
        return result


def _error(error: QmpError) -> Reply:
    return {"error": {"class": error.kind, "desc": error.desc}}


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "not UTF-8"
