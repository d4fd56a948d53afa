"""The memory notifier chain: who may veto going online or offline.

Source: memory_notify (drivers/base/memory.c), lib/memory-notifier-error-inject.c; transcript inject.plain.
"""

from memhpfs.errors import Vetoed
from memhpfs.kernel.state import Kernel

__all__ = ["GOING_OFFLINE", "GOING_ONLINE", "MAX_ERRNO", "inject", "notify"]

GOING_ONLINE = "MEM_GOING_ONLINE"
GOING_OFFLINE = "MEM_GOING_OFFLINE"
MAX_ERRNO = 4095


def inject(kernel: Kernel, action: str, error: int) -> None:
    """Make an action fail from now on; 0 lets it pass again.

    Args:
        error: a negative errno; anything outside [-4095, 0] is clamped.  Linux: debugfs_errno_set.
    """
    kernel.notifier.inject[action] = -max(-MAX_ERRNO, min(error, 0))


def notify(kernel: Kernel, action: str) -> None:
    """Call the chain.

    Raises:
        Vetoed: with the errno of whoever refused.
    """
    if errno := kernel.notifier.inject[action]:
        kernel.journal.log("injecting-error", error=-errno, action=action)
        raise Vetoed(errno)
