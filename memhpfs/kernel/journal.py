"""Outward effects of the model, in one order: uevents, log records, devices that came or went.

The host drains the journal after each step and before it answers a write, so listeners see effects in the kernel's
order.  Records name devices by subsystem and number; their paths and words are text, and live in sysfs/.
"""

from collections import deque

from attrs import define, field, frozen

__all__ = ["DeviceGone", "DeviceNew", "Entry", "Journal", "LinkGone", "LinkNew", "LogRecord", "Uevent"]


@frozen
class Uevent:
    """A uevent to send.

    Attributes:
        action: add, remove, change, move, online, offline, bind or unbind.
        subsystem: "memory" or "node" for devices; "bus" or "module" for those objects' own.
        name: the device number, or the name of the bus or module.
        extra: further KEY=VALUE pairs, in order.
    """

    action: str
    subsystem: str
    name: int | str
    extra: tuple[tuple[str, str], ...] = ()


@frozen
class LogRecord:
    """A line of the kernel's log: which message, and its values.  sysfs/klog.py has the words.

    Attributes:
        kind: key of the message.
        values: what the message mentions.
    """

    kind: str
    values: dict[str, object] = field(factory=dict)


@frozen
class DeviceNew:
    """A memory block or node device exists from now on."""

    subsystem: str
    number: int
    serial: int


@frozen
class DeviceGone:
    """A memory block or node device is gone: open files answer ENODEV, names must be forgotten.

    Attributes:
        node_ids: nodes that had a link to the block.
    """

    subsystem: str
    number: int
    serial: int
    node_ids: tuple[int, ...] = ()


@frozen
class LinkNew:
    """The links between a block and its node exist from now on."""

    block_id: int
    node_id: int


@frozen
class LinkGone:
    """The links between a block and its node are gone."""

    block_id: int
    node_id: int


Entry = Uevent | LogRecord | DeviceNew | DeviceGone | LinkNew | LinkGone


@define
class Journal:
    """The queue of effects not yet sent out."""

    _entries: deque[Entry] = field(factory=deque)

    def add(self, entry: Entry) -> None:
        """Append one effect."""
        self._entries.append(entry)

    def log(self, kind: str, **values: object) -> None:
        """Append a log record."""
        self._entries.append(LogRecord(kind, values))

    def drain(self) -> list[Entry]:
        """Take all effects, oldest first."""
        taken = list(self._entries)
        self._entries.clear()
        return taken

    def __len__(self) -> int:
        return len(self._entries)
