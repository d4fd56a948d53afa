"""Linux system calls that Python does not have, as functions that raise OSError.

Source: man pages of unshare(2), mount(2), mount_setattr(2), prctl(2), setns(2), statfs(2), netdevice(7).
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct

__all__ = [
    "FUSE_SUPER_MAGIC", "NAMESPACES", "NEWIPC", "NEWNET", "NEWNS", "NEWPID", "NEWUSER", "NEWUTS", "bind", "bring_up",
    "die_with_parent", "enter", "file_system_type", "make_read_only", "make_slave", "mount", "move", "unshare",
]

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
FUSE_SUPER_MAGIC = 0x65735546

_MS_BIND, _MS_MOVE, _MS_REC, _MS_SLAVE = 0x1000, 0x2000, 0x4000, 0x80000
_PR_SET_PDEATHSIG = 1
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY, _SYS_MOUNT_SETATTR = -100, 0x8000, 1, 442

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
#: struct ifreq: a name of 16 bytes, then here the flags.
_IFREQ = struct.Struct("16sh22x")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, path: str | None = None) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", path)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones.  See unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def enter(pid: int, flags: int) -> None:
    """Enter namespaces of a process, all at once.  See setns(2)."""
    fd = os.pidfd_open(pid)
    try:
        _check(_libc.setns(fd, flags), "setns")
    finally:
        os.close(fd)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Get a signal when the parent dies.  A change of ids or of the user namespace clears it.  See prctl(2)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """Mount a file system.  See mount(2)."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() if kind else None, ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(result, f"mount {kind or source}", target)


def make_slave() -> None:
    """Let no mount made from here on reach the namespace this one came from."""
    mount("none", "/", None, _MS_SLAVE | _MS_REC)


def bind(source: str, target: str) -> None:
    """Show a file or directory, with all that is mounted below it, at another place as well."""
    _check(
        _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND | _MS_REC), None),
        f"bind {source}", target,
    )


def move(source: str, target: str) -> None:
    """Move a mount."""
    _check(
        _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_MOVE), None), "move", target
    )


def make_read_only(path: str, *, recursive: bool) -> None:
    """Let nobody write through a mount.  See mount_setattr(2)."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(_AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags), attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, "mount_setattr", path)


def bring_up(interface: str) -> None:
    """Switch a network interface of this network namespace on.  See netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        asked = _IFREQ.pack(interface.encode(), 0)
        _, flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(interface.encode(), flags | _IFF_UP))


def file_system_type(path: str) -> int:
    """f_type of statfs(2)."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), buffer), "statfs", path)
    return int(struct.unpack_from("=q", buffer.raw)[0]) & 0xFFFFFFFF
