"""The error family: what can be refused, and the errno each refusal becomes.

Every refusal that Linux answers with an errno is a `SysError` whose class knows that errno, so no other room
spells one.  The host has a single line that turns a `SysError` into a reply.  `ModelBug` is the opposite: our
own mistake, which marks the machine as tainted.  `UserError` is a mistake of the person at the command line.
"""

import errno as _errno
from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "errno_named", "errno_spelled",
    "AlreadyExists", "AlreadyThere", "BadText", "Busy", "CannotDissolve", "CannotOfflinePage",
    "DirectoryIsNotAFile", "Gone", "HasHoles", "Interrupted", "ModelBug", "NoMemory", "NoStore", "NoSuchDevice",
    "NoSuchFile", "NotAttribute", "NotOneZone", "NotPermitted", "NotReadable", "NotReclaimed", "OutOfRange",
    "OutsideControl", "Overlaps", "Poisoned", "StillOnline", "StillReserved", "SysError", "TooLarge",
    "TooManyVariables", "Unaligned", "Unmovable", "UnmovablePage", "UserError", "Vetoed",
]


class SysError(Exception):
    """A refusal with an errno.  Abstract: raise a subclass, with the reason in a few words."""

    errno: int = 0
    summary: ClassVar[str] = ""

    def __init__(self, reason: str = "") -> None:
        if type(self) is SysError:
            raise TypeError("SysError is abstract: raise a subclass")
        self.reason = reason or self.summary
        super().__init__(self.reason)


class BadText(SysError):
    """A word that is not in the table, or a number that does not parse.  Linux: sysfs_match_string, kstrtoull."""

    errno = _errno.EINVAL
    summary = "bad value"


class TooLarge(SysError):
    """A number that parses but does not fit its type.  Linux: kstrtoull."""

    errno = _errno.ERANGE
    summary = "number out of range"


class AlreadyThere(SysError):
    """The block is already in the wanted state.  Linux: device_online/device_offline return 1; `state` answers
    EINVAL, `online` success."""

    errno = _errno.EINVAL
    summary = "already in that state"


class NotOneZone(SysError):
    """The block lies in several zones or nodes.  Linux: memory_block_offline."""

    errno = _errno.EINVAL
    summary = "more than one zone or node"


class HasHoles(SysError):
    """Not every page of the block is System RAM.  Linux: offline_pages, "memory holes"."""

    errno = _errno.EINVAL
    summary = "memory holes"


class Unaligned(SysError):
    """A range that is not made of whole blocks.  Linux: check_hotplug_memory_range."""

    errno = _errno.EINVAL
    summary = "not aligned to memory blocks"


class Unmovable(SysError):
    """A page that cannot move stands in the block.  Linux: start_isolate_page_range."""

    errno = _errno.EBUSY
    summary = "failure to isolate range"


class Busy(SysError):
    """Something else holds the thing.  Linux: EBUSY outside isolation."""

    errno = _errno.EBUSY
    summary = "busy"


class StillOnline(SysError):
    """Memory to be removed has an online block.  Linux: try_remove_memory."""

    errno = _errno.EBUSY
    summary = "removing memory fails, because memory is onlined"


class Interrupted(SysError):
    """A signal was pending at a loop check.  Linux: offline_pages, "signal backoff"."""

    errno = _errno.EINTR
    summary = "signal backoff"


class Vetoed(SysError):
    """A memory notifier refused with an errno of its own.  Linux: memory_notify."""

    summary = "notifier failure"

    def __init__(self, errno: int, reason: str = "") -> None:
        super().__init__(reason)
        self.errno = errno


class Poisoned(SysError):
    """The block has poisoned pages, or the page is poisoned already.  Linux: memory_block_online."""

    errno = getattr(_errno, "EHWPOISON", 133)
    summary = "hardware poison"


class UnmovablePage(SysError):
    """The scan met a page that will never move.  Linux: scan_movable_pages, a referenced PageOffline page."""

    errno = _errno.EBUSY
    summary = "unmovable page"


