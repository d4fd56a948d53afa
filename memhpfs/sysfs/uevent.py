"""Uevents as text, and synthetic uevents: what a write to a `uevent` file means.

Source: kobject_uevent_env, kobject_synth_uevent, kobject_action_args (lib/kobject_uevent.c); transcript params.plain.
"""

import re
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from memhpfs.errors import BadText, SysError, TooManyVariables
from memhpfs.kernel.journal import Uevent
from memhpfs.kernel.state import Block, Kernel, Node

__all__ = [
    "UeventMessage", "bus_uevent_store", "device_uevent_store", "message", "module_uevent_store", "parse_synthetic",
    "root_uevent_store", "uevent_show",
]

_ACTIONS = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
#: What the kernel's isalnum takes; its letters are those of Latin-1.
_ALNUM = "[0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff]+"
_ARGUMENT = re.compile(f"({_ALNUM})=({_ALNUM})")
#: UEVENT_BUFFER_SIZE, UEVENT_NUM_ENVP: the room for one uevent, in bytes of text and in variables.
_MAX_TEXT, _MAX_VARIABLES = 2048, 64
#: The kernel adds the number of the event at the end; nobody knows it before.
_SEQNUM = "SEQNUM=1000000"
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

    One newline or NUL at the end is no part of it; what else follows a NUL is left out of the arguments, but makes the
    action unknown.

    Raises:
        BadText: with the kernel's words for what is wrong.
    """
    action, blank, rest = (text[:-1] if text.endswith(("\n", "\0")) else text).partition(" ")
    if action not in _ACTIONS:
        raise BadText("unknown uevent action string")
    if not blank:
        return action, (("SYNTH_UUID", "0"),)
    words = rest.partition("\0")[0].split(" ")
    arguments = [_ARGUMENT.fullmatch(word) for word in words[1:]]
    pairs = [("SYNTH_UUID", words[0])] + [(f"SYNTH_ARG_{m[1]}", m[2]) for m in arguments if m is not None]
    if not _UUID.fullmatch(words[0]) or None in arguments or not _fits(f"{key}={value}" for key, value in pairs):
        raise BadText("incorrect uevent action arguments")
    return action, tuple(pairs)


def _fits(variables: Iterable[str]) -> bool:
    """Whether a uevent has room for these variables.  Linux: add_uevent_var."""
    sizes = [len(text) + 1 for text in variables]
    return len(sizes) <= _MAX_VARIABLES and sum(sizes) <= _MAX_TEXT


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
    """Queue the event, or log why not; without a subsystem the kernel filters it out.

    Raises:
        BadText: it does not parse.
        TooManyVariables: there is no room for those of the writer and the kernel's own.
    """
    try:
        action, extra = parse_synthetic(text)
        if subsystem:
            event = Uevent(action, subsystem, name, extra)
            _check_room(event)
            kernel.journal.add(event)
    except SysError as error:
        kernel.journal.log("synth-uevent", devpath=devpath, reason=error.reason)
        if device:
            kernel.journal.log("synth-uevent-failed", device=device, errno=error.errno)
        raise


def _check_room(event: Uevent) -> None:
    sent = message(event)
    own = (f"ACTION={sent.action}", f"DEVPATH={sent.devpath}", f"SUBSYSTEM={sent.subsystem}")
    if not _fits((*own, *sent.extra, _SEQNUM)):
        raise TooManyVariables()
