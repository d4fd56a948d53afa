"""The device hotplug lock, in the two ways Linux takes it.

A sysfs writer only tries: when the lock is busy it sleeps 5 ms and the system call starts over, so the file may be
gone afterwards.  A driver waits.  Both are the same Op here, since waiting is the host's.
Source: lock_device_hotplug, lock_device_hotplug_sysfs (drivers/base/core.c).
"""

from collections.abc import Callable
from typing import TypeVar

from memhpfs.kernel.pause import LOCK, Op
from memhpfs.kernel.state import Kernel

__all__ = ["with_hotplug_lock"]

T = TypeVar("T")


def with_hotplug_lock(kernel: Kernel, owner: str, work: Callable[[], Op[T]]) -> Op[T]:
    """Run `work()` while holding the lock; the lock is released however it ends.

    Args:
        owner: a word for whoever holds the lock, for logs.
        work: makes the Op once the lock is held, so it sees the model as it is then.
    """
    while kernel.lock.owner is not None:
        yield LOCK
    kernel.lock.owner = owner
    try:
        return (yield from work())
    finally:
        kernel.lock.owner = None
        kernel.lock.releases += 1
