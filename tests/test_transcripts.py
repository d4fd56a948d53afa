"""What real kernels answered, done again: every step of every transcript, in this process and through a mount.

The transcripts are facts.  A step that is not alike is a mistake of the model.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from click.testing import CliRunner

from memhpfs.cli.replay import command
from memhpfs.errors import SysError, UserError
from memhpfs.replay import compare
from memhpfs.replay.doors import InProcess
from memhpfs.replay.recorded import machine_text, recorded_machine
from memhpfs.replay.replayer import replay
from memhpfs.replay.transcript import Outcome, Step, read

FOLDER = Path(__file__).parent / "transcripts"
PATHS = sorted(FOLDER.glob("*.jsonl"))
MEMORY = "/sys/devices/system/memory"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_step_is_as_linux_answered(path):
    """Answers, uevents and all followed files of a recorded run, after boot and after each step."""
    transcript = read(str(path))

    result = replay(transcript, InProcess(recorded_machine(transcript.header)))

    assert [(found.what, found.lines) for found in result.differences] == []
    assert result.good == result.total == 1 + sum(step.do != "sh" for step in transcript.steps)


def shortened(path, steps, folder):
    """A copy of the beginning of a transcript."""
    copy = folder / path.name
    copy.write_text("".join(path.read_text().splitlines(keepends=True)[:steps + 1]))
    return copy


@pytest.mark.root
@pytest.mark.mount
@pytest.mark.parametrize(("name", "steps"), [("vfs.plain", 1000), ("params.plain", 70), ("fuzz.numa-auto.11", 45),
                                             ("fuzz.small.11", 45), ("fuzz.new-empty-node.34", 20)])
def test_a_mount_answers_the_same(name, steps, tmp_path):
    """The same with real system calls, real uevents and QMP, but for what FUSE cannot answer."""
    needs.root()
    needs.fuse()
    path = shortened(FOLDER / f"{name}.jsonl", steps, tmp_path)

    done = subprocess.run([sys.executable, "-m", "memhpfs", "replay", "--mount", str(path)], capture_output=True,
                          text=True, timeout=100, check=False)

    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    left_out = "13 steps left out" in done.stdout
    assert left_out == (name == "vfs.plain")


# -- the command ------------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False)


def test_replay_tells_the_score():
    """One line for a transcript that is alike, and exit code 0."""
    done = run(FOLDER / "fuzz.plain.11.jsonl")

    assert done.output == "fuzz.plain.11: 46/46\n"
    assert done.return_value == 0


def tampered(folder, number, **changes):
    """fuzz.plain.11 with one line changed."""
    lines = (FOLDER / "fuzz.plain.11.jsonl").read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **changes})
    path = folder / "tampered.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(("changes", "told"), [
    ({"ok": False}, "answer: Linux ok False | memhpfs ok True"),
    ({"uevents": []}, "uevents: Linux none | memhpfs add@/devices/system/memory/memory56"),
    ({"changed": {"memory56/state": "online\n"}}, "memory56/state: Linux 'online\\n' | memhpfs 'offline\\n'"),
])
def test_replay_tells_what_differs(tmp_path, changes, told):
    """Whatever part of a step is not alike is told, and the exit code is 1."""
    done = run(tampered(tmp_path, 1, **changes))

    assert "tampered: 4" in done.output
    assert "  step 1 plug d1\n" in done.output
    assert told in done.output
    assert done.return_value == 1


def test_replay_shows_no_more_than_asked_for(tmp_path):
    """--show limits the steps that are printed; the rest is counted."""
    done = run("--show", "0", tampered(tmp_path, 1, ok=False))

    assert done.output == "tampered: 45/46\n  and 1 more; --show says how many are printed\n"


@pytest.mark.parametrize(("number", "text", "told"), [
    (3, "not json", "3: not JSON: Expecting value at column 1"),
    (3, "[]", "3: a JSON object is expected, not list"),
    (3, "{}", "3: the step has no 'do'"),
    (3, '{"do": "dance"}', "3: unknown step 'dance'; allowed are put, cat,"),
    (3, '{"do": "put", "path": "/sys"}', "3: the step 'put' has no 'data'"),
    (3, '{"do": "put", "path": 1, "data": ""}', "3: 'path' of the step 'put' is expected to be str, not 1"),
    (3, '{"do": "cat", "path": "/sys", "errno": "EWHAT"}', "3: 'EWHAT' is not the name of an errno"),
    (3, '{"do": "sys", "args": ["fork"]}', "3: unknown system call ['fork']; allowed are open, close,"),
    (3, '{"do": "sys", "args": ["open", 1]}', "3: the arguments of 'open' are (int, str, int), not [1]"),
    (1, '{"machine": {}}', "1: the header has no 'uname'"),
])
def test_a_bad_line_is_named(tmp_path, number, text, told):
    """File, line and what is wrong there, with exit code 2."""
    lines = (FOLDER / "fuzz.plain.11.jsonl").read_text().splitlines()
    lines[number - 1] = text
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))

    with pytest.raises(UserError) as caught:
        read(str(path))

    assert str(caught.value).startswith(f"{path}:{told}")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("data", "told"), [(None, "No such file"), (b"", "empty"), (b"\xff\n", "not UTF-8")])
def test_a_bad_file_is_named(tmp_path, data, told):
    """A file that is missing, empty or not text."""
    path = tmp_path / "bad.jsonl"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(UserError, match=told):
        read(str(path))


def test_a_machine_that_cannot_be_built_is_named(tmp_path):
    """A transcript of another architecture is refused with its reason; the others are done all the same."""
    strange = tampered(tmp_path, 0, arch="vax")

    done = run(strange, FOLDER / "fuzz.small.11.jsonl")

    assert f"memhpfs: {strange}: machine plain: arch: 'vax' is not known; allowed are " in done.output
    assert "fuzz.small.11: 46/46\n" in done.output
    assert done.return_value == 2


def test_mounting_needs_root(monkeypatch):
    """--mount says why it cannot, and how it could."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    done = run("--mount", FOLDER / "fuzz.small.11.jsonl")

    assert "needs root" in str(done.exception)


