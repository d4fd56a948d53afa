"""Options of `memhpfs mount`: who is let in, the loop, the log, and word that it is ready."""

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import users
from host_kit import PATIENCE_S, wait_until
from mount_kit import mounted
from run_kit import ME, PEOPLE

pytestmark = [pytest.mark.mount]
me = pytest.mark.parametrize("person", [ME], indirect=True)
root_only = pytest.mark.parametrize("person", PEOPLE[:1], indirect=True)


@pytest.fixture
def stranger() -> list[str]:
    """What stands before a command of an ordinary user."""
    users.need_user()
    return users.as_user(["env", "LC_ALL=C"])


@root_only
def test_others_are_let_in_as_modes_say(person, stranger):
    """On root's machine others may read what sysfs lets them read, until chmod lets them write."""
    person.home.chmod(0o755)
    with mounted(person, "-M", "tiny") as machine:
        def do(script: str) -> str:
            done = subprocess.run([*stranger, "sh", "-c", script], cwd=machine.memory, capture_output=True, text=True,
                                  check=False)
            return done.stdout + done.stderr.rpartition(": ")[2]

        assert do("cat memory1/state") == "online\n"
        assert do("cat hard_offline_page") == "Permission denied\n"
        assert do("ls ../../../kernel/debug") == "Permission denied\n"
        assert do("echo offline > memory1/state") == "Permission denied\n"
        assert do("chmod 666 memory1/state") == "Operation not permitted\n"
        machine.state(1).chmod(0o666)
        assert do("echo offline > memory1/state && cat memory1/state") == "offline\n"
        assert do("lsmem -r -n --sysroot ../../../.. -o STATE | sort -u") == "offline\nonline\n"


@root_only
def test_others_are_kept_out(person, stranger):
    """With --no-allow-other only who mounted gets in."""
    person.home.chmod(0o755)
    with mounted(person, "-M", "tiny", "--no-allow-other") as machine:
        done = subprocess.run([*stranger, "ls", str(machine.root)], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout) == (2, "")
        assert machine.state(0).read_text() == "online\n"


@pytest.mark.parametrize("person", ["user"], indirect=True)
def test_files_belong_to_who_mounts(person):
    """An ordinary user's machine is theirs: they may do what root may on Linux."""
    with mounted(person, "-M", "tiny") as machine:
        assert machine.do("stat", "-c", "%u %a", str(machine.state(0))) == f"{users.ordinary_user().uid} 644\n"
        assert machine.do("sh", "-c", f"echo offline > {machine.state(1)}; cat {machine.state(1)}") == "offline\n"
        assert "Permission denied" in person.do("cat", str(machine.memory / "hard_offline_page")).stderr


@me
@pytest.mark.parametrize("loop", ["poll", "stock"])
def test_loops(person, loop):
    """Either loop serves readers beside a writer that waits, and ends cleanly."""
    options = ("--set", "cmdline=memhp_default_state=online_movable", "--set", 'dimm=[{id="d0", size="128M"}]')
    with mounted(person, "-M", "tiny", *options, "--loop", loop) as machine:
        machine.do("memhpfs", "fill", "pins", "--kind", "pinned", "--size", "1M", "--movable")
        writer = subprocess.Popen(["sh", "-c", f"echo offline > {machine.state(32)}"], stderr=subprocess.DEVNULL)
        wait_until(lambda: machine.state(32).read_text() == "going-offline\n")
        machine.do("memhpfs", "free", "pins")

        assert writer.wait(PATIENCE_S) == 0
        assert machine.state(32).read_text() == "offline\n"
        assert machine.end(signal.SIGTERM) == 0


@me
def test_fill(person):
    """What the command asks for is there, by size or share."""
    with mounted(person, "-M", "tiny") as machine:
        for options in ("--kind hugetlb-2M --reserved --size 4M", "--kind slab --share 10%"):
            machine.do("memhpfs", "fill", options.split()[1], *options.split())

        assert "HugePages_Rsvd:        2\n" in (machine.root / "proc/meminfo").read_text()
        machine.do("memhpfs", "free", "hugetlb-2M")
        assert "HugePages_Rsvd:        0\n" in (machine.root / "proc/meminfo").read_text()


@me
@pytest.mark.parametrize("abstract", [False, True])
def test_word_to_the_service_manager(person, abstract):
    """READY=1 comes once the tree is usable, and the tree was not there before."""
    address = ("\0" if abstract else "") + str(person.home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(PATIENCE_S)
        with mounted(person, "-M", "tiny", variables=[f"NOTIFY_SOCKET={address.replace(chr(0), '@')}"]) as machine:
            assert manager.recv(100) == b"READY=1"
            assert (machine.memory / "block_size_bytes").read_text() == "8000000\n"
    assert machine.said == f"memhpfs: machine tiny is at {machine.root}\n"


@me
def test_usable_as_soon_as_it_is_there(person):
    """Whoever waits for block_size_bytes finds a machine that works."""
    root = person.home / "m"
    root.mkdir()
    memory = root / "sys/devices/system/memory"
    process = subprocess.Popen(person.argv("memhpfs", "mount", str(root)), stderr=subprocess.DEVNULL)
    wait_until((memory / "block_size_bytes").exists)

    assert (memory / "memory32" / "state").read_text() == "online\n"
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


@me
@pytest.mark.parametrize(("option", "tells"), [
    ((), []), (("-v",), ["kernel: ", "SIGTERM: unmounting"]), (("-vv",), ["SIGTERM: unmounting", "opcode: WRITE"]),
])
def test_log(person, option, tells):
    """-v tells what happens, -vv also every request; without it nothing is told that is no trouble."""
    with mounted(person, "-M", "tiny", *option) as machine:
        machine.state(1).write_text("offline")

    lines = machine.said.splitlines()
    assert [word for word in tells if word not in machine.said] == []
    assert len(lines) == 1 if not option else len(lines) > 2


@me
def test_memory_of_a_large_machine(person):
    """A machine of 8192 blocks needs less than 45 MB after somebody has looked at its directories."""
    with mounted(person, "-M", "big", "--set", "block-size=128M") as machine:
        assert machine.do("find", str(machine.root), "-maxdepth", "6").count("/memory/memory") > 8192
        status = Path(f"/proc/{machine.process.pid}/status").read_text()

    assert int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) < 45 << 10
