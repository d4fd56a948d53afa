"""A line on stderr, from any of the processes of a machine."""

import contextlib
import sys

__all__ = ["complain"]


def complain(text: str) -> None:
    """Write a line for people to stderr, if somebody reads it."""
    with contextlib.suppress(OSError):
        print(f"memhpfs: {text}", file=sys.stderr, flush=True)
