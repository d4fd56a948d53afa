"""The command line: help that teaches, one line for each mistake, exit codes, pipes that break."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
from host_kit import PATIENCE_S, serving, wait_until

from memhpfs.cli.help import TOPICS
from memhpfs.cli.main import COMMANDS
from memhpfs.client import Client, CommandError
from memhpfs.machine.load import load, preset_names

ME = [sys.executable, "-m", "memhpfs"]
GROUPS = [("machine", "list"), ("machine", "show"), ("machine", "check"), ("fault", "add"), ("fault", "del"),
          ("fault", "list")]


def memhpfs(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MEMHPFS_QMP"}
    return subprocess.run([*ME, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize("command", [(name,) for name in COMMANDS] + GROUPS, ids=" ".join)
def test_help_teaches(command):
    """--help and -h say what a command does, with an example that names it."""
    done = memhpfs(*command, "--help")

    assert done.returncode == 0
    assert "Example:" in done.stdout
    assert f"memhpfs {' '.join(command)}" in done.stdout.split("Example:")[1]


def test_help_lists_all_commands():
    """The help of the program has a line for each command."""
    done = memhpfs("--help")

    assert done.returncode == 0
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []
    assert [line for _, line in COMMANDS.values() if line not in " ".join(done.stdout.split())] == []


@pytest.mark.parametrize(("arguments", "told"), [
    (["dance"], "memhpfs: No such command 'dance'. (see memhpfs --help)"),
    (["evnts"], "memhpfs: No such command 'evnts'. Did you mean 'events'? (see memhpfs --help)"),
    (["machine", "chek"], "memhpfs machine: No such command 'chek'. Did you mean 'check'? (see memhpfs machine"),
    (["fault", "ad"], "memhpfs fault: No such command 'ad'. Did you mean 'add'? (see memhpfs fault --help)"),
    (["mount", "--allow-othr"], "memhpfs mount: No such option '--allow-othr'. (Did you mean one of: '--allow-other'"),
    (["mount", "--loop", "pol", "/tmp"], "'pol' is not one of 'poll', 'stock'; did you mean 'poll'?"),
    (["run", "-M", "tny"], "memhpfs: machine 'tny' is neither a file nor a preset; presets are default, "),
    (["run", "-M", "tny"], "; did you mean 'tiny'?"),
    (["run", "--set", "slot=4"], "memhpfs: preset default with --set slot=4: slot: unknown key; did you mean 'slots'?"),
    (["fault", "add", "f", "--op", "onlin", "--errno", "EIO"], "'remove'; did you mean 'online'? (see memhpfs fault"),
    (["fill", "w", "--kind", "Slap", "--size", "1M"], "; did you mean 'slab'? (see memhpfs fill --help)"),
    (["plug", "d0", "--size", "0.1K"], "'0.1K' does not come to whole bytes"),
    (["machine"], "memhpfs machine: Missing command. (see memhpfs machine --help)"),
    (["fault"], "memhpfs fault: Missing command"),
    (["fault", "add", "f"], "memhpfs fault add: Missing option '--op'. Choose from: online, offline, add, remove (see"),
    (["mount"], "memhpfs mount: Missing argument 'DIR'"),
    (["mount", "--loop", "square", "/tmp"], "memhpfs mount: Invalid value for '--loop'"),
    (["run", "--bogus"], "memhpfs run: No such option"),
    (["plug", "d0"], "memhpfs plug: Missing option '--size'"),
    (["plug", "d0", "--size", "big"], "memhpfs plug: Invalid value for '--size': 'big' is not a size"),
    (["plug", "d0", "--size", "-1"], "memhpfs plug: Invalid value for '--size': '-1' is not a size"),
    (["plug", "d0", "--size", "9" * 99], "99999 is too large; sizes are below 2^64"),
    (["plug", "d0", "--size", "1G", "--node", "-1"], "memhpfs plug: Invalid value for '--node': -1"),
    (["unplug", "a", "b"], "memhpfs unplug: Got unexpected extra argument (b)"),
    (["fill", "w", "--kind", "water", "--size", "1M"], "memhpfs fill: Invalid value for '--kind'"),
    (["fill", "w", "--kind", "anon"], "memhpfs: fill: give either --size or --share"),
    (["fill", "w", "--kind", "anon", "--share", "200%"], "'200%' is not a share; allowed are 1% to 100%"),
    (["fault", "add", "f", "--op", "dance", "--errno", "EIO"], "Invalid value for '--op'"),
    (["help", "hardwear"], "; did you mean 'hardware'?"),
    (["help", "plgu"], "memhpfs: no help on 'plgu'; topics are start, "),
    (["help", "plgu"], "; did you mean 'plug'?"),
    (["help", "nope"], "memhpfs: no help on 'nope'; topics are start, "),
    (["machine", "show", "nope"], "memhpfs: machine 'nope' is neither a file nor a preset"),
    (["machine", "show", "a\nb"], "memhpfs: machine 'a\\nb' is neither a file nor a preset"),
    (["machine", "check", "/"], "memhpfs: /: Is a directory"),
    (["replay", "/nonexistent"], "/nonexistent"),
])
def test_bad_usage_is_one_line(arguments, told):
    """Exit code 2; the line says where help is, or what is allowed."""
    done = memhpfs(*arguments)

    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("command", [["plug", "d0", "--size", "1G"], ["unplug", "d0"], ["events"], ["free", "w"],
                                     ["fault", "list"]])
def test_no_machine(command, tmp_path):
    """Exit code 1 and one line, whether none runs or a path leads to none."""
    done = memhpfs(*command, "--qmp", str(tmp_path / "none"))

    assert done.returncode == 1
    assert done.stderr.startswith("memhpfs: no machine answers at")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("topic", TOPICS)
def test_help_pages(topic):
    """Each is shown as it is written where there is no terminal."""
    done = memhpfs("help", topic)

    assert done.returncode == 0
    assert done.stdout.startswith("# ")


def test_help_lists_all_topics():
    """Without a topic all of them are listed, with their titles."""
    lines = memhpfs("help").stdout.splitlines()

    assert [line.split()[0] for line in lines[:len(TOPICS)]] == list(TOPICS)
    assert all(len(line.split()) > 1 for line in lines[:len(TOPICS)])


def test_help_on_a_command():
    """Where there is no page of that name it is what --help says."""
    done = memhpfs("help", "plug")

    assert done.returncode == 0
    assert done.stdout == memhpfs("plug", "--help").stdout


def test_no_command():
    """The help, as a mistake."""
    done = memhpfs()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == memhpfs("--help").stdout


def test_machine_list():
    """The plain one first; each with its line of explanation."""
    lines = memhpfs("machine", "list").stdout.splitlines()

    assert [line.split()[0] for line in lines] == preset_names()
    assert lines[0].startswith("default ")
    assert {"default", "numa2", "tiny", "movable", "auto-movable", "big"} <= set(preset_names())
    assert [line.split("  ", 1)[1].strip() for line in lines] == [load(name).explain for name in preset_names()]


def test_file_name_that_is_no_text(tmp_path):
    """Names are bytes, which are shown as Python writes them."""
    file = os.fsencode(tmp_path) + b"/\xff.toml"
    with open(file, "w") as text:
        text.write("ram = '1G'")

    done = memhpfs("machine", "check", os.fsdecode(file))

    assert done.returncode == 0, done.stderr
    assert "/\\udcff.toml: good; " in done.stdout


def test_version():
    """--version tells the program and its version."""
    assert memhpfs("--version").stdout.startswith("memhpfs, version ")


@pytest.mark.parametrize("arguments", ["machine list", "help start", "--help", "machine show big"])
def test_reader_that_goes_away(arguments):
    """A closed pipe is no reason for a traceback."""
    done = subprocess.run(["sh", "-c", f"'{sys.executable}' -m memhpfs {arguments} | true"], capture_output=True,
                          text=True, check=False)

    assert "Traceback" not in done.stderr


FULL = "memhpfs: No space left on device\n"


@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(("redirect", "arguments", "code", "told"), [
    *((">/dev/full", words, 1, FULL) for words in ("machine list", "machine show big", "machine check default", "help",
                                                   "help start", "help plug", "--help", "--version", "plug --help")),
    *((">/dev/full 2>/dev/full", words, 1, "") for words in ("machine list", "help start", "--help")),
    *((">/dev/full 2>&-", words, 1, "") for words in ("machine list", "help start", "--help")),
    *((redirect, words, 2, "") for words in ("machine check /", "dance", "", "run --bogus", "plug d0 --size big")
      for redirect in ("2>/dev/full", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true")),
    *((redirect, "free w --qmp /none", 1, "") for redirect in ("2>/dev/full", "2>&-", "2>&1 | true")),
    *((">&-", words, 0, "") for words in ("machine list", "help", "help start", "--help")),
    ("2>/dev/full", "machine check default", 0, ""),
    ("<&-", "machine check default", 0, ""),
    ("<&- >&- 2>&-", "machine check default", 0, ""),
])
def test_broken_streams(redirect, arguments, code, told, buffering):
    """Nowhere to write to, nothing to read from: no traceback, one line if anybody can read it, and the exit code."""
    script = f"set -o pipefail; '{sys.executable}' -m memhpfs {arguments} {redirect}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | buffering
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          check=False, env=environment)

    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.parametrize("redirect", ["2>/dev/full", "<&- >&- 2>&-"])
def test_machine_whose_log_nobody_can_read(tmp_path, redirect):
    """It serves all the same, and a closed stream's number is not that of /dev/fuse."""
    needs.fuse()
    (tmp_path / "m").mkdir()
    words = f"mount -v -M tiny --qmp {tmp_path}/qmp {tmp_path}/m {redirect}"
    with subprocess.Popen(["sh", "-c", f"exec '{sys.executable}' -m memhpfs {words}"]) as daemon:
        try:
            wait_until((tmp_path / "m/sys").exists)
            assert "/dev/fuse" not in [os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in (1, 2)]
            plugged = memhpfs("plug", "d0", "--size", "0.25G", "--qmp", f"{tmp_path}/qmp")
        finally:
            daemon.terminate()
    assert plugged.stdout == "d0: 256M at 0x100000000, node 0\n"
    assert daemon.returncode == 0


