"""What the tests of `memhpfs mount` need: a machine at a directory of root's or of an ordinary user's."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from host_kit import MEMORY, PATIENCE_S, wait_until
from run_kit import Person

from memhpfs.host.mountpoint import mounts_at

__all__ = ["FUSE_TYPE", "Mounted", "mounted"]

#: What `stat -f -c %t` says of FUSE.
FUSE_TYPE = "65735546\n"


@frozen
class Mounted:
    """A `memhpfs mount` that runs.

    Attributes:
        process: the daemon.
        root: the mount point.
        log: its stderr.
    """

    process: subprocess.Popen[str]
    person: Person
    root: Path
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def memory(self) -> Path:
        return self.root / MEMORY

    def state(self, number: int) -> Path:
        """The file `state` of a block."""
        return self.memory / f"memory{number}" / "state"

    def do(self, *argv: str) -> str:
        """What a command of the person says; it must succeed."""
        done = self.person.do(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, number: int = 0) -> int:
        """Send it a signal, if any, and wait for its end; the exit code."""
        if number:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        wait_until(lambda: not mounts_at(str(self.root)))
        return code

    def wait_until_nothing_is_left(self) -> None:
        """Nothing of it is left: no mount, no word of it, no socket."""
        wait_until(lambda: not mounts_at(str(self.root)))
        assert list(self.root.iterdir()) == []
        assert list(self.person.registry.iterdir()) == []


@contextmanager
def mounted(person: Person, *options: str, name: str = "m", variables: Sequence[str] = ()) -> Iterator[Mounted]:
    """A machine at a directory of the person's home; it must end well if it still runs then.

    Args:
        variables: what stands in its environment besides, as NAME=VALUE.
    """
    root = person.home / name
    assert person.do("mkdir", "-p", str(root)).returncode == 0
    log = root.with_suffix(".log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            person.argv("env", *variables, "memhpfs", "mount", *options, str(root)), stdin=subprocess.DEVNULL,
            stderr=stderr, text=True, cwd=person.home,
        )
    machine = Mounted(process, person, root, log)
    try:
        wait_until(lambda: " is at " in machine.said or process.poll() is not None)
        assert process.poll() is None, machine.said
        assert machine.do("stat", "-f", "-c", "%t", str(machine.memory)) == FUSE_TYPE
        yield machine
        if process.poll() is None:
            assert machine.end(signal.SIGTERM) == 0
        assert "Traceback" not in machine.said
    finally:
        process.kill()
        process.wait()
        if mounts_at(str(root)):
            person.do("fusermount3", "-u", "-z", str(root))
