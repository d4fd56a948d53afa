"""Uevents: sent to the kernel, which broadcasts them as its own in this network namespace.

Lives here: the socket, the format, the pace, and the guard that keeps fake events from the host's udev.  Must not:
which device has which path (sysfs/uevent.py), how full a buffer is (listeners.py).

Linux lets a process with CAP_SYS_ADMIN over a network namespace send to NETLINK_KOBJECT_UEVENT: one message with a
netlink header to port 0, group 0; the kernel strips the header, appends SEQNUM and multicasts to group 1.  A listener
whose buffer is full loses the event, so when many are sent at once they wait for listeners to read on; but not long,
since a listener may be stopped, or wait for an answer of the machine.
Source: uevent_net_rcv_skb, uevent_net_broadcast (lib/kobject_uevent.c), Linux 4.18.
"""

import errno
import logging
import os
import socket
import struct
from collections import deque

import trio

from memhpfs.errors import UserError
from memhpfs.host.listeners import crowded

__all__ = ["MAX_TEXT", "UeventSocket", "in_host_network"]

#: Longest text in bytes; with the header and SEQNUM it stays below UEVENT_BUFFER_SIZE, 2048.
MAX_TEXT = 2000

#: What may be sent without a look at the listeners, in bytes of their buffers; the usual buffer has four times as much.
_UNSEEN = 48 << 10
#: What a uevent takes of a buffer beside its text.
_OVERHEAD = 1024
#: How long a full listener is waited for, and how often it is looked at meanwhile, in seconds.
_PATIENCE_S, _TICK_S = 1.0, 0.001
_NETLINK_KOBJECT_UEVENT = 15
#: Types below 16 are control messages, which the kernel drops.
_TYPE = 0x10
_REQUEST, _ACK = 1, 4
_HEADER = struct.Struct("=IHHII")
#: inode number of the initial PID namespace, fixed by the kernel (PROC_PID_INIT_INO).
_INITIAL_PIDS = "pid:[4026531836]"

_log = logging.getLogger(__name__)


def in_host_network() -> bool:
    """Whether this process is in the network namespace of the host's init, where the host's udev listens.

    It is where /proc/1 says so, as long as process 1 is the host's and may be looked at.  Inside a container process 1
    is another one, and a plain user may not look; there the kernel's own mark decides: some settings of net.core exist
    only in the initial network namespace.
    """
    if os.path.exists("/proc/sys/net/core/dev_weight"):
        return True
    try:
        own, init = os.readlink("/proc/self/ns/net"), os.readlink("/proc/1/ns/net")
    except OSError:
        return False
    return own == init and os.readlink("/proc/self/ns/pid") == _INITIAL_PIDS


class UeventSocket:
    """Sends uevents in the network namespace where it is made.

    Raises:
        UserError: this is the host's network namespace, or the caller may not send.
    """

    def __init__(self) -> None:
        if in_host_network():
            raise UserError(
                "--uevents would reach the udev of the host: start memhpfs in a network namespace of its own "
                "(unshare -n, ip netns exec, or memhpfs run)"
            )
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT)
        self._socket.bind((0, 0))
        self._socket.setblocking(False)
        self._sequence = 0
        self._unseen = 0
        self._queue: deque[bytes] = deque()
        self._given_up: frozenset[int] = frozenset()
        self._work = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()
        self._check_permission()

    @property
    def settled(self) -> bool:
        """Whether all uevents are out."""
        return not self._queue

    async def settle(self) -> None:
        """Wait until all uevents are out."""
        while self._queue:
            await self._idle.park()

    async def run(self) -> None:
        """Send what has to wait for listeners, until cancelled."""
        while True:
            while not self._queue:
                self._idle.unpark_all()
                await self._work.park()
            await self._wait_for_room()
            while self._queue and self._unseen < _UNSEEN:
                self._broadcast(self._queue.popleft())

    def send(self, action: str, devpath: str, subsystem: str, extra: tuple[str, ...] = ()) -> None:
        """Send one uevent, or let it wait; `extra` are KEY=VALUE pairs that stand before SEQNUM.  Never raises."""
        text = uevent_text(action, devpath, subsystem, extra)
        if len(text) > MAX_TEXT:
            _log.warning("uevent %s@%s not sent: %d bytes are more than %d", action, devpath, len(text), MAX_TEXT)
            return
        if self._queue or (self._unseen >= _UNSEEN and not self._room()):
            self._queue.append(text)
            self._work.unpark_all()
        else:
            self._broadcast(text)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _room(self) -> bool:
        """Whether all listeners have room, but for those that did not make any in time."""
        full = crowded()
        self._given_up &= full
        if full - self._given_up:
            return False
        self._unseen = 0
        return True

    async def _wait_for_room(self) -> None:
        deadline = trio.current_time() + _PATIENCE_S
        while not self._room():
            if trio.current_time() > deadline:
                self._given_up = crowded()
            await trio.sleep(_TICK_S)

    def _broadcast(self, text: bytes) -> None:
        self._unseen += len(text) + _OVERHEAD
        try:
            self._send(text, _REQUEST)
        except OSError as error:
            _log.warning("uevent %s not sent: %s", text.partition(b"\0")[0].decode(), error.strerror)

    def _send(self, text: bytes, flags: int) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(text), _TYPE, flags, self._sequence, 0)
        self._socket.sendto(header + text, (0, 0))

    def _check_permission(self) -> None:
        """Send what is too long to be broadcast: the kernel looks at the permission first, and acknowledges."""
        self._send(bytes(2048), _REQUEST | _ACK)
        answer = self._socket.recv(4096)
        (refusal,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -refusal == errno.EPERM:
            raise UserError(
                "--uevents needs CAP_SYS_ADMIN over the network namespace: start memhpfs as root, "
                "or in namespaces of its own (unshare -Urn, or memhpfs run)"
            )


def uevent_text(action: str, devpath: str, subsystem: str, extra: tuple[str, ...] = ()) -> bytes:
    """The message as the kernel writes it, without SEQNUM; every string ends with NUL."""
    lines = (f"{action}@{devpath}", f"ACTION={action}", f"DEVPATH={devpath}", f"SUBSYSTEM={subsystem}", *extra)
    return "".join(f"{line}\0" for line in lines).encode()
