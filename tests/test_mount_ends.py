"""How a mount ends: whatever ends it, nothing is left, or nothing that the next one cannot repair."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from host_kit import PATIENCE_S, wait_until
from mount_kit import Mounted, mounted
from run_kit import ME, PEOPLE, Person

from memhpfs.client import Client
from memhpfs.errors import UserError

pytestmark = [pytest.mark.mount]
me = pytest.mark.parametrize("person", [ME], indirect=True)
everybody = pytest.mark.parametrize("person", PEOPLE, indirect=True)
#: A machine whose block 32 is online in ZONE_MOVABLE.
PLUGGED = ("-M", "tiny", "--set", "cmdline=memhp_default_state=online_movable", "--set",
           'dimm=[{id="d0", size="128M"}]')


@contextmanager
def busy(machine: Mounted) -> Iterator[subprocess.Popen[str]]:
    """The machine is used: a process waits in an offlining that does not end, and one has its directory and a file."""
    machine.do("memhpfs", "fill", "pins", "--kind", "pinned", "--size", "1M", "--movable")
    writer, holder = [
        subprocess.Popen(machine.person.argv("sh", "-c", script), cwd=machine.person.home, stderr=subprocess.PIPE,
                         text=True)
        for script in ("echo offline > m/sys/devices/system/memory/memory32/state",
                       f"cd {machine.memory} && exec sleep 60 < memory0/state")
    ]
    try:
        wait_until(lambda: machine.do("cat", str(machine.state(32))) == "going-offline\n")
        wait_until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n")
        yield writer
    finally:
        for process in (writer, holder):
            process.kill()
            process.communicate()


def _running(person: Person) -> list[str]:
    """The mounts that `memhpfs ps` knows."""
    return [line.split()[4] for line in person.do("memhpfs", "ps").stdout.splitlines()[1:]]


@pytest.mark.parametrize(("person", "number"), [
    *((who, signal.SIGTERM) for who in PEOPLE), (ME, signal.SIGINT), (ME, signal.SIGHUP),
], indirect=["person"])
def test_signal_with_a_blocked_offline(person, number):
    """The daemon ends with exit code 0 at once; who waits in a write gets an error; word and socket are gone."""
    with mounted(person, *PLUGGED) as machine, busy(machine) as writer:
        assert _running(person) == [str(machine.root)]

        assert machine.end(number) == 0
        assert writer.wait(PATIENCE_S) != 0
        machine.wait_until_nothing_is_left()
        assert _running(person) == []


@me
def test_signal_while_the_guest_is_busy(person):
    """Whoever waits for an unplug is told that the machine has ended."""
    with mounted(person, *PLUGGED, "--qmp", "q") as machine, busy(machine):
        with Client.connect(str(person.home / "q")) as client:
            client.execute("device_del", id="d0")

            assert machine.end(signal.SIGTERM) == 0
            with pytest.raises(UserError, match="the machine ended"):
                client.wait_for(lambda event: event["event"] == "DEVICE_DELETED", PATIENCE_S)
        machine.wait_until_nothing_is_left()


@pytest.mark.parametrize(("person", "command"), [
    ("root", "umount"), ("root", "umount -l"), ("root", "fusermount3 -u"), ("user", "fusermount3 -u"),
    ("user", "fusermount3 -u -z"),
], indirect=["person"])
def test_unmount_from_outside(person, command):
    """The daemon ends with exit code 0 and takes word and socket with it."""
    with mounted(person, "-M", "tiny") as machine:
        machine.do(*command.split(), str(machine.root))

        assert machine.end() == 0
        machine.wait_until_nothing_is_left()


@me
def test_unmount_of_a_busy_machine(person):
    """It is refused, and the machine goes on; lazily it goes out of sight, and ends when nobody uses it any more."""
    with mounted(person, *PLUGGED) as machine:
        with busy(machine):
            refused = person.do("fusermount3", "-u", str(machine.root))
            assert (refused.returncode, "busy" in refused.stderr) == (1, True)
            assert machine.do("cat", str(machine.state(0))) == "online\n"
            machine.do("fusermount3", "-u", "-z", str(machine.root))
            assert machine.process.poll() is None
        assert machine.end() == 0
        machine.wait_until_nothing_is_left()


@me
def test_quit(person):
    """`quit` is answered, and the machine ends as after a signal."""
    with mounted(person, *PLUGGED, "--qmp", "q") as machine, busy(machine):
        with Client.connect(str(person.home / "q")) as client:
            assert client.execute("quit") == {}

        assert machine.end() == 0
        machine.wait_until_nothing_is_left()
    assert not (person.home / "q").exists()


@everybody
def test_killed(person):
    """After SIGKILL users get errors, `ps` clears up, and a second mount on the same directory repairs it."""
    with mounted(person, *PLUGGED, "--qmp", "q") as machine, busy(machine) as writer:
        machine.process.kill()
        assert machine.process.wait(PATIENCE_S) == -signal.SIGKILL
        assert writer.wait(PATIENCE_S) != 0
        assert "not connected" in person.do("ls", "m").stderr
        assert _running(person) == []
        assert list(person.registry.iterdir()) == []

        with mounted(person, *PLUGGED, "--qmp", "q") as second:
            assert second.do("cat", str(second.state(32))) == "online\n"
            assert _running(person) == [str(machine.root)]
    machine.wait_until_nothing_is_left()


@me
def test_killed_twice(person):
    """So it does where `ps` did not clear up, and a client still has the old socket."""
    with mounted(person, "-M", "tiny") as machine, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(person.registry / f"{machine.process.pid}.qmp"))
        machine.process.kill()
        machine.process.wait(PATIENCE_S)
        with mounted(person, "-M", "tiny") as second:
            second.process.kill()
            second.process.wait(PATIENCE_S)
            with mounted(person, "-M", "tiny") as third:
                assert third.do("memhpfs", "plug", "d0", "--size", "128M") == "d0: 128M at 0x100000000, node 0\n"
    assert _running(person) == []
    machine.wait_until_nothing_is_left()


@me
def test_signal_at_any_time(person):
    """A signal before the machine is there ends it as well, and nothing half built is left."""
    root = person.home / "m"
    root.mkdir()
    codes = []
    for delay_ms in range(0, 400, 40):
        process = subprocess.Popen(person.argv("memhpfs", "mount", "-M", "tiny", "m"), cwd=person.home,
                                   stderr=subprocess.DEVNULL)
        time.sleep(delay_ms / 1000)
        process.terminate()
        codes.append(process.wait(PATIENCE_S))
        assert list(root.iterdir()) == []
        assert not person.registry.exists() or list(person.registry.iterdir()) == []

    assert set(codes) <= {0, -signal.SIGTERM}
    assert _running(person) == []


@everybody
def test_others_are_not_touched(person):
    """Another machine of the same person goes on, and is then the only one that commands find."""
    with mounted(person, "-M", "tiny", name="other") as other:
        with mounted(person, "-M", "tiny") as machine:
            assert sorted(_running(person)) == [str(machine.root), str(other.root)]
            assert "2 machines are running" in person.do("memhpfs", "plug", "d0", "--size", "128M").stderr

        assert other.do("memhpfs", "plug", "d0", "--size", "128M") == "d0: 128M at 0x100000000, node 0\n"
        assert other.do("cat", str(other.state(32))) == "offline\n"
