"""The udev rules of --rules: reading them, and what udev has to say of them.

systemd's programs put the severity before each line where SYSTEMD_LOG_TARGET is console-prefixed: `<27>` is the
facility daemon, 24, and the level err, 3.
Source: udevadm(8), systemd(1); log_rule_line (src/udev/udev-rules.c); udevd 252 and 257.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from memhpfs.errors import UserError
from memhpfs.host.complain import complain

__all__ = [
    "ENVIRONMENT", "PLACE", "Said", "check_rules", "complaints", "lines_of", "read_rules",
    "refuse_mistakes", "tell",
]

#: Where the rules are inside.
PLACE = "/run/udev/rules.d"
#: For systemd's programs: severities before the lines, and no doubts about a /sys that is not sysfs.
ENVIRONMENT = {"SYSTEMD_LOG_TARGET": "console-prefixed", "SYSTEMD_DEVICE_VERIFY_SYSFS": "0"}
_LINE = re.compile(r"(?:<([0-9]+)>)?(.*)")
_ERR, _WARNING, _INFO = 3, 4, 6
#: A rule for users or groups that only other computers have is no mistake.
_HARMLESS = re.compile(r"(Unknown|Failed to resolve) (user|group)")


@frozen
class Said:
    """A line that a program of systemd's has logged.

    Attributes:
        severity: 0 to 7 as in syslog(3).
        text: without severity.
    """

    severity: int
    text: str


def lines_of(log: str) -> list[Said]:
    """The lines of a log."""
    found = [_LINE.match(line) for line in log.splitlines()]
    return [Said(int(match[1] or _INFO) & 7, match[2]) for match in found if match]


def complaints(said: Iterable[Said], names: Iterable[str]) -> Iterator[Said]:
    """Warnings and errors about rules of these files, or about programs that they start."""
    about = re.compile(rf"(^|[ /])({'|'.join(map(re.escape, names))}):[0-9]+:? |: Process '")
    for line in said:
        if line.severity <= _WARNING and about.search(line.text):
            yield Said(line.severity, line.text.replace(f"{PLACE}/", ""))


def refuse_mistakes(said: Sequence[Said]) -> None:
    """Refuse rules of which complaints say that udev cannot read them.

    Raises:
        UserError: exit code 2: which lines of which files.
    """
    wrong = [line.text.split(" ")[0].rstrip(":") for line in said if _is_mistake(line)]
    if wrong:
        raise UserError(f"--rules: udev cannot read {', '.join(dict.fromkeys(wrong))}", 2)


def _is_mistake(line: Said) -> bool:
    return line.severity <= _ERR and not _HARMLESS.search(line.text)


def tell(said: Iterable[Said], say: Callable[[str], None]) -> None:
    """Tell complaints."""
    for line in said:
        say(f"udevd: {line.text}")


def check_rules(rules: Mapping[str, bytes]) -> None:
    """Let `udevadm verify` look at rules before anything is built.  Before systemd 254 there is none, and udevd tells.

    Raises:
        UserError: exit code 2: a line that udev cannot read.
    """
    if not rules or shutil.which("udevadm") is None:    # who starts udevd tells that there is none
        return
    with tempfile.TemporaryDirectory(prefix="memhpfs-rules-") as place:
        for name, text in rules.items():
            Path(place, name).write_bytes(text)
        done = subprocess.run(
            ["udevadm", "verify", "--no-style", "--no-summary", "--resolve-names=never", "--", *rules], cwd=place,
            env=os.environ | ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False,
        )
    # The others udevd itself will tell.
    wrong = [line for line in complaints(lines_of(done.stderr), rules) if _is_mistake(line)]
    tell(wrong, complain)
    refuse_mistakes(wrong)


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
