"""How the processes that build a machine talk to the one that wants it."""

import contextlib
import errno
import socket
import struct

from attrs import define, field

from memhpfs.errors import UserError

__all__ = ["SAY", "Channel"]

#: Begins a text that is for people.
SAY = "say: "
#: What a system answers that does not allow namespaces, or mounts in them.
_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS, errno.EINVAL, errno.ENOSYS)
_CREDENTIALS = struct.Struct("3i")
_EXIT_CANNOT = 125


@define
class Channel:
    """How keeper and init talk to the caller: short texts, which arrive with the sender's pid as the caller sees it."""

    _caller: socket.socket = field(init=False)
    _inside: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._caller, self._inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._caller.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def tell(self, text: str) -> None:
        """Inside: tell the caller something; one that is gone does not hear it."""
        with contextlib.suppress(BrokenPipeError):
            self._inside.send(text.encode())

    def refuse(self, error: Exception) -> int:
        """Inside: tell the caller why the machine cannot be built; the exit code."""
        if isinstance(error, UserError) and error.exit_code == 2:
            kind = "misused"
        else:
            kind = "forbidden" if isinstance(error, OSError) and error.errno in _FORBIDDEN else "failed"
        self.tell(f"{kind}: {_say(error)}")
        return _EXIT_CANNOT

    def say(self, text: str) -> None:
        """Inside: have a line written to the caller's stderr, until the machine is built."""
        self.tell(f"{SAY}{text}")

    def wait(self) -> str:
        """Inside: wait for the caller's answer.

        Raises:
            ConnectionError: the caller is gone.
        """
        answer = self._inside.recv(4096)
        if not answer:
            raise ConnectionResetError(errno.ECONNRESET, "the caller is gone")
        return answer.decode()

    def leave_caller(self) -> None:
        """Caller, after the fork: only the others hold the inner end from now on."""
        self._inside.close()

    def enter_inside(self) -> None:
        """Inside, after the fork."""
        self._caller.close()

    def receive(self) -> tuple[str, int]:
        """Caller: the next text and its sender's pid; an empty text when everybody inside is gone."""
        data, ancillary, _, _ = self._caller.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        pid = _CREDENTIALS.unpack(ancillary[0][2])[0] if ancillary else 0
        return data.decode(), pid

    def answer(self, text: str = "go") -> None:
        """Caller: let the one that waits go on."""
        self._caller.send(text.encode())

    def close(self) -> None:
        """Caller: the talk is over."""
        self._caller.close()


def _say(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
    return str(error)
