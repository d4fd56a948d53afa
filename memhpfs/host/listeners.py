"""How full the buffers of those are who listen to uevents.

The kernel drops a uevent for a listener whose buffer is full.  Linux's own udevd has a buffer of 128 MiB, but inside a
user namespace nobody may have more than net.core.rmem_max: by default that is room for 500 uevents.  So whoever sends
thousands at once looks here whether the listeners keep up.
Must not: waiting (netlink.py).
Source: sock_diag(7), netlink_diag_req, netlink_diag_msg (include/uapi/linux/netlink_diag.h).
"""

import errno
import socket
import struct
from collections.abc import Iterator

__all__ = ["crowded"]

_NETLINK_SOCK_DIAG, _NETLINK_KOBJECT_UEVENT = 4, 15
_SOCK_DIAG_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_REQUEST_DUMP = 0x301
_SHOW_MEMINFO, _SHOW_GROUPS = 1, 2
_MEMINFO, _GROUPS = 0, 1
_KERNEL_GROUP = 1
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBHIIII")
#: Ends with the inode number of the socket.
_LISTENER = struct.Struct("=4B4I2I")
_ATTRIBUTE = struct.Struct("=HH")


def crowded() -> frozenset[int]:
    """The listeners in this network namespace whose buffers are half full or more, by the inodes of their sockets.

    Empty where the kernel does not tell (CONFIG_NETLINK_DIAG).
    """
    query = _QUERY.pack(socket.AF_NETLINK, _NETLINK_KOBJECT_UEVENT, 0, 0, _SHOW_MEMINFO | _SHOW_GROUPS, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as diag:
            diag.sendto(header + query, (0, 0))
            return frozenset(_half_full(diag))
    except OSError:
        return frozenset()


def _half_full(diag: socket.socket) -> Iterator[int]:
    """Read the answer."""
    while True:
        data = diag.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _ERROR:
                raise OSError(errno.ENOENT, "no answer")
            if kind == _DONE:
                return
            inode = _LISTENER.unpack_from(data, _HEADER.size)[7]
            found = dict(_attributes(data[_HEADER.size + _LISTENER.size:length]))
            if _KERNEL_GROUP & int.from_bytes(found.get(_GROUPS, b"")[:1]):
                used, size = struct.unpack_from("=II", found[_MEMINFO])
                if used * 2 >= size:
                    yield inode
            data = data[_aligned(length):]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size:length]
        data = data[_aligned(length):]


def _aligned(length: int) -> int:
    return length + 3 & ~3
