"""The two doors to a machine, with one interface: a model in this process, and a mount with its sockets.

A door has system calls on files, the commands of QMP, and the uevents that came since they were last asked for.
"""

import json
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from attrs import define, field

from memhpfs.errors import SysError, UserError
from memhpfs.kernel.journal import Uevent
from memhpfs.kernel.pause import Nudge, Op
from memhpfs.machine.description import Machine
from memhpfs.qmp.hardware import Hardware
from memhpfs.qmp.power_on import power_on
from memhpfs.qmp.session import Session
from memhpfs.replay.calls import Calls, RealCalls
from memhpfs.replay.network import received
from memhpfs.replay.vfs import Vfs
from memhpfs.sysfs.tree import Tree
from memhpfs.sysfs.uevent import message

__all__ = ["Door", "HardwareError", "InProcess", "Mounted", "Qmp"]

T = TypeVar("T")

#: Subsystems whose uevents are followed.
SUBSYSTEMS = ("memory", "node")
#: A pause that costs nothing lasts a tick, and no step lasts longer than ten minutes of the machine's time.
_TICK_NS, _LONGEST_MS = 1_000_000, 600_000
#: How long a mounted machine has to answer its hardware, and the status that says it has not yet.
_SETTLE_S, _OST_IN_PROGRESS = 30.0, 0x84


class HardwareError(Exception):
    """A QMP command that was refused."""


class Door(Protocol):
    """A machine that has just booted.

    Attributes:
        behind_fuse: whether FUSE stands in between.
    """

    behind_fuse: bool

    @property
    def calls(self) -> Calls:
        """System calls on its files."""

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of QMP; its answer.

        Raises:
            HardwareError: it was refused.
        """

    def settle(self, device: str) -> None:
        """Wait until the guest has done what a device asked for."""

    def uevents(self) -> list[dict[str, str]]:
        """The uevents of memory and nodes since the last time, without sequence numbers."""


@define(eq=False)
class InProcess:
    """The model, without a mount: every call is over at once, and time is what the model says things cost."""

    machine: Machine
    calls: Vfs = field(init=False)
    behind_fuse: bool = field(default=False, init=False)
    _tree: Tree = field(init=False)
    _hardware: Hardware = field(init=False)
    _session: Session = field(init=False)
    _now_ns: int = field(default=0, init=False)
    _uevents: list[dict[str, str]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._hardware = power_on(self.machine)
        self._tree = Tree(self._hardware.kernel, lambda: self._now_ns)
        self.calls = Vfs(self._tree, self._finish)
        self._session = Session(self._hardware)
        self.command("qmp_capabilities")
        self.uevents()

    def _finish(self, op: Op[T], timeout_ms: int) -> T:
        """Run an Op to its end; the clock goes on by what its pauses cost."""
        end_ns = self._now_ns + (timeout_ms or _LONGEST_MS) * 1_000_000
        nudge = Nudge.GO
        try:
            pause = next(op)
            while True:
                self._now_ns += max(pause.cost_ns, _TICK_NS)
                nudge = Nudge.SIGNAL if pause.interruptible and self._now_ns >= end_ns else Nudge.GO
                pause = op.send(nudge)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            self._drain()

    def _drain(self) -> None:
        """Let the tree see what came and went, and keep the uevents."""
        for entry in self._tree.kernel.journal.drain():
            self._tree.stale(entry)
            if isinstance(entry, Uevent) and entry.subsystem in SUBSYSTEMS:
                sent = message(entry)
                head = {"ACTION": sent.action, "DEVPATH": sent.devpath, "SUBSYSTEM": sent.subsystem}
                self._uevents.append(head | dict(pair.split("=", 1) for pair in sent.extra))

    def command(self, name: str, **arguments: Any) -> Any:
        line = json.dumps({"execute": name, "arguments": arguments})
        reply = self._session.receive(line.encode() + b"\n") or {}
        if "error" in reply:
            raise HardwareError(reply["error"]["desc"])
        return reply.get("return")

    def settle(self, device: str) -> None:
        while self._hardware.work:
            try:
                self._finish(self._hardware.work.popleft(), 0)
            except SysError:
                continue

    def uevents(self) -> list[dict[str, str]]:
        self._drain()
        sent, self._uevents = self._uevents, []
        return sent


class Qmp(Protocol):
    """A connection to a QMP socket; refusals are UserErrors."""

    def execute(self, command: str, **arguments: Any) -> Any:
        """A command; its answer."""

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float | None = None) -> dict[str, Any]:
        """The next event that is wanted."""


@define(eq=False)
class Mounted:
    """A mount, its QMP socket, and a socket that hears its uevents.

    Attributes:
        root: where it is mounted.
    """

    root: str
    calls: RealCalls = field(init=False)
    behind_fuse: bool = field(default=True, init=False)
    _qmp: Qmp
    _sock: socket.socket

    def __attrs_post_init__(self) -> None:
        self.calls = RealCalls(self.root)

    def command(self, name: str, **arguments: Any) -> Any:
        try:
            return self._qmp.execute(name, **arguments)
        except UserError as error:
            raise HardwareError(str(error)) from None

    def settle(self, device: str) -> None:
        """Wait for the guest's last word about a device, as its firmware hears it (_OST)."""

        def last_word(event: dict[str, Any]) -> bool:
            info = event.get("data", {}).get("info", {})
            return bool(info.get("device") == device and info.get("status") != _OST_IN_PROGRESS)

        try:
            self._qmp.wait_for(last_word, _SETTLE_S)
        except UserError as error:
            raise HardwareError(f"{device}: {error}") from None

    def uevents(self) -> list[dict[str, str]]:
        return [found for found in received(self._sock) if found.get("SUBSYSTEM") in SUBSYSTEMS]
