"""The records that declare files: a file is a row, a directory is rows.

Lives here: Attr, Link, Dir, and the conditions under which a row exists.  Must not: any particular file.
A row's methods take the kernel and the subject of its directory (a block, a node, or the kernel itself).
"""

from collections.abc import Callable
from typing import Any

from attrs import frozen

from memhpfs.kernel.features import Features
from memhpfs.kernel.pause import Op
from memhpfs.kernel.state import Kernel

__all__ = ["PAGE", "Attr", "Dir", "Link", "Row", "Show", "Store", "always", "has"]

#: Size that stat tells for a text attribute, and the most that one write takes.
PAGE = 4096

Show = Callable[[Kernel, Any], "str | Op[str]"]
Store = Callable[[Kernel, Any, str], "Op[None] | None"]
When = Callable[[Features], bool]


def always(features: Features) -> bool:
    """The row exists in every kernel."""
    return True


def has(*names: str) -> When:
    """The row exists where the kernel has all of these features."""
    return lambda features: all(getattr(features, name) for name in names)


@frozen
class Attr:
    """A file.

    Attributes:
        name: file name.
        mode: permission bits.
        show: makes the text, or an Op where reading may sleep; None: reading fails with EIO even after chmod.
        store: takes the text of one write up to the first NUL; returns an Op where it may sleep; None: EIO.
        counted: the store gets all that was written, NULs too, since the kernel's goes by the count.
        source: kernel function or transcript that the behaviour comes from.
        when: whether this kernel has the file.
        size: what stat tells.
        kernfs: whether open makes the second check that root cannot bypass.
        binary: a binary attribute: no write method at all, and its own rules for reading.
    """

    name: str
    mode: int
    show: Show | None = None
    store: Store | None = None
    source: str = ""
    when: When = always
    size: int = PAGE
    kernfs: bool = True
    binary: bool = False
    counted: bool = False


@frozen
class Link:
    """A symbolic link; `target` makes the relative path."""

    name: str
    target: Callable[[Kernel, Any], str]
    source: str = ""
    when: When = always
    exists: Callable[[Kernel, Any], bool] | None = None


@frozen
class Dir:
    """A directory.

    Attributes:
        name: directory name.
        rows: what is always in it.
        holds: what comes and goes in it: "blocks", "nodes", "block-links", "node-links",
            "memory-bus", "node-bus" or "".
        mode: permission bits.
    """

    name: str
    rows: "tuple[Row, ...]" = ()
    holds: str = ""
    mode: int = 0o755
    when: When = always


Row = Attr | Link | Dir
