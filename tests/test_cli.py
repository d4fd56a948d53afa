"""The command line: help that teaches, one line for each mistake, exit codes, pipes that break."""

import os
import subprocess
import sys

import pytest

from memhpfs.cli.help import TOPICS
from memhpfs.cli.main import COMMANDS

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
    (["dance"], "memhpfs: No such command 'dance'"),
    (["mount"], "memhpfs mount: Missing argument 'DIR'"),
    (["mount", "--loop", "square", "/tmp"], "memhpfs mount: Invalid value for '--loop'"),
    (["run", "--bogus"], "memhpfs run: No such option"),
    (["plug", "d0"], "memhpfs plug: Missing option '--size'"),
    (["plug", "d0", "--size", "big"], "memhpfs plug: Invalid value for '--size': 'big' is not a size"),
    (["fill", "w", "--kind", "water", "--size", "1M"], "memhpfs fill: Invalid value for '--kind'"),
    (["fill", "w", "--kind", "anon"], "memhpfs: fill: give either --size or --share"),
    (["fill", "w", "--kind", "anon", "--share", "200%"], "'200%' is not a share; allowed are 1% to 100%"),
    (["fault", "add", "f", "--op", "dance", "--errno", "EIO"], "Invalid value for '--op'"),
    (["help", "hardwear"], "memhpfs: no help on 'hardwear'; did you mean hardware?"),
    (["machine", "show", "nope"], "memhpfs: machine 'nope' is neither a file nor a preset"),
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


def test_version():
    """--version tells the program and its version."""
    assert memhpfs("--version").stdout.startswith("memhpfs, version ")


@pytest.mark.parametrize("arguments", ["machine list", "help start", "--help", "machine show big"])
def test_reader_that_goes_away(arguments):
    """A closed pipe is no reason for a traceback."""
    done = subprocess.run(["sh", "-c", f"'{sys.executable}' -m memhpfs {arguments} | true"], capture_output=True,
                          text=True, check=False)

    assert "Traceback" not in done.stderr
