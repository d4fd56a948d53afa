"""Machines that go on by themselves, and how they are ended."""

import json
import os
import signal
from pathlib import Path

import pytest
from host_kit import wait_until
from run_kit import ME

me = pytest.mark.parametrize("person", [ME], indirect=True)


def test_detach_and_stop(person):
    """`run --detach` prints the machine's name and lets go of its caller's streams; `stop` ends the machine."""
    started = person.do("sh", "-c", "name=$(memhpfs run --detach -M tiny 2>&1) && echo named $name", stdin=None)
    inside = person.do("memhpfs", "exec", "tiny", "--", "sh", "-c", "readlink /proc/self/ns/net; pwd")
    stopped = person.do("memhpfs", "stop", "tiny")

    assert (started.stdout, started.stderr) == ("named tiny\n", "")
    assert inside.stdout.splitlines()[1] == str(person.home)
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "tiny: ended\n", "")
    person.wait_until_gone()


@me
def test_names_are_never_shared(person):
    """However many machines start in the same moment, each has a name of its own."""
    count = 6
    script = f"for i in $(seq {count}); do memhpfs run --detach -M tiny & done; wait"
    names = person.do("sh", "-c", script).stdout.split()
    listed = [json.loads(line) for line in person.do("memhpfs", "ps", "--json").stdout.splitlines()]
    stopped = person.do("memhpfs", "stop", *names)

    assert sorted(names) == ["tiny", *(f"tiny-{number}" for number in range(2, count + 1))]
    assert {entry["name"] for entry in listed} == set(names)
    assert stopped.returncode == 0, stopped.stderr
    person.wait_until_gone()


@me
def test_ends_with_its_command(person):
    """With a command the machine ends when the command does, which may write files but has no streams."""
    said = person.home / "said"
    done = person.do("memhpfs", "run", "-d", "-M", "tiny", "--", "sh", "-c", f"ls -l /proc/self/fd > {said}; lsmem")

    assert (done.returncode, done.stdout, done.stderr) == (0, "tiny\n", "")
    person.wait_until_gone()
    streams = [line.split(" ")[-3:] for line in said.read_text().splitlines() if " -> " in line]
    assert [target for number, _, target in streams if number in "02"] == ["/dev/null"] * 2


@me
def test_command_that_ignores_sigterm(person):
    """What does not end by itself is killed."""
    ready = person.home / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 1; done"
    person.do("memhpfs", "run", "-d", "-M", "tiny", "--", "sh", "-c", script)
    wait_until(ready.exists)
    assert person.do("memhpfs", "stop", "tiny").stdout == "tiny: ended\n"
    person.wait_until_gone()


@me
@pytest.mark.parametrize(("options", "code", "told"), [
    (["-M", "nope"], 2, "memhpfs: machine 'nope' is neither"),
    (["--set", "ram=1G", "--qmp", "/etc/passwd"], 125, "memhpfs: /etc/passwd exists and is no socket"),
])
def test_error_before_it_is_ready(person, options, code, told):
    """What goes wrong is told to the caller, with the exit code that it has in the foreground."""
    done = person.do("memhpfs", "run", "--detach", *options)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith(told)
    wait_until(lambda: not person.processes())


@me
def test_stop_what_is_not_there(person):
    """A name that no machine has is told, with those that there are."""
    with person.machine("echo ready; read go") as machine:
        done = person.do("memhpfs", "stop", "big")

    assert done.returncode == 1
    assert done.stderr == f"memhpfs: no running machine is called 'big'; running are: tiny ({machine.parts['init']})\n"


@me
def test_stop_ends_mounts(person):
    """A mount is ended by its directory, however that is written, or by its name."""
    for name in ("m", f"{person.home}/../{person.home.name}/m", "tiny"):
        person.do("memhpfs", "mount", "--background", "-M", "tiny", "m")
        done = person.do("memhpfs", "stop", name)

        assert (done.returncode, done.stdout) == (0, "tiny: ended\n"), done.stderr
        assert not (person.home / "m").exists()
    person.wait_until_gone()


@me
def test_stop_of_a_stuck_daemon(person):
    """A daemon that does not react is killed, and its mount is taken away."""
    person.do("memhpfs", "mount", "--background", "-M", "tiny", "m")
    (entry,) = [json.loads(line) for line in person.do("memhpfs", "ps", "--json").stdout.splitlines()]
    os.kill(entry["pid"], signal.SIGSTOP)
    done = person.do("memhpfs", "stop", "tiny")

    assert done.returncode == 0, done.stderr
    assert str(person.home / "m") not in Path("/proc/self/mounts").read_text()
