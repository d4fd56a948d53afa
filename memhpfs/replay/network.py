"""A network namespace of one's own, and the uevents that are heard there.

Uevents reach every listener of a network namespace; in one that nobody else is in, they are those of one machine.
"""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["private_network", "received", "uevent_socket"]

_CLONE_NEWNET = 0x40000000
_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_SO_RCVBUFFORCE = 33
#: Room for the uevents of one step on the largest machines.
_BUFFER_BYTES = 32 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def private_network() -> Iterator[None]:
    """Be in a new network namespace for a while; sockets and processes made meanwhile stay in it.

    Raises:
        OSError: EPERM without the capability for it.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_LIBC.unshare(_CLONE_NEWNET))
        try:
            yield
        finally:
            _checked(_LIBC.setns(home, _CLONE_NEWNET))
    finally:
        os.close(home)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def uevent_socket() -> socket.socket:
    """A socket that hears the kernel's uevents in the network namespace of the caller, without waiting."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    sock.bind((0, _KERNEL_GROUP))
    sock.setblocking(False)
    return sock


def received(sock: socket.socket) -> Iterator[dict[str, str]]:
    """The uevents that have come, without their sequence numbers."""
    while True:
        try:
            _, *pairs = sock.recv(1 << 16).split(b"\0")
        except BlockingIOError:
            return
        found = dict(pair.decode().split("=", 1) for pair in pairs if pair)
        found.pop("SEQNUM", None)
        yield found
