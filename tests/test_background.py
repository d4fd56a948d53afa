"""Work in the background: what its caller sees and waits for, and what the daemon keeps of the caller."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from host_kit import PATIENCE_S, wait_until

#: A daemon that writes its pid to the file `pid`, does what the test says, and then waits for its end.
_SCRIPT = """
import contextlib, os, signal, sys, time
from memhpfs.errors import UserError
from memhpfs.host.background import in_background

def work(ready):
    with open("pid.new", "w") as file:
        print(os.getpid(), file=file)
    os.rename("pid.new", "pid")
    {}
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(60)
    return 5

try:
    sys.exit(in_background(work))
except UserError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
_READY = "print('usable', file=sys.stderr); print('name'); ready()"


@pytest.fixture
def there(tmp_path, monkeypatch):
    """An empty working directory; a daemon that runs at the end is killed."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if (tmp_path / "pid").exists() and Path(f"/proc/{pid()}").exists():
        os.kill(pid(), signal.SIGKILL)


def argv(do: str) -> list[str]:
    return [sys.executable, "-E", "-c", _SCRIPT.format(do)]


def run(do: str, **popen):
    return subprocess.run(argv(do), check=False, timeout=PATIENCE_S, **({"capture_output": True, "text": True} | popen))


def pid() -> int:
    return int(Path("pid").read_text())


def runs() -> bool:
    """Whether the daemon runs."""
    state = Path(f"/proc/{pid()}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.usefixtures("there")
def test_returns_when_ready():
    """The caller ends with 0, its pipes are closed, and the daemon has nothing of it."""
    (inherited, other), got = os.pipe(), None
    try:
        done = run(_READY, pass_fds=[other])
        os.close(other)

        got = (done.returncode, done.stdout, done.stderr)
        assert got == (0, "name\n", "usable\n")
        assert os.read(inherited, 1) == b""
    finally:
        os.close(inherited)
    proc = Path(f"/proc/{pid()}")
    assert os.getsid(pid()) == pid()
    assert os.readlink(proc / "cwd") == "/"
    assert {os.readlink(path) for path in (proc / "fd").iterdir()} == {"/dev/null"}
    os.kill(pid(), signal.SIGTERM)
    wait_until(lambda: not runs())


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed):
    """The place of a stream that the caller does not have is taken by nothing else."""
    script = f'exec "$@" {closed}'
    done = subprocess.run(["sh", "-c", script, "sh", *argv(_READY)], capture_output=True, check=False,
                          timeout=PATIENCE_S)

    assert done.returncode == 0
    assert {os.readlink(path) for path in Path(f"/proc/{pid()}/fd").iterdir()} == {"/dev/null"}


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(("do", "code", "told"), [
    ("raise UserError('no luck', 2)", 2, "error: no luck\n"),
    ("return 3", 3, ""),
    ("return 0", 1, "error: what was started in the background ended before it was ready\n"),
    ("os.kill(os.getpid(), signal.SIGKILL)", 1,
     "error: what was started in the background ended before it was ready (Killed)\n"),
])
def test_ends_before_it_is_ready(do, code, told):
    """The caller has the daemon's exit code, never 0, and whoever reads its stderr the reason, once."""
    done = run(do)

    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_signal_to_the_caller(number):
    """Before it is ready the daemon ends with its caller, which ends as of the signal."""
    with subprocess.Popen(argv("pass"), process_group=0, stderr=subprocess.DEVNULL) as caller:
        wait_until(Path("pid").exists)
        os.killpg(caller.pid, number)

        assert caller.wait(PATIENCE_S) == -number
        wait_until(lambda: not runs())


@pytest.mark.usefixtures("there")
def test_the_end_of_the_daemon_is_waited_for():
    """A caller that is told to end does so when the daemon has tidied up."""
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), open('tidy', 'w'), os._exit(0)))"
    with subprocess.Popen(argv(f"{slow}; open('armed', 'w')")) as caller:
        wait_until(Path("armed").exists)
        caller.send_signal(signal.SIGTERM)

        assert caller.wait(PATIENCE_S) == -signal.SIGTERM
        assert Path("tidy").exists()


@pytest.mark.usefixtures("there")
def test_ignored_signal():
    """What the caller ignores, as nohup has it, does not end it."""
    with subprocess.Popen(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *argv(f"time.sleep(0.5); {_READY}")],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as caller:
        wait_until(Path("pid").exists)
        caller.send_signal(signal.SIGHUP)

        assert caller.wait(PATIENCE_S) == 0
        assert runs()