# -- the hardware side ------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[str]:
    """The socket of a machine with four slots."""
    needs.fuse()
    with serving(tmp_path / "m", "--machine", "tiny", "--qmp", str(tmp_path / "qmp")):
        yield str(tmp_path / "qmp")


def test_plug_and_unplug(machine):
    """They say what they did when the guest is done with it; what cannot be is told in one line."""
    def does(*arguments: str) -> str:
        done = memhpfs(*arguments, "--qmp", machine)
        assert done.stderr.count("\n") == done.returncode
        return done.stdout + done.stderr

    assert does("plug", "d0", "--size", "256M") == "d0: 256M at 0x100000000, node 0\n"
    assert does("plug", "d0", "--size", "1G") == "memhpfs: d0: a DIMM of this name is there already\n"
    assert does("plug", "d1", "--size", "1G", "--node", "3") == (
        "memhpfs: node 3 is not there; this machine has node 0; one with more: memhpfs run -M numa2, or [[node]] in a "
        "machine file\n")
    assert does("plug", "d1", "--size", "100G").startswith("memhpfs: not enough space, currently 0x10000000 in use")
    assert does("plug", "d1", "--size", "100M").startswith("memhpfs: the DIMM d1 is there, but the guest could not add")
    assert does("unplug", "d1") == "d1: gone\n"
    assert does("plug", "d1", "--size", "1G", "--addr", "0x180000000") == "d1: 1G at 0x180000000, node 0\n"
    assert does("unplug", "d2") == "memhpfs: d2: there is no DIMM of this name\n"
    assert does("unplug", "d0") == "d0: gone\n"
    with Client.connect(machine) as client:
        assert [backend["id"] for backend in client.execute("query-memdev")] == ["mem-d1"]


