"""A machine in this process, driven as users drive theirs: a machine file, writes to files, QMP commands.

Pauses cost nothing here.  What waits for ever is begun, and stepped.
"""

import json
import tomllib
from typing import Any

from memhpfs.errors import SysError
from memhpfs.kernel.check import check
from memhpfs.kernel.journal import LogRecord
from memhpfs.kernel.pages import Use
from memhpfs.kernel.pause import Nudge, Op, Pause, run_now
from memhpfs.machine.mistakes import Mistakes
from memhpfs.machine.resolve import resolve
from memhpfs.qmp.power_on import power_on
from memhpfs.qmp.session import Session
from memhpfs.sysfs import klog
from memhpfs.sysfs.tree import Tree

__all__ = ["MEMORY", "MOVABLE", "Guest", "Refused"]

MEMORY = "sys/devices/system/memory"
#: 2 GiB of boot memory in the kernel zones, blocks 0 to 15, and 1 GiB in ZONE_MOVABLE, blocks 32 to 39.
MOVABLE = """
ram = "2G"
cmdline = "memhp_default_state=online_movable"
dimm = [{id = "d0", size = "1G"}]
"""


class Refused(Exception):
    """A QMP command that was refused, in the machine's words."""


class Guest:
    """A machine from the text of a machine file."""

    def __init__(self, text: str = MOVABLE) -> None:
        self.hardware = power_on(resolve(tomllib.loads(text), "test", "", Mistakes("test")))
        self.kernel = self.hardware.kernel
        self.tree = Tree(self.kernel, lambda: 0)
        self._session = Session(self.hardware)
        self.qmp("qmp_capabilities")
        self.kernel.journal.drain()

    def qmp(self, command: str, /, **arguments: Any) -> Any:
        """A QMP command; `_` in names becomes `-`."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        reply = self._session.receive(json.dumps({"execute": command, "arguments": named}).encode()) or {}
        if "error" in reply:
            raise Refused(reply["error"]["desc"])
        return reply["return"]

    def fill(self, name: str, kind: str, size: int | str, **arguments: Any) -> None:
        self.qmp("x-workload-add", id=name, kind=kind, size=size, **arguments)

    def free(self, name: str) -> None:
        self.qmp("x-workload-del", id=name)

    def plug(self, name: str, size: int, node: int = 0) -> None:
        """Plug a DIMM and let the guest work on it."""
        self.qmp("object-add", qom_type="memory-backend-ram", id=f"mem-{name}", size=size)
        self.qmp("device_add", driver="pc-dimm", id=name, memdev=f"mem-{name}", node=node)
        self._work()

    def unplug(self, name: str) -> None:
        """Ask for a DIMM back and let the guest work on it."""
        self.qmp("device_del", id=name)
        self._work()

    def read(self, path: str) -> str:
        text = self.tree.read(self._find(path))
        assert isinstance(text, bytes)
        return text.decode()

    def state(self, block: int) -> str:
        return self.read(f"{MEMORY}/memory{block}/state").strip()

    def write(self, path: str, text: str) -> None:
        """Write to a file, and wait for the end."""
        result = self.tree.write(self._find(path), text.encode("latin1"))
        if not isinstance(result, int):
            run_now(result)
        check(self.kernel)

    def begin(self, path: str, text: str) -> "Waiting":
        """Write to a file that makes the writer wait."""
        op = self.tree.write(self._find(path), text.encode())
        assert not isinstance(op, int)
        return Waiting(op, self)

    def set_state(self, block: int, word: str) -> None:
        self.write(f"{MEMORY}/memory{block}/state", word)

    def offline(self, block: int) -> "Waiting":
        return self.begin(f"{MEMORY}/memory{block}/state", "offline")

    def pages(self, zone: str, use: Use) -> int:
        """Pages of a use in a zone of node 0."""
        return self.kernel.nodes[0].zones[zone].pages.totals[use]

    def free_kernel_pages(self) -> int:
        return sum(zone.pages.totals[Use.FREE] for zone in self.kernel.nodes[0].zones.values() if not zone.movable)

    def said(self) -> list[str]:
        """New lines of the kernel's log."""
        return [klog.line(entry)[1] for entry in self.kernel.journal.drain() if isinstance(entry, LogRecord)]

    def statistics(self) -> dict[str, str]:
        """What the files in /proc tell, and the states of all blocks."""
        names = ("meminfo", "zoneinfo", "buddyinfo", "pagetypeinfo")
        found = {name: self.read(f"proc/{name}") for name in names}
        return found | {f"memory{block}": self.state(block) for block in self.kernel.blocks}

    def _work(self) -> None:
        while self.hardware.work:
            run_now(self.hardware.work.popleft())

    def _find(self, path: str) -> int:
        ino = self.tree.ROOT
        for name in path.split("/"):
            ino = self.tree.lookup(ino, name)
        return ino


class Waiting:
    """A write that has not ended."""

    def __init__(self, op: Op[int], guest: Guest) -> None:
        self._op, self._guest = op, guest
        self.pause: Pause | None = None
        self.error: SysError | None = None
        self._resume(None)

    @property
    def ended(self) -> bool:
        return self.pause is None

    def go_on(self, steps: int = 1, nudge: Nudge = Nudge.GO) -> "Waiting":
        """Let it go on by some pauses, if it does not end before."""
        for _ in range(steps):
            if not self.ended:
                self._resume(nudge)
        return self

    def signal(self) -> "Waiting":
        """The writer gets a signal."""
        return self.go_on(1, Nudge.SIGNAL)

    def _resume(self, nudge: Nudge | None) -> None:
        try:
            self.pause = next(self._op) if nudge is None else self._op.send(nudge)
        except StopIteration:
            self.pause = None
        except SysError as error:
            self.pause, self.error = None, error
        check(self._guest.kernel)
