"""Signals to a command of a machine that waits in a write.

What shall end at once would not end by itself.  How fast it is, the benchmark tells.
"""

import os
import signal
import time

import pytest
from run_kit import BLOCK, PLUGGED

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
#: For each line it reads, offlines BLOCK; says what came of it.  libc's write is not retried.
CATCHER = f"""
import ctypes, os, signal, sys
for number in {[int(number) for number in NUMBERS]}:
    signal.signal(number, lambda *_: None)
libc = ctypes.CDLL(None, use_errno=True)
print("ready", flush=True)
for line in sys.stdin:
    fd = os.open("{BLOCK}/state", os.O_WRONLY)
    taken = libc.write(fd, b"offline", 7)
    print(taken, ctypes.get_errno(), flush=True)
    os.close(fd)
"""
#: For each line it reads, lets a child offline BLOCK, and says its exit code.
PARENT = f'echo ready; while read line; do sh -c "echo offline > {BLOCK}/state"; echo $?; done'


def test_signal_with_a_handler_is_eintr(person):
    """A signal that the writer handles ends its write with EINTR, and the block is online again."""
    (person.home / "catcher.py").write_text(CATCHER)
    with person.machine(f"exec python3 -S {person.home}/catcher.py", *PLUGGED) as machine:
        machine.pin()
        for number in NUMBERS:
            machine.tell("go")
            machine.blocked()
            machine.kill("command", number)

            assert machine.line() == "-1 4"


def test_signal_without_a_handler_ends_the_writer(person):
    """A signal that ends a process ends one that waits in a write."""
    with person.machine(PARENT, *PLUGGED) as machine:
        machine.pin()
        for number in (*NUMBERS, signal.SIGKILL):
            machine.tell("go")
            (child,) = machine.blocked()
            os.kill(child, number)

            assert machine.line() == str(128 + number)


@pytest.mark.parametrize("opening", [">", "1<>"], ids=["truncates", "does not truncate"])
def test_second_writer_waits_and_can_be_killed(person, opening):
    """A second writer of the same file waits for the first and can be killed; the first goes on."""
    first, second = (f"{{ sh -c 'echo {what} {opening} {BLOCK}/state'; echo $?; }} &" for what in ("offline", "online"))
    with person.machine(f"echo ready; read go; {first} read go; {second} wait; cat {BLOCK}/state", *PLUGGED) as machine:
        machine.pin()
        machine.tell("go")
        machine.blocked()
        machine.tell("go")
        one, two = machine.blocked(2)

        os.kill(two, signal.SIGTERM)
        said = machine.line()
        assert machine.blocked() == [one]
        os.kill(one, signal.SIGKILL)

        assert [said, machine.line(), machine.line()] == ["143", "137", "online"]


def test_second_writer_has_its_turn_after_the_first(person):
    """When the first writer ends, the second goes on where it waited."""
    first, second = (f"{{ echo {what} > {BLOCK}/state; echo {what} $?; }} &" for what in ("offline", "online"))
    with person.machine(f"echo ready; read go; {first} read go; {second} wait; cat {BLOCK}/state", *PLUGGED) as machine:
        machine.pin()
        machine.tell("go")
        machine.blocked()
        machine.tell("go")
        machine.blocked(2)
        machine.unpin()

        assert {machine.line(), machine.line()} == {"offline 0", "online 0"}
        assert machine.line() == "online"


@pytest.mark.parametrize(("options", "code"), [("", 124), ("-s KILL", 137)], ids=["TERM", "KILL"])
def test_timeout(person, options, code):
    """`timeout` ends an offlining when it says, and the block is online.  With KILL it kills itself as well."""
    script = f"timeout {options} 1 sh -c 'echo offline > {BLOCK}/state'; echo $?"
    then = f"until grep -x online {BLOCK}/state; do :; done"
    with person.machine(f"echo ready; read go; {script}; {then}", *PLUGGED) as machine:
        machine.pin()
        at = time.monotonic()
        machine.tell("go")

        assert [machine.line(), machine.line()] == [str(code), "online"]
        assert time.monotonic() - at >= 1
