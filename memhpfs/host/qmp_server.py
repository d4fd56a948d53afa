"""The QMP socket: several clients at once, each with a session of its own.

Lives here: the socket, lines, time stamps, queues.  Must not: what a command does (qmp/).

    server = QmpServer(hardware, wake, on_quit, on_bug)
    await nursery.start(server.serve, path)       # listening
    server.announce()                             # whenever hardware.events may have grown
    server.kernel_log(seconds, level, text)       # for each line of the kernel's log

`wake` is called after each command, since it may have left work for the guest; `on_quit` when whoever said `quit` has
the answer or is gone, `on_bug` when a command raises what it should not.
"""

import contextlib
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from memhpfs.errors import UserError
from memhpfs.qmp.hardware import Event, Hardware
from memhpfs.qmp.session import Session

__all__ = ["QmpServer", "claim", "listen"]

#: Events and answers that a client may leave unread before it is cut off.
_QUEUE_LENGTH = 65536
_CHUNK = 65536
#: Longest path of a unix socket.
_MAX_PATH = 107

_log = logging.getLogger(__name__)


def listen(path: str) -> trio.SocketListener:
    """A listening unix socket that only its owner may use; one that a dead machine left behind is replaced.

    Raises:
        UserError: the path cannot be used, with the reason.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim(path)
        # The umask makes the socket private from the moment it exists.
        mask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(16)
    except OSError as error:
        sock.close()
        raise UserError(f"{path}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def claim(path: str) -> None:
    """See that a socket can be made at a path, and remove one there that nobody listens on.

    Raises:
        UserError: the path is too long, something there is no socket, or somebody listens.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise UserError(f"{path}: a socket's path may have {_MAX_PATH} bytes", exit_code=2)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise UserError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise UserError(f"{path}: another machine listens there")


@define(eq=False)
class QmpServer:
    """The server of one machine's hardware.

    Attributes:
        wake: called after each command.
        on_quit: called once a client's `quit` is answered, or that client is gone.
        on_bug: called with a mistake of our own, of which the client hears, and the server goes on.
    """

    hardware: Hardware
    wake: Callable[[], None]
    on_quit: Callable[[], None]
    on_bug: Callable[[str, Exception], None]
    _clients: "dict[Session, trio.MemorySendChannel[Event]]" = field(factory=dict, init=False)
    _next_line: int = field(default=0, init=False)
    _quitter: Session | None = field(default=None, init=False)

    async def serve(
        self, path: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen at a path until cancelled; the socket is removed at the end.

        Raises:
            UserError: the path cannot be used.
        """
        listener = listen(path)
        try:
            task_status.started()
            await trio.serve_listeners(self._client, [listener])
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def announce(self) -> None:
        """Send the hardware's new events to all clients that have negotiated."""
        while self.hardware.events:
            self._broadcast(self.hardware.events.popleft())

    def kernel_log(self, seconds: float, level: str, text: str) -> None:
        """Keep a line of the kernel's log, and send it to all clients that have negotiated."""
        line = {"seq": self._next_line, "seconds": round(seconds, 6), "level": level, "text": text}
        self._next_line += 1
        self.hardware.kernel_log.append(line)
        self._broadcast({"event": "X_KERNEL_LOG", "data": line})

    def _broadcast(self, event: Event) -> None:
        now = time.time()
        event["timestamp"] = {"seconds": int(now), "microseconds": int(now % 1 * 1_000_000)}
        for session, queue in list(self._clients.items()):
            if session.negotiated:
                self._put(session, queue, event)

    def _put(self, session: Session, queue: "trio.MemorySendChannel[Event]", what: dict[str, Any]) -> None:
        """Queue something for a client; one that does not read is cut off rather than waited for."""
        try:
            queue.send_nowait(what)
        except trio.WouldBlock:
            _log.warning("a QMP client does not read; it is cut off")
            self._clients.pop(session, None)
            queue.close()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            self._clients.pop(session, None)

    async def _client(self, stream: trio.SocketStream) -> None:
        session = Session(self.hardware, self.on_bug)
        send, receive = trio.open_memory_channel[Event](_QUEUE_LENGTH)
        self._clients[session] = send
        try:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream, receive, nursery.cancel_scope)
                self._put(session, send, session.greeting())
                await self._read(stream, session, send)
                send.close()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._clients.pop(session, None)
            if session is self._quitter:
                self.on_quit()

    async def _read(self, stream: trio.SocketStream, session: Session, queue: "trio.MemorySendChannel[Event]") -> None:
        while not session.overrun and (data := await stream.receive_some(_CHUNK)):
            for reply in session.feed(data):
                self._put(session, queue, reply)
                self.announce()
                self.wake()
                if self.hardware.quitting and self._quitter is None:
                    self._quitter = session
                    return

    async def _write(
        self, stream: trio.SocketStream, queue: "trio.MemoryReceiveChannel[Event]", client: trio.CancelScope
    ) -> None:
        """Send what is queued until the queue is closed, then end the client."""
        async with queue:
            async for what in queue:
                await stream.send_all(json.dumps(what).encode() + b"\r\n")
        client.cancel()
