"""What the tests of the host need: a small machine with slow stores, served by a process of its own, and its clients.

A client must be another process than the daemon, because a thread of the daemon that opens a file of its own mount can
wait for itself.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define

from memhpfs.errors import Interrupted
from memhpfs.host.syscalls import FUSE_SUPER_MAGIC, file_system_type
from memhpfs.kernel.check import check
from memhpfs.kernel.lock import with_hotplug_lock
from memhpfs.kernel.pause import Nudge, Op, Pause
from memhpfs.sysfs.tree import Tree

__all__ = [
    "MEMORY", "PATIENCE_S", "PYTHON", "Daemon", "SlowTree", "Writer", "children", "content", "leaves", "serving",
    "start", "wait_until", "waits_for_fuse",
]

MEMORY = "sys/devices/system/memory"
PYTHON = [sys.executable, "-E"]
#: How long tests wait for what must happen, in seconds: much longer than it takes on a busy computer, and much less
#: than what shall be ended would last by itself.
PATIENCE_S = 30.0

#: Writes argv[2] to argv[1], tells on stdout that it starts, and ends with the errno.  libc's write is not retried.
_WRITER = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_WRONLY)
data = sys.argv[2].encode()
os.write(1, b"x")
taken = libc.write(fd, data, len(data))
os._exit(0 if taken == len(data) else ctypes.get_errno())
"""


# -- the daemon's side ------------------------------------------------------------------------------------------------


def _pauses(seconds: float, *, interruptible: bool) -> Op[int]:
    for _ in range(max(1, round(seconds / 0.05))):
        if (yield Pause("test", 50_000_000, interruptible)) is Nudge.SIGNAL:
            raise Interrupted()
    return 0


def _until(file: Path) -> Op[int]:
    """Ends when a file is there."""
    while not file.exists():
        yield Pause("test", 50_000_000, interruptible=False)
    return 0


def _spin() -> Op[int]:
    """Costs nothing, and ends only with a signal."""
    while (yield Pause("spinning", interruptible=True)) is Nudge.GO:
        continue
    raise Interrupted()


class SlowTree(Tree):
    """A tree where any writable file also takes `!WORD SECONDS` or `!until FILE`, and waits as the word says.

    `!check` tells in the log how many tasks the daemon has, and is a bug of the model if anything does not add up.
    """

    def write(self, ino: int, data: bytes) -> Op[int] | int:
        if not data.startswith(b"!"):
            return super().write(ino, data)
        word, _, rest = data[1:].decode().partition(" ")
        match word:
            case "sleep":
                op = _pauses(float(rest), interruptible=True)
            case "deaf":
                op = _pauses(float(rest), interruptible=False)
            case "hold":
                op = with_hotplug_lock(self.kernel, "test", lambda: _pauses(float(rest), interruptible=True))
            case "until":
                op = _until(Path(rest.strip()))
            case "spin":
                op = _spin()
            case "check":
                check(self.kernel)
                print("tasks:", trio.lowlevel.current_statistics().tasks_living, file=sys.stderr, flush=True)
                return len(data)
            case _:
                raise AssertionError(f"a bug on purpose: {word}")
        return _counted(op, len(data))


def _counted(op: Op[int], taken: int) -> Op[int]:
    yield from op
    return taken


# -- the test's side --------------------------------------------------------------------------------------------------


@define
class Daemon:
    """A running `memhpfs mount`.

    Attributes:
        root: the mount point.
        log: its stderr.
        expect_code: exit code after SIGTERM.
    """

    process: subprocess.Popen[bytes]
    root: Path
    log: Path
    expect_code: int = 0

    @property
    def memory(self) -> Path:
        return self.root / MEMORY

    @property
    def said(self) -> str:
        return self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def wait_until(condition: Any, seconds: float = PATIENCE_S) -> None:
    """Wait for a condition, with a limit."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def content(path: Path) -> bytes:
    """What a file of /proc says; nothing where its process is gone or is somebody else's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def waits_for_fuse(pid: int) -> bool:
    """Whether a process waits for the answer of a FUSE daemon."""
    return content(Path(f"/proc/{pid}/wchan")) == b"request_wait_answer"


def children(pid: int) -> list[int]:
    """The children of a process, in the order in which they were started."""
    return [int(word) for word in content(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def leaves(pid: int) -> list[int]:
    """The processes below one that have no children; itself if it has none."""
    return [leaf for child in children(pid) for leaf in leaves(child)] or [pid]


def start(root: Path, *options: str, **popen: Any) -> Daemon:
    """Start a mount with a SlowTree at a directory and wait until it is usable, or has ended."""
    log = root.with_name(f"{root.name}.log")
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*PYTHON, __file__, "mount", str(root), *options], stdin=subprocess.DEVNULL, stderr=stderr, **popen
        )
    daemon = Daemon(process, root, log)
    before = daemon.said.count(" is at ")
    wait_until(lambda: daemon.said.count(" is at ") > before or process.poll() is not None)
    if process.poll() is None:
        assert file_system_type(str(daemon.memory)) == FUSE_SUPER_MAGIC
    return daemon


@contextmanager
def serving(root: Path, *options: str, **popen: Any) -> Iterator[Daemon]:
    """A mount for the time of the block; afterwards it must end with its exit code and leave nothing."""
    root.mkdir(exist_ok=True)
    daemon = start(root, *options, **popen)
    try:
        assert daemon.process.poll() is None, daemon.said
        yield daemon
        if daemon.process.poll() is None:
            assert daemon.stop() == daemon.expect_code, daemon.said
    finally:
        daemon.process.kill()
        daemon.process.wait()
        subprocess.run(["umount", "-l", str(root)], stderr=subprocess.DEVNULL, check=False)
    assert not os.path.ismount(root)
    assert os.listdir(root) == []


class Writer:
    """A process that writes one text to one file, once it waits in the write or has ended."""

    def __init__(self, path: Path, text: str, command: Sequence[str] = ()) -> None:
        script = command or [*PYTHON, "-S", "-c", _WRITER, str(path), text]
        self.process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        with self.process.stdout as told:
            told.read(1)
        wait_until(lambda: any(map(waits_for_fuse, leaves(self.process.pid))) or self.process.poll() is not None)

    def signal(self, number: int) -> int:
        """Send it a signal and wait for its end, with a limit; its errno, or minus the signal that ended it."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait for its end, with a limit; its errno, or minus the signal that ended it."""
        return self.process.wait(PATIENCE_S)


if __name__ == "__main__":
    # The command line of memhpfs, with a SlowTree.
    from memhpfs.cli.main import main
    from memhpfs.host import daemon as served

    served.Tree = SlowTree  # type: ignore[misc]
    main()
