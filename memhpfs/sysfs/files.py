"""An open descriptor: the buffer rules of kernfs.

A read at offset 0 makes the text anew; one that goes on where the last stopped sees the old text; any other offset
makes it anew and skips.  Each write is one store whatever its offset.  Once the device is removed, everything but the
rest of a partly read buffer answers ENODEV.
Source: kernfs_fop_read_iter, kernfs_fop_write_iter, kernfs_fop_poll (fs/kernfs/file.c), seq_read_iter (fs/seq_file.c).
"""

from collections.abc import Generator

from attrs import define, field

from memhpfs.errors import Gone, NotPermitted
from memhpfs.kernel.pause import Op
from memhpfs.sysfs.tree import Tree

__all__ = ["POLL_BASE", "POLL_NOTIFY", "OpenFile"]

#: POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, and POLLERR | POLLPRI.
POLL_BASE, POLL_NOTIFY = 0x145, 0x00A


@define(eq=False)
class OpenFile:
    """One open descriptor of a file.

    Attributes:
        tree, ino: the file.
    """

    tree: Tree
    ino: int
    _text: bytes | None = field(default=None, init=False)
    _stopped_at: int = field(default=0, init=False)

    def read(self, offset: int, size: int) -> "bytes | Op[bytes]":
        """Up to `size` bytes from `offset`; an Op where the kernel would wait for a lock.

        Raises:
            Gone: the device was removed, and nothing of an old buffer is left.
            SysError: the text cannot be made, or a binary file was read beyond its end.
        """
        if self._text is not None and offset and offset == self._stopped_at:
            if offset < len(self._text) or self.tree.exists(self.ino):
                return self._serve(self._text, offset, size)
            raise Gone()
        text = self.tree.read(self.ino)
        if isinstance(text, Generator):
            return self._later(text, offset, size)
        return self._serve(text, offset, size)

    def _later(self, op: Op[bytes], offset: int, size: int) -> Op[bytes]:
        return self._serve((yield from op), offset, size)

    def _serve(self, text: bytes, offset: int, size: int) -> bytes:
        if self.tree.is_binary(self.ino):
            return _binary(text, offset, size)
        self._text = text
        piece = text[offset:offset + size]
        self._stopped_at = offset + len(piece)
        return piece

    def write(self, data: bytes) -> "Op[int] | int":
        """One store; how many bytes were taken, or an Op that returns it.

        Raises:
            SysError: the store refused, or the device is gone.
        """
        return self.tree.write(self.ino, data)

    def poll(self) -> int:
        """The ready mask: always ready; never read, or removed, also tells POLLERR and POLLPRI."""
        unread = self._text is None or not self.tree.exists(self.ino)
        return POLL_BASE | (POLL_NOTIFY if unread else 0)


def _binary(text: bytes, offset: int, size: int) -> bytes:
    """Reading cpumap and cpulist: one byte less than asked for, and EPERM beyond the text.

    Source: bitmap_print_bitmask_to_buf with sysfs_kf_bin_read; seen on 6.18.

    Raises:
        NotPermitted: the offset lies beyond the text.
    """
    if offset > len(text):
        raise NotPermitted()
    return text[offset:offset + max(0, size - 1)]
