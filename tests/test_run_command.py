"""What a command finds in a machine of its own, and how people outside deal with the machine."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_kit import PATIENCE_S, wait_until
from run_kit import BLOCK, LISTENER, ME, MEMORY, Person

from memhpfs.host.skeleton import MODEL_PATHS

pytestmark = pytest.mark.parametrize("person", [ME], indirect=True)
FUSE = "65735546"


@pytest.mark.parametrize(("command", "code"), [
    (["true"], 0), (["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -9 $$"], 137), (["sh", "-c", "kill $$"], 143),
    (["no-such-program"], 127), (["/etc/passwd"], 126), (["/"], 126),
])
def test_exit_code(person, command, code):
    """The exit code is the command's, 128+N for a signal, 127 where there is none, 126 where it cannot be started."""
    done = person.do("memhpfs", "run", "-M", "tiny", "--", *command)

    assert done.returncode == code
    assert len(done.stderr.splitlines()) == (code in (126, 127))
    assert list(person.registry.iterdir()) == []


@pytest.mark.parametrize(("options", "code", "complaint"), [
    (["--qmp", "/no-such-directory/s"], 2, "memhpfs: /no-such-directory/s: no such directory\n"),
    (["--qmp", "/etc/passwd"], 125, "memhpfs: /etc/passwd exists and is no socket\n"),
])
def test_bad_option(person, options, code, complaint):
    """What cannot work is refused in one line, and nothing is left."""
    done = person.do("memhpfs", "run", *options, "--", "echo", "started")

    assert (done.returncode, done.stdout, done.stderr) == (code, "", complaint)
    assert not person.registry.exists() or list(person.registry.iterdir()) == []


def test_tree_is_in_place(person):
    """At the real paths is the machine's tree."""
    places = [f"/sys/{path}" for path in MODEL_PATHS if "debug" not in path]
    done = person.do("memhpfs", "run", "-M", "tiny", "--", "stat", "-f", "-c", "%t", *places)

    assert done.stdout.split() == [FUSE] * len(places)


def test_what_is_real_is_read_only(person):
    """Nothing in /sys but the machine's can be written to, by root neither; nor can anything be made in /dev."""
    done = person.run("find /sys -maxdepth 4 ! -type l -writable -fstype fuse.memhpfs | grep -c /memory/memory0$;"
                      "find /sys -maxdepth 4 ! -type l -writable ! -fstype fuse.memhpfs; touch /dev/x")

    assert done.stdout == "1\n"
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("hidden", ["/sys/devices/system", "/sys"])
def test_host_without_memory_blocks(person, hidden):
    """The tree is there also where the real /sys has no place for it."""
    inner = f'mount -t tmpfs none {hidden} && exec memhpfs run -M tiny -- sh -c "ls /sys/bus/memory/devices; lsmem"'
    done = person.do("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner)

    assert done.stdout.split()[:3] == ["memory0", "memory1", "memory2"], done.stderr
    assert "Total online memory: 1G" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("option", "covered"), [("--proc", True), ("--no-proc", False)])
def test_proc_files(person, option, covered):
    """The machine's files cover those of /proc, unless they are not wanted."""
    names = [f"/proc/{name}" for name in ("meminfo", "zoneinfo", "iomem", "vmstat", "buddyinfo", "cmdline")]
    done = person.do("memhpfs", "run", "-M", "tiny", option, "--", "stat", "-f", "-c", "%t", *names)

    assert done.stdout.split() == [FUSE if covered else "9fa0"] * len(names)


def test_environment(person):
    """The command finds what systemd's tools need and memhpfs itself, and stays where it was started."""
    done = person.run("pwd; echo $SYSTEMD_DEVICE_VERIFY_SYSFS; memhpfs --version")

    assert done.stdout.splitlines()[:2] == [str(person.home), "0"]
    assert done.stdout.splitlines()[2].startswith("memhpfs, version ")


def test_shell_is_the_default_command(person):
    """Without a command it is the shell of $SHELL."""
    done = person.do("env", "SHELL=/bin/pwd", "memhpfs", "run", "-M", "tiny")

    assert done.stdout == f"{person.home}\n"


@pytest.mark.parametrize("options", [[], ["--qmp", "own.sock"]], ids=["default", "--qmp"])
def test_hardware_from_inside(person, options):
    """The machine's hardware is worked from inside; its socket is private, and gone at the end."""
    script = f"memhpfs plug d0 --size 128M; cat {BLOCK}/state; memhpfs unplug d0; ls {BLOCK}"
    done = person.run(f"stat -c %a $MEMHPFS_QMP; {script}", *options)

    assert done.stdout.splitlines() == ["600", "d0: 128M at 0x100000000, node 0", "offline", "d0: gone"]
    assert not (person.home / "own.sock").exists()
    assert list(person.registry.iterdir()) == []


