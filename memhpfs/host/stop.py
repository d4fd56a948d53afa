"""Ending a running machine from outside."""

import os
import select
import signal

from memhpfs.host.registry import Entry

__all__ = ["stop"]

#: How long a machine may take to end by itself, and how long after it was killed, in seconds.
_PATIENCE_S = 5.0


def stop(entry: Entry) -> None:
    """End a machine: by SIGTERM to its command or its daemon, and by SIGKILL where that does not help."""
    process = os.pidfd_open(entry.pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _PATIENCE_S)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], _PATIENCE_S)
            if entry.kind == "mount":
                # Who kills a daemon of FUSE leaves its mount.
                from memhpfs.host.mountpoint import unmount_lazily

                unmount_lazily(entry.where)
    finally:
        os.close(process)