# -- the rules --------------------------------------------------------------------------------------------------------


def test_totals_are_compared_as_they_moved():
    """Another kernel reserves another amount at boot; from then on totals move alike."""
    step = Step(1, "put", {}, Outcome(), changed={"MemTotal_kB": 1200, "zone/0/Normal": [0, 9, 9, 8]})
    want = {"MemTotal_kB": 1000, "zone/0/Normal": [0, 5, 5, 4]}, {"MemTotal_kB": 1200, "zone/0/Normal": [0, 9, 9, 8]}
    same = {"MemTotal_kB": 900, "zone/0/Normal": [0, 5, 5, 3]}, {"MemTotal_kB": 1100, "zone/0/Normal": [0, 9, 9, 7]}
    other = {"MemTotal_kB": 900, "zone/0/Normal": [0, 5, 5, 3]}, {"MemTotal_kB": 1200, "zone/0/Normal": [0, 9, 9, 8]}

    assert compare.after_step(step, want, same) == []
    assert [line.split(":")[0] for line in compare.after_step(step, want, other)] == ["MemTotal_kB", "zone/0/Normal"]


def test_an_old_difference_is_not_told_again():
    """A file that nobody changed counts only where it first went wrong."""
    step = Step(1, "put", {}, Outcome(), changed={})

    assert compare.after_step(step, ({"a": 1}, {"a": 1}), ({"a": 2}, {"a": 2})) == []
    assert compare.after_step(step, ({"a": 1}, {"a": 1}), ({"a": 2}, {"a": 3})) == ["a: Linux 1 | memhpfs 3"]


def test_the_recorded_machine_shares_ram_between_its_nodes():
    """RAM above 4 GiB goes on where the hole below it began."""
    text = machine_text(read(str(FOLDER / "fuzz.numa.11.jsonl")).header)

    assert 'start = "0x100000"\nend = "0xbffe0000"\nnode = 0' in text
    assert 'start = "0x100000000"\nend = "0x1c0000000"\nnode = 1' in text


# -- the model of the VFS, where no transcript looks -------------------------------------------------------------------


@pytest.fixture
def calls():
    """System calls on a small machine."""
    return InProcess(recorded_machine(read(str(FOLDER / "fuzz.small.11.jsonl")).header)).calls


def refusal(call, *arguments):
    """The name of the errno of a refused call."""
    with pytest.raises((OSError, SysError)) as caught:
        call(*arguments)
    return errno.errorcode[caught.value.errno]


