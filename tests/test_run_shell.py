"""The shell that `memhpfs run` starts where no command is given, and the machine around it."""

import shutil

import pexpect
import pytest
from host_kit import PATIENCE_S
from run_kit import ME, Person

me = pytest.mark.parametrize("person", [ME], indirect=True)


def shell(person: Person, program: str, *options: str) -> "pexpect.spawn[str]":
    """Somebody at a terminal who has just typed `memhpfs run`."""
    first, *rest = person.argv("env", f"SHELL={program}", f"HOME={person.home}", "TERM=dumb", "memhpfs", "run",
                               "-M", "tiny", *options)
    return pexpect.spawn(first, rest, cwd=str(person.home), encoding="utf-8", timeout=PATIENCE_S, dimensions=(24, 120))


def test_greeting_and_prompt(person):
    """A shell on a terminal greets with what can be tried, and its prompt names the machine."""
    (person.home / ".bashrc").write_text("PS1='me\\$ '\n")
    with shell(person, "/bin/bash") as terminal:
        terminal.expect_exact("(tiny) me# ")
        greeting = terminal.before
        terminal.sendline("echo $MEMHPFS_MACHINE")
        terminal.expect_exact("\ntiny\r\n(tiny) me# ")
        terminal.sendline("exit 3")
        terminal.expect(pexpect.EOF)
        assert terminal.wait() == 3

    assert "You are inside the machine tiny." in greeting
    assert "echo online_movable > memory32/state" in greeting
    assert ("sudo" in greeting) == bool(person.user)


@me
def test_what_the_greeting_says_works(person):
    """Each command of the greeting, copied to the shell, does what is said of it."""
    with shell(person, "/bin/bash") as terminal:
        terminal.expect_exact("(tiny) ")
        lines = [line.strip() for line in terminal.before.splitlines() if line.startswith("  ")]
        terminal.sendline("PS1=; PS2=")
        answers = {}
        for number, line in enumerate(lines):
            terminal.sendline(f"{line}\necho done-{number}-$?")
            terminal.expect(rf"\ndone-{number}-(\d+)\r\n")
            answers[line.split(" #")[0].strip()] = (terminal.match[1], terminal.before)
        terminal.sendline("exit")
        terminal.expect(pexpect.EOF)

    assert len(lines) > 8
    assert {command for command, (code, _) in answers.items() if code != "0"} == {"echo offline > memory7/state"}
    assert "write error" in answers["echo offline > memory7/state"][1]


@me
@pytest.mark.parametrize("name", ["sh", "fish", "zsh"])
def test_prompt_of_other_shells(person, name):
    """Other shells tell it as well; those that are not installed are no concern."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    with shell(person, program) as terminal:
        terminal.expect_exact("(tiny) ")
        terminal.sendline("exit")
        terminal.expect(pexpect.EOF)


@me
def test_no_greeting_without_a_terminal(person):
    """Where no person reads it nothing is said."""
    done = person.do("env", "SHELL=/bin/bash", "memhpfs", "run", "-M", "tiny", input="echo $MEMHPFS_MACHINE\n",
                     stdin=None)

    assert (done.stdout, done.stderr) == ("tiny\n", "")


def test_administrators_programs_are_found(person):
    """An ordinary user is root inside, and finds what root finds, behind what they have themselves."""
    before = "PATH=$(dirname $(command -v memhpfs)):/usr/bin:/bin; echo $PATH"
    done = person.do("sh", "-c", f"{before}; memhpfs run -M tiny -- sh -c 'chmem --version >&2; echo $PATH'")

    assert done.returncode == 0, done.stderr
    outside, inside = done.stdout.splitlines()
    assert inside == f"{outside}:/usr/local/sbin:/usr/sbin:/sbin"


def test_loopback_is_up(person):
    """Servers inside are reached at 127.0.0.1 and ::1."""
    script = ("import socket; s = socket.create_server(('127.0.0.1', 0)); "
              "c = socket.create_connection(s.getsockname()); print('reached')")
    done = person.do("memhpfs", "run", "-M", "tiny", "--", "python3", "-c", script)

    assert done.stdout == "reached\n", done.stderr
