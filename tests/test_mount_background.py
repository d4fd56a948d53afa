"""`memhpfs mount` of a directory that is not there, and in the background."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from host_kit import MEMORY, PATIENCE_S, wait_until
from mount_kit import FUSE_TYPE, mounted
from run_kit import ME, PEOPLE, Person

from memhpfs.client import Client

pytestmark = [pytest.mark.mount]
me = pytest.mark.parametrize("person", [ME], indirect=True)
everybody = pytest.mark.parametrize("person", PEOPLE, indirect=True)
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
BACKGROUND = ("memhpfs", "mount", "--background", "-M", "tiny")


def running(person: Person) -> dict[str, int]:
    """Where the person's machines are, and the pids of their daemons."""
    lines = person.do("memhpfs", "ps", "--json").stdout.splitlines()
    return {entry["where"]: entry["pid"] for entry in map(json.loads, lines)}


@contextmanager
def ended(person: Person, root: Path) -> Iterator[int]:
    """The pid of the daemon that serves a directory; it must have ended by the end of the block."""
    pid = running(person)[str(root)]
    try:
        yield pid
        wait_until(lambda: not person.processes())
    finally:
        for left in person.processes():
            os.kill(left, signal.SIGTERM)
    assert list(person.registry.iterdir()) == []


# -- the directory ----------------------------------------------------------------------------------------------------


@everybody
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_new_directory(person, number):
    """One that is not there is made, and removed again."""
    argv = person.argv("memhpfs", "mount", "-M", "tiny", "new")
    with subprocess.Popen(argv, cwd=person.home, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "memhpfs: machine tiny is at new\n"
        assert person.do("stat", "-f", "-c", "%t", f"new/{MEMORY}").stdout == FUSE_TYPE
        process.send_signal(number)

        assert process.wait(PATIENCE_S) == 0
    assert not (person.home / "new").exists()


@me
def test_directory_that_was_there(person):
    """It stays, also a link to it."""
    person.do("sh", "-c", "mkdir d; ln -s d link")
    person.do(*BACKGROUND, "link")
    with ended(person, person.home / "d") as pid:
        os.kill(pid, signal.SIGTERM)
    assert (person.home / "link").is_dir()


@pytest.mark.parametrize("person", PEOPLE[:1], indirect=True)
def test_new_directory_that_is_used(person):
    """What somebody has put into it below the mount, as only root can, is not lost."""
    (person.home / "all").mkdir()
    person.do(*BACKGROUND, "all/m")
    with ended(person, person.home / "all" / "m") as pid:
        below = "mount --bind all /mnt && touch /mnt/m/file && umount /mnt"
        assert person.do("unshare", "-m", "sh", "-c", below).returncode == 0
        os.kill(pid, signal.SIGTERM)
    assert (person.home / "all" / "m" / "file").exists()


@me
def test_end_and_start_at_once(person):
    """One that starts where another is about to end gets the directory, or is told why not."""
    for _ in range(5):
        assert person.do(*BACKGROUND, "m").returncode == 0
        os.kill(running(person)[str(person.home / "m")], signal.SIGTERM)
        said = [person.do(*BACKGROUND, "m").stderr for _ in range(3)]
        there = [line for line in said if line != "memhpfs: m: a memhpfs is mounted there already\n"]
        assert set(there) <= {"memhpfs: machine tiny is at m\n"}, said
        for pid in running(person).values():
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not person.processes())
        if (person.home / "m").exists():
            (person.home / "m").rmdir()


@me
@pytest.mark.parametrize(("options", "number"), [
    ((), signal.SIGTERM), ((), signal.SIGINT), *((("--background",), number) for number in _ENDS),
])
def test_signal_at_any_time(person, options, number):
    """A signal ends what there is of the machine, and no directory is left; or it came after the caller was done."""
    for delay_ms in range(0, 400, 40):
        process = subprocess.Popen(person.argv("memhpfs", "mount", *options, "-M", "tiny", "m"), cwd=person.home,
                                   stderr=subprocess.DEVNULL, process_group=0)
        time.sleep(delay_ms / 1000)
        if process.poll() is None:
            os.killpg(process.pid, number)
        code = process.wait(PATIENCE_S)
        # 1: Python itself was interrupted before it had started.
        assert code in {0, 130, -number, *({1} if number == signal.SIGINT else {})}
        if options and code in (0, -signal.SIGKILL):
            for pid in running(person).values():
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not person.processes())
        assert not (person.home / "m").exists()
        assert not person.registry.exists() or list(person.registry.iterdir()) == []


# -- the background ---------------------------------------------------------------------------------------------------


