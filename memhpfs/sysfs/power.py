"""The power/ directory that every device has.

Memory and node devices never do runtime power management, so most of it is constant; `control` and `async` keep what is
written.  Source: drivers/base/power/sysfs.c; transcript vfs.plain.
"""

from typing import Any

from memhpfs.errors import NotReadable
from memhpfs.kernel.state import Kernel
from memhpfs.parse import match_word
from memhpfs.sysfs.attr import Attr, Dir, has

__all__ = ["power_dir"]

_CONTROL = {"auto": "auto", "on": "on"}
_ASYNC = {"enabled": "enabled", "disabled": "disabled"}


def _key(subject: Any, default: str) -> str:
    """The device's name for its power settings: root devices have no serial."""
    return str(getattr(subject, "serial", default))


def _control(kernel: Kernel, key: str) -> str:
    return kernel.power.get((key, "control"), "auto")


def power_dir(root: str = "") -> Dir:
    """The power/ directory of a device.

    Args:
        root: for a root device, its subsystem; empty for blocks and nodes.
    """

    def control_show(kernel: Kernel, subject: Any) -> str:
        return _control(kernel, _key(subject, root)) + "\n"

    def control_store(kernel: Kernel, subject: Any, text: str) -> None:
        kernel.power[_key(subject, root), "control"] = match_word(text, _CONTROL)

    def async_show(kernel: Kernel, subject: Any) -> str:
        return kernel.power.get((_key(subject, root), "async"), "disabled") + "\n"

    def async_store(kernel: Kernel, subject: Any, text: str) -> None:
        kernel.power[_key(subject, root), "async"] = match_word(text, _ASYNC)

    def enabled_show(kernel: Kernel, subject: Any) -> str:
        forbidden = _control(kernel, _key(subject, root)) == "on"
        return "disabled & forbidden\n" if forbidden else "disabled\n"

    def usage_show(kernel: Kernel, subject: Any) -> str:
        return "1\n" if _control(kernel, _key(subject, root)) == "on" else "0\n"

    advanced = has("pm_advanced")
    return Dir("power", (
        Attr("control", 0o644, control_show, control_store, "control_show, control_store"),
        Attr("runtime_status", 0o444, _constant("unsupported\n"), source="runtime_status_show"),
        Attr("runtime_active_time", 0o444, _constant("0\n"), source="runtime_active_time_show"),
        Attr("runtime_suspended_time", 0o444, _constant("0\n"), source="runtime_suspended_time_show"),
        Attr("autosuspend_delay_ms", 0o644, _no_delay, _no_delay_store, "autosuspend_delay_ms_show: no autosuspend"),
        Attr("async", 0o644, async_show, async_store, "async_show, async_store", when=advanced),
        Attr("runtime_usage", 0o444, usage_show, source="runtime_usage_show", when=advanced),
        Attr("runtime_active_kids", 0o444, _constant("0\n"), source="runtime_active_kids_show", when=advanced),
        Attr("runtime_enabled", 0o444, enabled_show, source="runtime_enabled_show", when=advanced),
    ))


def _constant(text: str) -> "Any":
    def show(kernel: Kernel, subject: Any) -> str:
        return text

    return show


def _no_delay(kernel: Kernel, subject: Any) -> str:
    raise NotReadable()


def _no_delay_store(kernel: Kernel, subject: Any, text: str) -> None:
    raise NotReadable()
