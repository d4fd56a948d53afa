"""What the tests of `memhpfs run` need: people who run it, machines in the background, and what is left of them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import users
from attrs import define, field, frozen
from host_kit import PATIENCE_S, children, content, leaves, wait_until, waits_for_fuse

from memhpfs.client import Client

__all__ = ["BLOCK", "LISTENER", "ME", "MEMORY", "PEOPLE", "PLUGGED", "Machine", "Person", "person"]

MEMORY = "/sys/devices/system/memory"
#: The first block of a DIMM in the machine `tiny`.
BLOCK = f"{MEMORY}/memory32"
#: A machine where BLOCK is online in ZONE_MOVABLE.
PLUGGED = ("--set", "cmdline=memhp_default_state=online_movable", "--set", 'dimm=[{id="d0", size="128M"}]')
#: Reads a line, then says which uevents came before it.
LISTENER = """
import socket, sys
hears = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 15)
hears.bind((0, 1))
print("ready", flush=True)
sys.stdin.readline()
try:
    while True:
        print(hears.recv(4096).split(b"\\0")[0].decode())
except BlockingIOError:
    print("end")
"""
#: Root, where the tests run as root, and an ordinary user.
PEOPLE = ("root", "user")
#: Whoever runs the tests.
ME = PEOPLE[os.geteuid() != 0]


@frozen
class Person:
    """Somebody who runs machines, with a runtime directory of their own.

    Attributes:
        home: a directory of theirs.
        user: the ordinary user, if it is not root.
        checkout: this project, as they can read it.
    """

    home: Path
    user: users.User | None = None
    checkout: Path = Path(__file__).parent.parent

    @property
    def registry(self) -> Path:
        """Where their machines leave word."""
        return self.home / "memhpfs"

    def argv(self, *argv: str) -> list[str]:
        """A command line, with `memhpfs` on the PATH."""
        words = ["env", f"XDG_RUNTIME_DIR={self.home}", *argv]
        if self.user:
            return users.as_user(words)
        path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        return ["env", path, *words]

    def do(self, *argv: str, **popen: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 2 * PATIENCE_S,
                   "cwd": self.home}
        return subprocess.run(self.argv(*argv), check=False, **(options | popen))

    def processes(self) -> list[int]:
        """Their processes that live: known by the runtime directory in their environment."""
        mark = f"XDG_RUNTIME_DIR={self.home}\0".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark in content(path)]

    def wait_until_gone(self) -> None:
        """Wait until no process of theirs runs, and no file of a machine is left."""
        wait_until(lambda: not self.processes())
        assert list(self.registry.glob("*")) == []
        assert "memhpfs-sys" not in Path("/proc/self/mounts").read_text()
        assert " /run/memhpfs/" not in Path("/proc/self/mounts").read_text()

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a machine."""
        return self.do("memhpfs", "run", "-M", "tiny", *options, "--", "sh", "-c", script)

    @contextmanager
    def background(self, *argv: str) -> Iterator["subprocess.Popen[str]"]:
        """Run a command in the background, in a process group of its own; killed at the end."""
        with subprocess.Popen(
            self.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=self.home,
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def machine(self, script: str, *options: str) -> Iterator["Machine"]:
        """A machine in the background, whose script has said its first line; killed at the end."""
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                self.argv("memhpfs", "run", "-M", "tiny", *options, "--", "sh", "-c", script),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.home, process_group=0,
            )
            assert process.stdout is not None
            try:
                machine = Machine(process, self, process.stdout.readline().strip())
                yield machine
            finally:
                process.kill()
                process.communicate()
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace"))

    @contextmanager
    def stuck_machine(self, after: str = "") -> Iterator["Machine"]:
        """A machine whose command waits in an offlining that does not end.

        Args:
            after: what the command does next.
        """
        script = f"echo ready; read go; echo offline > {BLOCK}/state; {after}"
        with self.machine(script, *PLUGGED) as machine:
            machine.pin()
            machine.tell("go")
            machine.blocked()
            yield machine


@define
class Machine:
    """A `memhpfs run` that runs.

    Attributes:
        caller: the process of memhpfs itself.
        said: the first line of its command.
        parts: pids of its processes by name.
    """

    caller: subprocess.Popen[str]
    person: Person
    said: str
    parts: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        (keeper,) = children(self.caller.pid)
        (init,) = children(keeper)
        daemon, *udevd, command = children(init)
        self.parts = {
            "caller": self.caller.pid, "keeper": keeper, "init": init, "daemon": daemon, "command": command,
            **({"udevd": udevd[0]} if udevd else {}),
        }

    def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of its processes."""
        os.kill(self.parts[part], number)

    def line(self) -> str:
        """The next line that the command says."""
        assert self.caller.stdout is not None
        return self.caller.stdout.readline().strip()

    def tell(self, text: str) -> None:
        """Give the command a line to read."""
        assert self.caller.stdin is not None
        self.caller.stdin.write(f"{text}\n")
        self.caller.stdin.flush()

    def end(self) -> int:
        """Wait for the end; the exit code as a shell has it."""
        code = self.caller.wait(PATIENCE_S)
        return code if code >= 0 else 128 - code

    def qmp(self) -> Client:
        """A connection to its hardware."""
        (path,) = self.person.registry.glob("*.d/qmp")
        return Client.connect(str(path))

    def pin(self) -> None:
        """Use pages of BLOCK that cannot move."""
        with self.qmp() as qmp:
            qmp.execute("x-workload-add", id="pins", kind="pinned", size=1 << 20, movable=True)

    def unpin(self) -> None:
        """Give these pages back."""
        with self.qmp() as qmp:
            qmp.execute("x-workload-del", id="pins")

    def blocked(self, count: int = 1) -> list[int]:
        """Wait until processes of the command wait for the file system and go on doing so; their pids, oldest first."""
        seen: list[list[int]] = []

        def settled() -> bool:
            seen.append([pid for pid in leaves(self.parts["command"]) if waits_for_fuse(pid)])
            return len(seen[-1]) == count and seen[-5:] == [seen[-1]] * 5

        wait_until(settled)
        return seen[-1]

    def entry(self) -> dict[str, Any]:
        """Its line in `memhpfs ps --json`."""
        lines = self.person.do("memhpfs", "ps", "--json").stdout.splitlines()
        (entry,) = [entry for entry in map(json.loads, lines) if entry["pid"] == self.parts["init"]]
        return dict(entry)


@contextmanager
def person(who: str) -> Iterator[Person]:
    """One of PEOPLE, with a directory that nobody else has."""
    needs.fuse()
    if who == "user":
        users.need_user()
        user = users.ordinary_user()
        with users.new_directory(user.uid, user.gid, user.home) as home:
            yield Person(home, user, user.checkout)
        return
    needs.root()
    needs.user_namespaces()
    with users.new_directory(os.geteuid(), os.getegid()) as home:
        yield Person(home)
