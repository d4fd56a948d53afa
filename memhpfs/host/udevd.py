"""A systemd-udevd of the machine's own, with its own rules.

Rules go to the private /run/udev/rules.d; the host's rules are hidden unless they are wanted.  udevd gets a session of
its own and the machine's /run, so that it never meets the host's.  What it says goes to a log, and complaints about the
given rules to stderr as well.
Source: udev(7), systemd-udevd.service(8); udevd 252 and newer.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from attrs import field, frozen

from memhpfs.errors import UserError
from memhpfs.host.complain import complain
from memhpfs.host.rules import ENVIRONMENT, PLACE, Said, complaints, lines_of, refuse_mistakes, tell
from memhpfs.host.syscalls import bind, die_with_parent, mount

__all__ = ["UdevOptions", "find_udevd", "start_udevd"]

_HOST_RULES = ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d", "/usr/local/lib/udev/rules.d")
_PLACES = ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd")
_LOG = "/run/memhpfs/udevd.log"
_TIMEOUT_S, _TICK_S = 5.0, 0.005
_PIPE_BYTES = 1 << 16


@frozen
class UdevOptions:
    """What udevd runs with.

    Attributes:
        program: the daemon.
        rules: contents of the rules files by name.
        host_rules: whether the host's own rules act as well.
    """

    program: str
    rules: Mapping[str, bytes] = field(factory=dict)
    host_rules: bool = False


def find_udevd() -> str:
    """The distribution's udevd.

    Raises:
        UserError: there is none.
    """
    found = next((place for place in _PLACES if os.access(place, os.X_OK)), None) or shutil.which("systemd-udevd")
    if found is None or shutil.which("udevadm") is None:
        raise UserError("there is no systemd-udevd here; install the package udev (Fedora: systemd-udev)", 125)
    return found


def start_udevd(options: UdevOptions, say: Callable[[str], None]) -> int:
    """Start udevd inside the machine and wait until it answers; its pid.

    Args:
        say: tells the caller complaints about the given rules, until udevd answers.

    Raises:
        UserError: it does not come up, or cannot read the rules (exit code 2).
        OSError: the rules cannot be put in place.
    """
    for name, text in options.rules.items():
        Path(PLACE, name).write_bytes(text)
    if not options.host_rules:
        _hide_host_rules()
    said, says = os.pipe()
    pid = os.fork()
    if not pid:
        _become_udevd(options.program, says)
    os.close(says)
    try:
        refuse_mistakes(_tell(_until_it_answers(said), options.rules, say))
        if not os.fork():
            _go_on_telling(said, options.rules)
    except UserError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(said)
    return pid


def _hide_host_rules() -> None:
    """Bind an empty directory over each place where the host keeps rules."""
    empty = Path("/run/memhpfs/no-rules")
    empty.mkdir()
    mount("tmpfs", str(empty), "tmpfs", 0, "mode=755,size=4k")
    for place in {os.path.realpath(path) for path in _HOST_RULES if os.path.isdir(path)}:
        bind(str(empty), place)


def _become_udevd(program: str, says: int) -> NoReturn:
    try:
        die_with_parent()
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(says, 1)
        os.dup2(says, 2)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execve(program, [program], os.environ | ENVIRONMENT)
    finally:
        os._exit(127)


def _until_it_answers(said: int) -> str:
    """Wait until udevd has read its rules; what it said by then.

    Raises:
        UserError: it does not answer in time.
    """
    os.set_blocking(said, False)
    log = b""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        # Before the reading: what came before its answer is in the pipe then.
        answers = os.path.exists("/run/udev/control") and _answers()
        with contextlib.suppress(BlockingIOError):
            while part := os.read(said, _PIPE_BYTES):
                log += part
        if answers:
            os.set_blocking(said, True)
            return log.decode(errors="replace")
        time.sleep(_TICK_S)
    last = (lines_of(log.decode(errors="replace")) or [Said(0, "it says nothing")])[-1]
    raise UserError(f"udevd does not answer: {last.text}", 125)


def _answers() -> bool:
    done = subprocess.run(
        ["udevadm", "control", "--ping"], env=os.environ | ENVIRONMENT, capture_output=True, check=False
    )
    return done.returncode == 0


def _go_on_telling(said: int, names: Iterable[str]) -> NoReturn:
    """Be the process that takes what udevd says, until it ends.  Lines come whole: writes to a pipe are atomic."""
    try:
        die_with_parent()
        os.setsid()
        while part := os.read(said, _PIPE_BYTES):
            _tell(part.decode(errors="replace"), names, complain)
    finally:
        os._exit(0)


def _tell(log: str, names: Iterable[str], say: Callable[[str], None]) -> list[Said]:
    """Write what udevd says to its log, and tell complaints; these."""
    said = lines_of(log)
    with open(_LOG, "a") as file:
        file.writelines(f"{line.text}\n" for line in said)
    wrong = list(complaints(said, names))
    tell(wrong, say)
    return wrong