def test_hardware_from_outside(person):
    """People outside plug and unplug, with no option where only one machine runs."""
    with person.machine(f"echo ready; while read go; do ls {MEMORY} | grep -c memory32; done") as machine:
        plugged = person.do("memhpfs", "plug", "d0", "--size", "128M")
        machine.tell("go")
        there = machine.line()
        unplugged = person.do("memhpfs", "unplug", "--qmp", machine.entry()["qmp"], "d0")
        machine.tell("go")

        assert (plugged.stdout, there) == ("d0: 128M at 0x100000000, node 0\n", "1")
        assert (unplugged.stdout, machine.line()) == ("d0: gone\n", "0")


def _received(hears: socket.socket) -> Iterator[bytes]:
    """What has come so far."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield hears.recv(4096)


def test_side_by_side(person):
    """Machines do not see each other's memory and uevents, and the host sees none."""
    listener = person.home / "listener.py"
    listener.write_text(LISTENER)
    hears = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 15)
    with hears, person.machine(f"exec python3 {listener}") as one, person.machine(f"exec python3 {listener}") as two:
        hears.bind((0, 1))
        sizes = {"256M": one, "128M": two}
        for size, machine in sizes.items():
            person.do("memhpfs", "plug", "d0", "--size", size, "--qmp", machine.entry()["qmp"])
        for machine in sizes.values():
            machine.tell("end")
        heard = [machine.caller.communicate()[0].splitlines() for machine in sizes.values()]

        added = [f"add@/devices/system/memory/memory{number}" for number in (32, 33)]
        assert heard == [[*added, "end"], [added[0], "end"]]
        assert not any(b"/memory/memory" in event for event in _received(hears))


def test_ps(person):
    """`ps` lists machines by the pid of their first process, from outside and from inside without harm."""
    with person.machine("echo ready; read go; memhpfs ps --json; echo end; read go") as one:
        entry = one.entry()
        assert entry["pid"] == one.parts["init"]
        assert (entry["kind"], entry["machine"]) == ("run", "tiny")
        assert entry["where"].startswith("sh -c 'echo ready;")

        one.tell("go")
        assert one.line() == "end"
        with person.machine("echo ready; read go"):
            assert len(person.do("memhpfs", "ps").stdout.splitlines()) == 3
    assert person.do("memhpfs", "ps", "--json").stdout == ""


@pytest.fixture
def machine(person):
    with person.machine("echo ready; read go") as machine:
        yield machine


@pytest.mark.parametrize(("script", "code"), [
    ("exit 3", 3), ("kill -9 $$", 137), (f"test $(stat -f -c %t {MEMORY}) = {FUSE}", 0), ("test $PPID = 0", 0),
    (f"memhpfs plug d0 --size 128M && test -d {BLOCK}", 0), ("test $SYSTEMD_DEVICE_VERIFY_SYSFS = 0", 0),
])
def test_exec(person, machine, script, code):
    """`exec` runs a command among the processes of a machine, with its exit code."""
    done = person.do("memhpfs", "exec", str(machine.parts["init"]), "--", "sh", "-c", script)

    assert done.returncode == code, done.stderr


def test_exec_by_name(person, machine):
    """A machine is found by its name, which no other has."""
    with person.machine("echo ready; read go") as other:
        names = {name: person.do("memhpfs", "exec", name, "--", "sh", "-c", "echo $MEMHPFS_MACHINE; pwd").stdout
                 for name in ("tiny", "tiny-2", str(other.parts["init"]))}
        unknown = person.do("memhpfs", "exec", "big", "--", "true")

    assert names == {"tiny": f"tiny\n{person.home}\n", "tiny-2": f"tiny-2\n{person.home}\n",
                     str(other.parts["init"]): f"tiny-2\n{person.home}\n"}
    running = f"tiny ({machine.parts['init']}), tiny-2 ({other.parts['init']})"
    assert unknown.returncode == 125
    assert unknown.stderr == f"memhpfs: no running machine is called 'big'; running are: {running}\n"


def _asleep(person: Person) -> list[int]:
    """Their processes that are a `sleep`."""
    return [pid for pid in person.processes() if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]


@pytest.mark.parametrize(("number", "whom", "said"), [
    (signal.SIGINT, os.killpg, "130"), (signal.SIGTERM, os.kill, "143"), (signal.SIGKILL, os.kill, "137"),
])
def test_signal_to_exec(person, machine, number, whom, said):
    """A signal to `exec`, and Ctrl-C, ends its command; the machine goes on."""
    with person.background("memhpfs", "exec", "tiny", "--", "sh", "-c", "echo up; exec sleep 60") as command:
        assert command.stdout is not None
        command.stdout.readline()
        wait_until(lambda: _asleep(person))
        (sleeping,) = _asleep(person)
        whom(command.pid, number)
        code = command.wait(PATIENCE_S)
        wait_until(lambda: sleeping not in person.processes())

    assert str(code if code > 0 else 128 - code) == said
    assert person.do("memhpfs", "exec", "tiny", "--", "true").returncode == 0


def test_exec_ends_with_the_machine(person, machine):
    """When the machine ends, what `exec` runs in it ends too."""
    with person.background("memhpfs", "exec", "tiny", "--", "sh", "-c", "echo up; exec sleep 60") as command:
        assert command.stdout is not None
        command.stdout.readline()
        machine.tell("end")

        assert (machine.end(), command.wait(PATIENCE_S)) == (0, 137)
    person.wait_until_gone()
