"""QMP's errors: a class that programs look at, and a description for people."""

__all__ = ["QmpError"]


class QmpError(Exception):
    """A refused command.

    Args:
        desc: the description, in QEMU's words where QEMU has the case.
        kind: QEMU's error class: GenericError, CommandNotFound or DeviceNotFound.
    """

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc = desc
        self.kind = kind