def test_node_that_is_not_there(tmp_path):
    """The line names those that are there, also one that has no memory yet; QMP says what QEMU says."""
    needs.fuse()
    with serving(tmp_path / "m", "--machine", "numa2", "--qmp", str(tmp_path / "qmp")):
        for command in (["plug", "d0", "--size", "1G"], ["fill", "w", "--kind", "anon", "--size", "1M"]):
            done = memhpfs(*command, "--node", "7", "--qmp", str(tmp_path / "qmp"))
            assert done.returncode == 1
            assert done.stderr.startswith("memhpfs: node 7 is not there; this machine has nodes 0, 1, 2; one with ")
        with Client.connect(str(tmp_path / "qmp")) as client:
            assert client.execute("query-memdev") == []
            client.execute("object-add", qom_type="memory-backend-ram", id="m", size=256 << 20)
            with pytest.raises(CommandError, match="'DIMM property node has value 7' which exceeds the number of numa"):
                client.execute("device_add", driver="pc-dimm", id="d", memdev="m", node=7)


def test_plug_after_an_unplug_that_was_interrupted(machine):
    """What it left of the DIMM is no obstacle."""
    with Client.connect(machine) as client:
        client.execute("object-add", qom_type="memory-backend-ram", id="mem-d0", size=256 << 20)

    assert memhpfs("plug", "d0", "--size", "512M", "--qmp", machine).stdout == "d0: 512M at 0x100000000, node 0\n"


def test_unplug_tells_the_guests_reason(machine):
    """A DIMM that cannot go stays, and the line says why."""
    memhpfs("plug", "d0", "--size", "256M", "--qmp", machine)
    with Client.connect(machine) as client:
        client.execute("x-fault-add", id="f", op="remove", errno="EBUSY")

    done = memhpfs("unplug", "d0", "--qmp", machine)

    assert done.returncode == 1
    assert done.stderr.startswith("memhpfs: d0: the guest refused: ")
    assert done.stderr.count("\n") == 1


def test_what_is_no_machine(tmp_path):
    """A socket where something else listens."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        with subprocess.Popen([*ME, "events", "--qmp", str(tmp_path / "other")], stderr=subprocess.PIPE) as process:
            stream, _ = other.accept()
            stream.sendall(b"220 smtp.example\r\n")
            stream.close()
            told = process.communicate(timeout=PATIENCE_S)[1]

    assert (process.returncode, told) == (1, f"memhpfs: {tmp_path}/other: not a QMP socket\n".encode())
