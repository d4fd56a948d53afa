"""Waiting as a value: what may sleep in Linux is a generator that yields pauses.

Lives here: `Pause`, `Nudge`, `Op` and a way to run an Op to its end without waiting.
Must not: clocks, tasks.  The host decides how long a pause lasts and whether the caller has a signal.

An Op yields exactly where Linux can give up the CPU, and is sent `GO` or `SIGNAL`.  At each yield every invariant of
the model holds.  Closing an Op undoes what it began, like any error would.
"""

from collections.abc import Generator, Iterator
from enum import Enum
from typing import TypeVar

from attrs import frozen

__all__ = ["LOCK", "Nudge", "Op", "Pause", "run_now"]

T = TypeVar("T")


class Nudge(Enum):
    """What the driver says when it resumes an Op."""

    GO = "go"
    SIGNAL = "signal"


@frozen
class Pause:
    """A point where Linux may sleep.

    Attributes:
        why: a few words for logs and pictures.
        cost_ns: how long the step takes on the machine, in nanoseconds; 0 means just let others run.
        interruptible: whether Linux looks at pending signals here.
        for_lock: whether this waits for the hotplug lock; it may then be resumed as soon as the lock is free.
    """

    why: str
    cost_ns: int = 0
    interruptible: bool = False
    for_lock: bool = False


#: The back-off of lock_device_hotplug_sysfs: 5 ms, then the system call starts over.  Not interruptible for the caller.
LOCK = Pause("waiting for the device hotplug lock", cost_ns=5_000_000, for_lock=True)

Op = Generator[Pause, Nudge, T]


def run_now(op: Op[T], nudges: Iterator[Nudge] | None = None) -> T:
    """Run an Op to its end at once, answering each pause with the next nudge (default: always GO).

    Raises:
        whatever the Op raises.
    """
    try:
        next(op)
        while True:
            op.send(next(nudges, Nudge.GO) if nudges is not None else Nudge.GO)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