BLOCK = f"{MEMORY}/memory3"


@pytest.mark.parametrize(("name", "arguments", "root", "other"), [
    ("open", (f"{MEMORY}/new", os.O_CREAT | os.O_WRONLY), "EACCES", "EACCES"),
    ("open", (f"{BLOCK}/state", os.O_CREAT | os.O_EXCL), "EEXIST", "EEXIST"),
    ("mkdir", (f"{MEMORY}/new",), "EPERM", "EACCES"),
    ("mkdir", (BLOCK,), "EEXIST", "EEXIST"),
    ("mknod", (f"{MEMORY}/new",), "EACCES", "EACCES"),
    ("symlink", ("x", f"{MEMORY}/new"), "EPERM", "EACCES"),
    ("link", (f"{BLOCK}/state", f"{MEMORY}/new"), "EPERM", "EACCES"),
    ("unlink", (f"{BLOCK}/state",), "EPERM", "EACCES"),
    ("unlink", (BLOCK,), "EISDIR", "EACCES"),
    ("rmdir", (BLOCK,), "EPERM", "EACCES"),
    ("rmdir", (f"{BLOCK}/state",), "ENOTDIR", "EACCES"),
    ("rename", (BLOCK, f"{MEMORY}/new"), "EPERM", "EACCES"),
    ("rename", (BLOCK, "/tmp/new"), "EXDEV", "EXDEV"),
    ("open", (f"{BLOCK}/node0", os.O_NOFOLLOW), "ELOOP", "ELOOP"),
    ("open", (f"{BLOCK}/state/x", 0), "ENOTDIR", "ENOTDIR"),
    ("open", (f"{MEMORY}/memory99/state", 0), "ENOENT", "ENOENT"),
    ("truncate", (f"{BLOCK}/state", -1), "EINVAL", "EINVAL"),
    ("truncate", (f"{BLOCK}/state", 1 << 31), "EFBIG", "EACCES"),
    ("readlink", (f"{BLOCK}/state",), "EINVAL", "EINVAL"),
])
def test_what_nobody_may_do(calls, name, arguments, root, other):
    """Errnos of names and sizes, for root and for others.  Linux: fs/namei.c, fs/open.c."""
    assert refusal(getattr(calls, name), *arguments) == root
    with calls.as_user(1000):
        assert refusal(getattr(calls, name), *arguments) == other


def test_links_lead_where_they_point(calls):
    """A path may go through links, and up from where they lead."""
    state = calls.contents(f"{BLOCK}/state")

    assert calls.contents("/sys/bus/memory/devices/memory3/state") == state
    assert calls.contents(f"{BLOCK}/node0/memory3/../memory3/state") == state
    assert calls.readlink("/sys/bus/memory/devices/memory3") == "../../../devices/system/memory/memory3"


def test_modes_decide_for_others(calls):
    """Owner and mode decide for users, and chmod is for the owner; without any read bit not even root may read."""
    calls.chown(f"{BLOCK}/state", 1000, -1)
    with calls.as_user(1000):
        calls.chmod(f"{BLOCK}/state", 0o600)
        assert calls.contents(f"{BLOCK}/state") == b"online\n"
        assert refusal(calls.chown, f"{BLOCK}/state", 0, 0) == "EPERM"
    with calls.as_user(1001):
        assert refusal(calls.contents, f"{BLOCK}/state") == "EACCES"
        assert refusal(calls.chmod, f"{BLOCK}/state", 0o666) == "EPERM"
    calls.chmod(f"{BLOCK}/state", 0)

    assert refusal(calls.contents, f"{BLOCK}/state") == "EACCES"


def test_data_and_holes_are_those_of_a_page(calls):
    """SEEK_DATA and SEEK_HOLE see a file of 4096 bytes."""
    fd = calls.open(f"{BLOCK}/state", os.O_RDONLY)

    assert calls.lseek(fd, 5, os.SEEK_DATA) == 5
    assert calls.lseek(fd, 5, os.SEEK_HOLE) == 4096
    assert refusal(calls.lseek, fd, 4096, os.SEEK_DATA) == "ENXIO"
    calls.close(fd)
    assert refusal(calls.close, fd) == "EBADF"
