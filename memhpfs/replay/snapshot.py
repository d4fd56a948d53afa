"""The followed files: everything that a transcript tells of a machine, read through a door.

Keys are those of transcripts: `memoryN/FILE`, `node/FILE`, `param/FILE`, `zone/NODE/NAME`, `iomem`, `MemTotal_kB` and
the files of the memory directory itself.
"""

from typing import Any

from memhpfs.errors import SysError
from memhpfs.replay.calls import Calls

__all__ = ["take"]

_MEMORY, _NODE = "/sys/devices/system/memory", "/sys/devices/system/node"
_PARAMETERS = "/sys/module/memory_hotplug/parameters"
_MEMORY_FILES = ("auto_online_blocks", "block_size_bytes", "crash_hotplug")
_NODE_FILES = ("online", "possible", "has_memory", "has_normal_memory")
_BLOCK_FILES = ("state", "online", "valid_zones", "removable", "phys_index", "phys_device")
#: Names of iomem lines that are followed.
_RESOURCES = ("System RAM", "virtio_mem", "kmem")
_ZONE_NUMBERS = ("start_pfn:", "spanned", "present", "managed")


def take(calls: Calls) -> dict[str, Any]:
    """All followed files as they are now; a file that cannot be read is left out."""
    found: dict[str, Any] = {}
    _files(calls, found, "", _MEMORY, _MEMORY_FILES)
    _files(calls, found, "node/", _NODE, _NODE_FILES)
    _files(calls, found, "param/", _PARAMETERS, tuple(calls.listdir(_PARAMETERS)))
    links = [f"node{node_id}" for node_id in _numbers(found.get("node/possible", ""))]
    for name in calls.listdir(_MEMORY):
        if name.startswith("memory"):
            _files(calls, found, f"{name}/", f"{_MEMORY}/{name}", _BLOCK_FILES)
            _links(calls, found, name, links)
    found |= _zones(_text(calls, "/proc/zoneinfo") or "")
    resources = (_text(calls, "/proc/iomem") or "").splitlines()
    found["iomem"] = [line for line in resources if any(name in line for name in _RESOURCES)]
    for line in (_text(calls, "/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            found["MemTotal_kB"] = int(line.split()[1])
    return found


def _text(calls: Calls, path: str) -> str | None:
    try:
        return calls.contents(path).decode("latin1")
    except (OSError, SysError):
        return None


def _files(calls: Calls, found: dict[str, Any], prefix: str, directory: str, names: tuple[str, ...]) -> None:
    for name in names:
        text = _text(calls, f"{directory}/{name}")
        if text is not None:
            found[prefix + name] = text


def _links(calls: Calls, found: dict[str, Any], block: str, names: list[str]) -> None:
    for name in names:
        try:
            found[f"{block}/{name}"] = calls.readlink(f"{_MEMORY}/{block}/{name}")
        except (OSError, SysError):
            continue


def _numbers(text: str) -> list[int]:
    """The numbers of a bitmap list, such as `0-1,3`."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def _zones(text: str) -> dict[str, list[int]]:
    """The zones of /proc/zoneinfo that have anything: start_pfn, spanned, present, managed."""
    zones: dict[str, list[int]] = {}
    numbers = [0] * len(_ZONE_NUMBERS)
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Node"]:
            numbers = zones[f"zone/{words[1].strip(',')}/{words[3]}"] = [0] * len(_ZONE_NUMBERS)
        elif len(words) == 2 and words[0] in _ZONE_NUMBERS:
            numbers[_ZONE_NUMBERS.index(words[0])] = int(words[1])
    return {key: numbers for key, numbers in zones.items() if any(numbers)}
