"""Faults on demand: make online, offline, add or remove fail with a chosen errno.

A fault of `online` or `offline` acts where a memory notifier would veto, so everything is rolled back as then.
"""

from memhpfs.errors import AlreadyExists, NoSuchDevice, Vetoed
from memhpfs.kernel.state import Fault, Kernel

__all__ = ["OPERATIONS", "add_fault", "delete_fault", "strike"]

OPERATIONS = ("online", "offline", "add", "remove")


def add_fault(kernel: Kernel, fault: Fault) -> None:
    """Let a fault act from now on.

    Raises:
        AlreadyExists: its name is taken.
    """
    if fault.name in kernel.faults:
        raise AlreadyExists(f"fault {fault.name!r} exists already")
    kernel.faults[fault.name] = fault


def delete_fault(kernel: Kernel, name: str) -> None:
    """Take a fault back.

    Raises:
        NoSuchDevice: no such fault.
    """
    if kernel.faults.pop(name, None) is None:
        raise NoSuchDevice(f"fault {name!r} does not exist")


def strike(kernel: Kernel, operation: str, block_ids: range) -> None:
    """Fail if a fault is waiting for this; a counted fault is used up one by one.

    Args:
        operation: one of OPERATIONS.
        block_ids: the blocks it is about.

    Raises:
        Vetoed: with the fault's errno.
    """
    for fault in list(kernel.faults.values()):
        if fault.operation == operation and (fault.block_id is None or fault.block_id in block_ids):
            if fault.count is not None:
                fault.count -= 1
                if not fault.count:
                    del kernel.faults[fault.name]
            raise Vetoed(fault.errno, "notifier failure" if operation in ("online", "offline") else "injected fault")