@everybody
def test_returns_when_usable(person):
    """It says so on stderr with exit code 0, and lets go of everything of its caller's."""
    done = person.do("sh", "-c", f"exec 5>log; {' '.join(BACKGROUND)} m 2>&1 | cat; test -d m/{MEMORY} && echo there")

    assert (done.stdout, done.stderr) == ("memhpfs: machine tiny is at m\nthere\n", "")
    with ended(person, person.home / "m") as pid:
        proc = Path(f"/proc/{pid}")
        assert os.getsid(pid) == pid
        assert os.readlink(proc / "cwd") == "/"
        assert [os.readlink(proc / "fd" / str(number)) for number in range(3)] == ["/dev/null"] * 3
        assert str(person.home / "log") not in {os.readlink(fd) for fd in (proc / "fd").iterdir()}
        os.kill(pid, signal.SIGTERM)
    assert not (person.home / "m").exists()


@me
def test_command_substitution(person):
    """$(...) returns, and nothing is on stdout."""
    done = person.do("sh", "-c", f'said=$({" ".join(BACKGROUND)} m); echo "[$said]"')

    assert done.stdout == "[]\n"
    with ended(person, person.home / "m") as pid:
        os.kill(pid, signal.SIGTERM)


@everybody
@pytest.mark.parametrize("how", ["quit", "unmount", "plug"])
def test_it_is_a_machine_as_in_the_foreground(person, how):
    """Commands find it by `ps`; it ends with `quit` and with an unmount from outside."""
    assert person.do(*BACKGROUND, "--qmp", "q", "m").returncode == 0
    with ended(person, person.home / "m") as pid:
        assert person.do("memhpfs", "plug", "d0", "--size", "128M").stdout == "d0: 128M at 0x100000000, node 0\n"
        if how == "quit":
            with Client.connect(str(person.home / "q")) as client:
                client.execute("quit")
        elif how == "unmount":
            assert person.do("fusermount3", "-u", "m").returncode == 0
        else:
            assert person.do("memhpfs", "unplug", "d0").stdout == "d0: gone\n"
            os.kill(pid, signal.SIGTERM)
    assert not (person.home / "m").exists()
    assert not (person.home / "q").exists()


@me
@pytest.mark.parametrize(("argv", "code"), [
    (("-M", "nonsense", "m"), 2), (("--qmp", "gone/q", "m"), 1), (("gone/m",), 2), (("--uevents", "m"), 1),
    (("--qmp", "m/q", "m"), 2), (("--qmp", "m", "m"), 2),
])
def test_same_mistakes_as_in_the_foreground(person, argv, code):
    """Line and exit code are the same, and nothing is left."""
    there = person.do("find", ".").stdout
    fore, back = person.do("memhpfs", "mount", *argv), person.do("memhpfs", "mount", "--background", *argv)

    assert (back.returncode, back.stdout, back.stderr) == (code, "", fore.stderr)
    assert fore.returncode == code
    assert re.fullmatch("memhpfs: [^\n]+\n", back.stderr)
    wait_until(lambda: not person.processes())
    assert (person.do("find", ".", "-path", "./memhpfs", "-prune", "-o", "-print").stdout.splitlines()
            == [line for line in there.splitlines() if not line.startswith("./memhpfs")])


@me
def test_mounted_already(person):
    """The second is told so and the first goes on."""
    person.do(*BACKGROUND, "m")
    with ended(person, person.home / "m") as pid:
        second = person.do(*BACKGROUND, "m")

        assert (second.returncode, second.stderr) == (1, "memhpfs: m: a memhpfs is mounted there already\n")
        assert person.do("cat", f"m/{MEMORY}/memory0/state").stdout == "online\n"
        os.kill(pid, signal.SIGTERM)


@me
def test_service_manager(person):
    """$NOTIFY_SOCKET is told as in the foreground."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(person.home / "notify"))
        manager.settimeout(PATIENCE_S)
        done = person.do("env", f"NOTIFY_SOCKET={person.home}/notify", *BACKGROUND, "m")

        assert (done.returncode, manager.recv(100)) == (0, b"READY=1")
    with ended(person, person.home / "m") as pid:
        os.kill(pid, signal.SIGTERM)


@me
@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-", ">&- <&-"])
@pytest.mark.parametrize("options", ["--background", ""])
def test_nobody_reads_that_it_is_usable(person, redirect, options):
    """The machine is served all the same."""
    script = f"memhpfs mount {options} -M tiny m {redirect} {'' if options else '&'}"
    person.do("sh", "-c", script, capture_output=False)
    wait_until(lambda: running(person))
    with ended(person, person.home / "m") as pid:
        assert person.do("cat", f"m/{MEMORY}/memory0/state").stdout == "online\n"
        os.kill(pid, signal.SIGTERM)


@me
def test_dead_mount_is_repaired(person):
    """As in the foreground, and its directory, which it did not make, stays."""
    with mounted(person, "-M", "tiny") as machine:
        machine.process.kill()
        machine.process.wait(PATIENCE_S)
        assert person.do(*BACKGROUND, "m").returncode == 0
        with ended(person, person.home / "m") as pid:
            os.kill(pid, signal.SIGTERM)
        assert list(machine.root.iterdir()) == []
