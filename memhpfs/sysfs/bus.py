"""The rows of /sys/bus/memory and /sys/bus/node.

Source: drivers/base/bus.c; transcript vfs.plain.
"""

from typing import Any

from memhpfs.errors import NoSuchDevice
from memhpfs.kernel.state import Kernel
from memhpfs.sysfs.attr import Attr, Dir
from memhpfs.sysfs.uevent import bus_uevent_store

__all__ = ["bus_dir"]


def bus_dir(name: str) -> Dir:
    """The directory of one bus, `memory` or `node`."""

    def autoprobe_show(kernel: Kernel, subject: Any) -> str:
        return f"{int(kernel.params.drivers_autoprobe[name])}\n"

    def autoprobe_store(kernel: Kernel, subject: Any, text: str) -> None:
        """Only a first byte `0` switches it off; nothing is refused."""
        kernel.params.drivers_autoprobe[name] = not text.startswith("0")

    def probe_store(kernel: Kernel, subject: Any, text: str) -> None:
        """There is no driver to bind, so a known device is a success without effect."""
        word = text.removesuffix("\n")
        names = {f"{name}{number}" for number in (kernel.blocks if name == "memory" else _online(kernel))}
        if word not in names:
            raise NoSuchDevice(word)

    return Dir(name, (
        Dir("devices", holds=f"{name}-bus"),
        Dir("drivers"),
        Attr("drivers_autoprobe", 0o644, autoprobe_show, autoprobe_store, "drivers_autoprobe_show, _store"),
        Attr("drivers_probe", 0o200, None, probe_store, "drivers_probe_store"),
        Attr("uevent", 0o200, None, bus_uevent_store(name), "bus_uevent_store", counted=True),
    ))


def _online(kernel: Kernel) -> list[int]:
    return [node.id for node in kernel.nodes.values() if node.online]
