"""A stream of bytes, cut into JSON texts: one ends with its last bracket, whether or not a new line begins then.

Source: QEMU's qobject/json-streamer.c; clients like qemu.qmp send no line feeds.
"""

import re
from collections.abc import Iterator

from attrs import define, field

__all__ = ["Frames"]

_MARK = re.compile(rb"""[\\"'{}\[\]\s]""")
_QUOTES, _OPENING, _CLOSING = b"\"'", b"{[", b"}]"


@define(eq=False)
class Frames:
    """What one client sends.

    Attributes:
        depth: brackets that are open.
    """

    depth: int = 0
    _buffer: bytearray = field(factory=bytearray, init=False)
    _at: int = field(default=0, init=False)
    _quote: bytes = field(default=b"", init=False)

    @property
    def pending_bytes(self) -> int:
        """How long the text is that has not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Texts that end with these bytes.  Outside of brackets white space ends one, and so does a broken string."""
        self._buffer += data
        while (mark := _MARK.search(self._buffer, self._at)) is not None:
            self._at = mark.end()
            if self._ends(mark[0]):
                text = bytes(self._buffer[:self._at])
                del self._buffer[:self._at]
                self.depth, self._at, self._quote = 0, 0, b""
                if text.strip():
                    yield text
        self._at = max(self._at, len(self._buffer))

    def _ends(self, mark: bytes) -> bool:
        """Whether the text ends with a mark."""
        if self._quote:
            if mark == b"\\":
                # Whatever comes next is no mark, also when it is not here yet.
                self._at += 1
            elif mark == self._quote:
                self._quote = b""
                return not self.depth
            return mark == b"\n"
        if mark in _QUOTES:
            self._quote = mark
        elif mark in _OPENING:
            self.depth += 1
        elif mark in _CLOSING:
            self.depth -= 1
        return self.depth <= 0 and not self._quote
