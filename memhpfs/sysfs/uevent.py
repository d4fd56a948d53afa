"""Uevents as text, and synthetic uevents: what a write to a `uevent` file means.

Source: kobject_uevent_env, kobject_synth_uevent, kobject_action_args (lib/kobject_uevent.c); transcript params.plain.
"""

import re
from typing import Any

from attrs import frozen

from memhpfs.errors import BadText
from memhpfs.kernel.journal import Uevent
from memhpfs.kernel.state import Block, Kernel, Node

__all__ = [
    "UeventMessage", "bus_uevent_store", "device_uevent_store", "message", "module_uevent_store", "parse_synthetic",
    "root_uevent_store", "uevent_show",
]

_ACTIONS = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ARGUMENT = re.compile(r"([0-9A-Za-z]+)=([0-9A-Za-z]+)")
#: The kernel's room for one uevent: bytes of text, and number of variables of which four are its own.
_MAX_TEXT, _MAX_ARGUMENTS = 2048, 59
_DEVPATHS = {
    "memory": "/devices/system/memory/memory{}",
    "node": "/devices/system/node/node{}",
    "bus": "/bus/{}",
    "module": "/module/{}",
}


@frozen
class UeventMessage:
    """A uevent as listeners see it; `extra` holds further "KEY=VALUE" pairs."""

    action: str
    devpath: str
    subsystem: str
    extra: tuple[str, ...] = ()


def message(uevent: Uevent) -> UeventMessage:
    """The message of a uevent record."""
    devpath = _DEVPATHS[uevent.subsystem].format(uevent.name)
    extra = tuple(f"{key}={value}" for key, value in uevent.extra)
    return UeventMessage(uevent.action, devpath, uevent.subsystem, extra)


def parse_synthetic(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Action and extra variables of `ACTION [UUID [KEY=VALUE ...]]`.

    Raises:
        BadText: with the kernel's words for what is wrong.
    """
    action, blank, rest = text.removesuffix("\n").partition(" ")
    if action not in _ACTIONS:
        raise BadText("unknown uevent action string")
    if not blank:
        return action, (("SYNTH_UUID", "0"),)
    words = rest.split(" ")
    arguments = [_ARGUMENT.fullmatch(word) for word in words[1:]]
    pairs = [("SYNTH_UUID", words[0])] + [(f"SYNTH_ARG_{m[1]}", m[2]) for m in arguments if m is not None]
    room = sum(len(key) + len(value) + 2 for key, value in pairs) <= _MAX_TEXT - 128
    if not _UUID.fullmatch(words[0]) or None in arguments or len(arguments) > _MAX_ARGUMENTS or not room:
        raise BadText("incorrect uevent action arguments")
    return action, tuple(pairs)


def uevent_show(kernel: Kernel, subject: Any) -> str:
    """Memory blocks and nodes have no environment of their own: the file is empty."""
    return ""


def device_uevent_store(kernel: Kernel, device: Block | Node, text: str) -> None:
    """A synthetic event of a block or node; it changes no state."""
    subsystem = "memory" if isinstance(device, Block) else "node"
    devpath = _DEVPATHS[subsystem].format(device.id)
    _send(kernel, text, subsystem, device.id, f"{subsystem} {subsystem}{device.id}", devpath)


def root_uevent_store(name: str) -> Any:
    """The `uevent` of a root device: parsed, and then filtered, since the device has neither bus nor class."""

    def store(kernel: Kernel, subject: Any, text: str) -> None:
        _send(kernel, text, "", name, f" {name}", f"/devices/system/{name}")

    return store


def bus_uevent_store(name: str) -> Any:
    """The `uevent` of a bus."""

    def store(kernel: Kernel, subject: Any, text: str) -> None:
        _send(kernel, text, "bus", name, "", f"/bus/{name}")

    return store


def module_uevent_store(kernel: Kernel, subject: Any, text: str) -> None:
    """The `uevent` of the module memory_hotplug."""
    _send(kernel, text, "module", "memory_hotplug", "", "/module/memory_hotplug")


def _send(kernel: Kernel, text: str, subsystem: str, name: int | str, device: str, devpath: str) -> None:
    """Queue the event, or log why not; without a subsystem the kernel filters it out."""
    try:
        action, extra = parse_synthetic(text)
    except BadText as error:
        kernel.journal.log("synth-uevent", devpath=devpath, reason=error.reason)
        if device:
            kernel.journal.log("synth-uevent-failed", device=device)
        raise
    if subsystem:
        kernel.journal.add(Uevent(action, subsystem, name, extra))
