"""What the tests of the host need: a small machine with slow stores, served by a process of its own.

A client must be another process than the daemon, because a thread of the daemon that opens a file of its own mount can
wait for itself.
"""

from memhpfs.errors import Interrupted
from memhpfs.kernel.boot import boot
from memhpfs.kernel.lock import with_hotplug_lock
from memhpfs.kernel.pause import Nudge, Op, Pause
from memhpfs.kernel.spec import RamRange, Spec
from memhpfs.kernel.state import Kernel
from memhpfs.sysfs.tree import Tree
from memhpfs.units import GIB

__all__ = ["MEMORY", "SlowTree", "small_kernel"]

MEMORY = "sys/devices/system/memory"


def small_kernel() -> Kernel:
    """6 GiB of boot memory, as QEMU lays it out."""
    ram = (RamRange(0x1000, 0x9FC00), RamRange(0x100000, 0xBFFE0000), RamRange(4 * GIB, 7 * GIB))
    return boot(Spec("6.12", "x86_64", ram))


def _pauses(seconds: float, pause: Pause) -> Op[int]:
    for _ in range(max(1, round(seconds * 1e9 / (pause.cost_ns or 1)))):
        if (yield pause) is Nudge.SIGNAL:
            raise Interrupted()
    return 0


def _spin(seconds: float) -> Op[int]:
    """Costs nothing, and never ends before a signal."""
    while (yield Pause("spinning", interruptible=True)) is Nudge.GO:
        continue
    raise Interrupted()


class SlowTree(Tree):
    """A tree where any writable file also takes `!WORD SECONDS`, which waits in the way that the word says."""

    def write(self, ino: int, data: bytes) -> Op[int] | int:
        if not data.startswith(b"!"):
            return super().write(ino, data)
        word, _, rest = data[1:].decode().partition(" ")
        seconds = float(rest or 0)
        match word:
            case "sleep":
                op = _pauses(seconds, Pause("test", 50_000_000, interruptible=True))
            case "sleep-deaf":
                op = _pauses(seconds, Pause("test", 50_000_000))
            case "sleep-locked":
                op = with_hotplug_lock(self.kernel, "test", lambda: _pauses(seconds, Pause("test", 50_000_000, True)))
            case "hold":
                op = with_hotplug_lock(self.kernel, "test", lambda: _pauses(seconds, Pause("test", 50_000_000)))
            case "spin":
                op = _spin(seconds)
            case _:
                raise AssertionError(f"a bug on purpose: {word}")
        return _counted(op, len(data))


def _counted(op: Op[int], taken: int) -> Op[int]:
    yield from op
    return taken
