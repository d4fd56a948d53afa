"""The rows of notifier-error-inject: make memory notifiers fail on demand.

Source: lib/memory-notifier-error-inject.c, lib/notifier-error-inject.c; transcript inject.plain.
"""

import re
from typing import Any

from memhpfs.errors import BadText
from memhpfs.kernel.notify import GOING_OFFLINE, GOING_ONLINE, inject
from memhpfs.kernel.state import Kernel
from memhpfs.parse import kstrtoull
from memhpfs.sysfs.attr import Attr, Dir

__all__ = ["DEBUG_DIR"]


def _action_dir(action: str) -> Dir:
    def show(kernel: Kernel, subject: Any) -> str:
        return f"{-kernel.notifier.inject[action]}\n"

    def store(kernel: Kernel, subject: Any, text: str) -> None:
        """A negative errno; what is out of range is clamped.  Linux: debugfs_errno_set."""
        match = re.fullmatch(r"\s*(-?)(.*)", text, re.DOTALL)
        if match is None:
            raise BadText(f"{text!r} is not a number")
        number = kstrtoull(match[2])
        inject(kernel, action, -number if match[1] else number)

    return Dir(action, (Attr("error", 0o600, show, store, "fops_errno", size=0, kernfs=False),))


DEBUG_DIR = Dir("debug", (
    Dir("notifier-error-inject", (
        Dir("memory", (Dir("actions", (_action_dir(GOING_ONLINE), _action_dir(GOING_OFFLINE))),)),
    )),
), mode=0o700)
