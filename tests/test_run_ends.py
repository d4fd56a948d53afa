"""How a machine ends: whatever is killed, the rest follows at once, and nothing is left on the host.

What shall end at once would last longer than the kit waits for an end.  How fast it is, the benchmark tells.
"""

import os
import signal
import subprocess
from pathlib import Path

import needs
import pytest
from host_kit import PATIENCE_S, wait_until
from run_kit import ME, MEMORY, Machine

#: A part of the machine that is killed, and the exit code of `memhpfs run`.
KILLED = [("caller", 137), ("keeper", 137), ("init", 137), ("daemon", 125), ("command", 137)]
me = pytest.mark.parametrize("person", [ME], indirect=True)


def _kill(machine: Machine, part: str, number: int = signal.SIGKILL) -> int:
    """Send a signal to a part, and wait until everything is gone; the exit code."""
    machine.kill(part, number)
    code = machine.end()
    machine.person.wait_until_gone()
    return code


@me
@pytest.mark.parametrize(("part", "code"), KILLED)
def test_kill_a_part(person, part, code):
    """SIGKILL of any process but udevd ends everything at once."""
    with person.machine("echo ready; sleep 60 & read x") as machine:
        assert _kill(machine, part) == code


@pytest.mark.parametrize(("part", "code"), KILLED)
def test_kill_a_part_while_the_command_is_blocked(person, part, code):
    """So it does while the command waits in a write."""
    with person.stuck_machine() as machine:
        assert _kill(machine, part) == code


@me
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_caller_ends_a_blocked_command(person, number):
    """A signal to `memhpfs run` is passed on, and its code is that of a command which died of it."""
    with person.stuck_machine() as machine:
        assert _kill(machine, "caller", number) == 128 + number


@me
def test_signal_is_the_affair_of_the_command(person):
    """A command that has a handler for SIGTERM ends as it likes."""
    with person.machine("trap 'exit 7' TERM; echo ready; while :; do read x; done") as machine:
        assert _kill(machine, "caller", signal.SIGTERM) == 7


def test_interrupt_key_reaches_the_command_alone(person):
    """Ctrl-C signals the process group of the terminal: the command has it, all others go on."""
    with person.machine("trap 'echo again' INT; echo ready; while :; do read x; done") as machine:
        os.killpg(machine.caller.pid, signal.SIGINT)
        assert machine.line() == "again"
        os.killpg(machine.caller.pid, signal.SIGQUIT)

        assert machine.end() == 131
    person.wait_until_gone()


@me
def test_interrupt_key_ends_a_blocked_command(person):
    """Ctrl-C ends a command that waits in a write, and with it the machine."""
    with person.stuck_machine() as machine:
        os.killpg(machine.caller.pid, signal.SIGINT)

        assert machine.end() == 130
    person.wait_until_gone()


@me
def test_ignored_signal_stays_ignored(person):
    """What the caller ignores, as nohup has it, the command ignores too, and nothing else."""
    script = 'trap "" HUP; grep SigIgn /proc/self/status; exec memhpfs run -- grep SigIgn /proc/self/status'
    done = person.do("sh", "-c", script)

    caller, command = done.stdout.splitlines()
    assert command == caller
    assert int(command.split()[1], 16) & 1 << (signal.SIGHUP - 1)


@me
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_while_the_machine_is_built(person, number):
    """A signal before the command has started ends everything, without a word."""
    process = subprocess.Popen(
        person.argv("memhpfs", "run", "--", "sleep", "60"), process_group=0, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: list(person.home.glob("memhpfs/*.d")))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_S)[1]
    person.wait_until_gone()

    assert process.returncode in (128 + number, -number)
    assert said.strip() == ""


@me
def test_group_killed_at_once_is_tidied_up_by_ps(person):
    """Where nobody is left to remove the machine's files, the next `memhpfs ps` does."""
    with person.machine("echo ready; read x") as machine:
        os.killpg(machine.caller.pid, signal.SIGKILL)
        machine.end()
        wait_until(lambda: not person.processes())
        listed = person.do("memhpfs", "ps").stdout

    assert len(listed.splitlines()) == 1
    person.wait_until_gone()


@me
def test_death_of_the_daemon_is_told(person, capfd):
    """The end of the file system is said in one line."""
    with person.machine("echo ready; read x") as machine:
        machine.kill("daemon")
        machine.end()

    assert capfd.readouterr().err == "memhpfs: the machine's file system ended; the command was killed\n"


@me
def test_machine_goes_on_without_udevd(person, capfd):
    """The death of udevd is told; the command goes on, and the machine ends with it."""
    needs.program("udevadm", "udev")
    with person.machine(f"echo ready; read x; cat {MEMORY}/auto_online_blocks; exit 3", "--udev") as machine:
        machine.kill("udevd")
        wait_until(lambda: not Path(f"/proc/{machine.parts['udevd']}").exists())
        machine.tell("go")

        assert machine.line() == "offline"
        assert machine.end() == 3
    assert capfd.readouterr().err == "memhpfs: udevd ended; the machine goes on without it\n"
    person.wait_until_gone()


@me
def test_what_the_command_leaves_behind_ends_too(person):
    """Processes that the command started in the background, even in sessions of their own, end with it."""
    done = person.run("setsid sleep 60 >/dev/null 2>&1 & exit 4")

    assert done.returncode == 4
    person.wait_until_gone()
