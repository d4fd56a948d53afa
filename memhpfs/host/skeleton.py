"""The private /sys of a machine: a tmpfs with everything real bound read-only, and the machine's directories in place.

It needs no mount points in the real /sys, so it works where the host has no memory blocks at all.  Nothing in it can
reach the real memory blocks: where the machine has a directory, the real one is never bound.
"""

import os
import stat
from pathlib import Path

from memhpfs.host.syscalls import bind, make_read_only

__all__ = ["MODEL_PATHS", "build_sys", "cover_proc"]

#: What the machine has, relative to /sys.
MODEL_PATHS = (
    "devices/system/memory", "devices/system/node", "bus/memory", "bus/node", "module/memory_hotplug",
    "kernel/debug/notifier-error-inject",
)


def build_sys(target: str, real: str, model: str) -> None:
    """Fill an empty directory.

    Args:
        target: where; an empty tmpfs.
        real: the real /sys.
        model: the machine's sys directory.

    Raises:
        OSError: a bind failed.
    """
    wanted = [Path(path) for path in MODEL_PATHS if os.path.isdir(os.path.join(model, path))]
    _fill(Path(target), Path(real), Path(model), Path(), wanted)


def _fill(target: Path, real: Path, model: Path, at: Path, wanted: list[Path]) -> None:
    """One directory on the way to the machine's: bind the real entries, descend towards the machine's."""
    ours = {path.parts[len(at.parts)] for path in wanted if path.parts[:len(at.parts)] == at.parts}
    for entry in _entries(real / at):
        if entry.name not in ours:
            _show(entry, target / at / entry.name)
    for name in sorted(ours):
        place = at / name
        (target / place).mkdir()
        if place in wanted:
            bind(str(model / place), str(target / place))
        else:
            _fill(target, real, model, place, wanted)


def _entries(directory: Path) -> list["os.DirEntry[str]"]:
    """What a real directory holds; nothing where it does not exist or may not be read."""
    try:
        with os.scandir(directory) as found:
            return list(found)
    except OSError:
        return []


def _show(entry: "os.DirEntry[str]", place: Path) -> None:
    """Show one real entry, read-only."""
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        place.symlink_to(os.readlink(entry.path))
        return
    if stat.S_ISDIR(mode):
        place.mkdir()
    else:
        place.touch()
    bind(entry.path, str(place))
    make_read_only(str(place), recursive=True)


def cover_proc(model: str) -> None:
    """Bind the machine's /proc files over the real ones.

    Args:
        model: the machine's proc directory.
    """
    for name in sorted(os.listdir(model)):
        if os.path.exists(f"/proc/{name}"):
            bind(os.path.join(model, name), f"/proc/{name}")
