"""User ids inside a machine: which ids of the host are root and everybody else in its user namespace.

Root keeps all ids that there are.  An ordinary user is root inside; where /etc/subuid and /etc/subgid give them ranges
of ids, and newuidmap(1) is there to map them, these are the other users inside, else there are none.
Source: user_namespaces(7), subuid(5), newuidmap(1).
"""

import logging
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["has_others", "map_ids"]

#: A map, the file with the ranges that users may map, and the program that maps them.
_MAPS = (("uid_map", "/etc/subuid", "newuidmap"), ("gid_map", "/etc/subgid", "newgidmap"))

_log = logging.getLogger(__name__)


def has_others() -> bool:
    """Whether there will be other users than root inside, so that programs can change to them."""
    return os.geteuid() == 0 or all(_ranges(file) and shutil.which(program) for _, file, program in _MAPS)


def map_ids(pid: int) -> None:
    """Map the ids of a process that has just made its user namespace.

    Raises:
        OSError: the system does not allow it.
    """
    if os.geteuid() == 0:
        _map_all(pid)
        return
    for (name, file, program), own in zip(_MAPS, (os.geteuid(), os.getegid()), strict=True):
        if not (has_others() and _map_ranges(pid, own, file, program)):
            _map_own(pid, own, name)


def _map_all(pid: int) -> None:
    for name, _, _ in _MAPS:
        rows = [line.split() for line in Path(f"/proc/self/{name}").read_text().splitlines()]
        Path(f"/proc/{pid}/{name}").write_text("".join(f"{first} {first} {count}\n" for first, _, count in rows))


def _map_own(pid: int, own: int, name: str) -> None:
    if name == "gid_map":
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/{name}").write_text(f"0 {own} 1")


def _map_ranges(pid: int, own: int, file: str, program: str) -> bool:
    """Map the user's ranges as well; whether that was possible."""
    words = ["0", str(own), "1"]
    inside = 1
    for first, count in _ranges(file):
        words += [str(inside), str(first), str(count)]
        inside += count
    done = subprocess.run([program, str(pid), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        _log.info("only your own id is mapped: %s", done.stderr.strip())
    return done.returncode == 0


def _ranges(file: str) -> list[tuple[int, int]]:
    """First id and number of ids of each range that the user may map."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return []
    whose = set(_own_names())
    rows = [line.split(":") for line in lines]
    return [(int(first), int(count)) for name, first, count in (row for row in rows if len(row) == 3)
            if name in whose and first.isdecimal() and count.isdecimal() and int(count)]


def _own_names() -> Iterator[str]:
    yield str(os.geteuid())
    try:
        yield pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return