class NotReclaimed(SysError):
    """There was less to reclaim than was asked for.  Linux: user_proactive_reclaim."""

    errno = _errno.EAGAIN
    summary = "less reclaimed than asked for"


class CannotDissolve(SysError):
    """A free huge page could not be given back.  Linux: dissolve_free_hugetlb_folios."""

    errno = _errno.ENOMEM
    summary = "failure to dissolve huge pages"


class StillReserved(CannotDissolve):
    """A free huge page is promised to somebody who has not used it yet.  Linux: available_huge_pages."""

    errno = _errno.EBUSY


class NoMemory(SysError):
    """An allocation found no free page in the zones it may use."""

    errno = _errno.ENOMEM
    summary = "out of memory"


class TooManyVariables(SysError):
    """A uevent has no room for all its variables.  Linux: add_uevent_var."""

    errno = _errno.ENOMEM
    summary = "failed to send uevent"


class AlreadyExists(SysError):
    """A name is taken."""

    errno = _errno.EEXIST
    summary = "exists already"


class OutsideControl(SysError):
    """An address without a memory map.  Linux: pfn_to_online_page in soft_offline_page and memory_failure."""

    errno = _errno.ENXIO
    summary = "memory outside kernel control"


class CannotOfflinePage(SysError):
    """A page that soft offlining cannot take.  Linux: soft_offline_page."""

    errno = _errno.EIO
    summary = "the page cannot be offlined"


class Overlaps(SysError):
    """The range is taken already.  Linux: register_memory_resource."""

    errno = _errno.EEXIST
    summary = "the range is in use"


class OutOfRange(SysError):
    """The range lies beyond what can be addressed.  Linux: check_hotplug_memory_addressable."""

    errno = _errno.E2BIG
    summary = "beyond the addressable range"


class NoSuchFile(SysError):
    """No such name in the directory."""

    errno = _errno.ENOENT
    summary = "no such file"


class NoSuchDevice(SysError):
    """No device of that name.  Linux: drivers_probe."""

    errno = _errno.ENODEV
    summary = "no such device"


class Gone(SysError):
    """The file belongs to a device that was removed.  Linux: kernfs_get_active."""

    errno = _errno.ENODEV
    summary = "the device is gone"


class NoStore(SysError):
    """Open refused although the caller is root.  Linux: kernfs_fop_open."""

    errno = _errno.EACCES
    summary = "the file cannot be opened this way"


class NotAttribute(SysError):
    """The attribute has no method for this, whatever its mode says.  Linux: dev_attr_show, dev_attr_store."""

    errno = _errno.EIO
    summary = "no such method"


class NotReadable(SysError):
    """The text cannot be produced.  Linux: show methods that return -EIO."""

    errno = _errno.EIO
    summary = "input/output error"


class NotPermitted(SysError):
    """The caller lacks a capability, or the operation does not exist in this file system."""

    errno = _errno.EPERM
    summary = "operation not permitted"


class DirectoryIsNotAFile(SysError):
    """A directory was used as a file."""

    errno = _errno.EISDIR
    summary = "is a directory"


class ModelBug(AssertionError):
    """An invariant of the model is broken.  The host logs it and marks the machine as tainted."""


class UserError(Exception):
    """A mistake of the caller of the command line, told in one line; or several that are told at once.

    Args:
        message: what is wrong, naming the input and what is allowed; several of them where several things are wrong.
        exit_code: 1 the operation failed, 2 bad usage or bad machine file, 125 `run` could not build the machine.

    Attributes:
        lines: the messages, one for each mistake.
    """

    def __init__(self, message: str | Sequence[str], exit_code: int = 1) -> None:
        self.lines = (message,) if isinstance(message, str) else tuple(message)
        super().__init__("; ".join(self.lines))
        self.exit_code = exit_code


def errno_named(name: str) -> int | None:
    """The number of an errno by its name, e.g. EBUSY; None for an unknown one."""
    return next((number for number, spelled in _errno.errorcode.items() if spelled == name), None)


def errno_spelled(number: int) -> str:
    """The name of an errno, or its number where it has none."""
    return _errno.errorcode.get(number, str(number))
