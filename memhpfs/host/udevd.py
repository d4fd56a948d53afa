"""A systemd-udevd of the machine's own, with its own rules.

Rules go to the private /run/udev/rules.d; the host's rules are hidden unless they are wanted.  udevd gets a session of
its own and the machine's /run, so that it never meets the host's.
Source: udev(7), systemd-udevd.service(8); udevd 252 and newer.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from memhpfs.errors import UserError
from memhpfs.host.syscalls import bind, die_with_parent, mount

__all__ = ["UdevOptions", "find_udevd", "read_rules", "start_udevd"]

_RULES = Path("/run/udev/rules.d")
_HOST_RULES = ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d", "/usr/local/lib/udev/rules.d")
_PLACES = ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd")
_LOG = "/run/memhpfs/udevd.log"
_TIMEOUT_S, _TICK_S = 5.0, 0.005


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


def read_rules(rules: Sequence[str]) -> dict[str, bytes]:
    """Read the files that --rules names, on the caller's side: inside, other directories may be in their place.

    Of two files with the same name the one that is named last counts.

    Raises:
        UserError: a file or directory is not there, or is not one of rules.
    """
    found: dict[str, bytes] = {}
    for name in rules:
        for path in _rules_files(name):
            try:
                found[path.name] = path.read_bytes()
            except OSError as error:
                raise UserError(f"--rules {path}: {error.strerror}", 2) from None
    return found


def _rules_files(name: str) -> Iterator[Path]:
    path = Path(name)
    if not path.is_dir():
        if path.exists() and path.suffix != ".rules":
            raise UserError(f"--rules {name}: a rules file must be called *.rules, or udev ignores it", 2)
        yield path
        return
    files = sorted(path.glob("*.rules"))
    if not files:
        raise UserError(f"--rules {name}: the directory has no *.rules in it", 2)
    yield from files


def start_udevd(options: UdevOptions) -> int:
    """Start udevd inside the machine and wait until it answers; its pid.

    Raises:
        UserError: it does not come up.
        OSError: the rules cannot be put in place.
    """
    for name, text in options.rules.items():
        (_RULES / name).write_bytes(text)
    if not options.host_rules:
        _hide_host_rules()
    pid = os.fork()
    if not pid:
        _exec(options.program)
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        if os.path.exists("/run/udev/control") and _answers():
            return pid
        time.sleep(_TICK_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    raise UserError(f"udevd does not answer: {_last_line()}", 125)


def _hide_host_rules() -> None:
    """Bind an empty directory over each place where the host keeps rules."""
    empty = Path("/run/memhpfs/no-rules")
    empty.mkdir()
    mount("tmpfs", str(empty), "tmpfs", 0, "mode=755,size=4k")
    for place in {os.path.realpath(path) for path in _HOST_RULES if os.path.isdir(path)}:
        bind(str(empty), place)


def _exec(program: str) -> None:
    try:
        die_with_parent()
        os.setsid()
        log = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.environ["SYSTEMD_DEVICE_VERIFY_SYSFS"] = "0"
        os.execv(program, [program])
    finally:
        os._exit(127)


def _answers() -> bool:
    environment = {**os.environ, "SYSTEMD_DEVICE_VERIFY_SYSFS": "0"}
    done = subprocess.run(["udevadm", "control", "--ping"], env=environment, capture_output=True, check=False)
    return done.returncode == 0


def _last_line() -> str:
    try:
        return Path(_LOG).read_text().strip().splitlines()[-1]
    except (OSError, IndexError):
        return "it says nothing"
