"""A small blocking QMP client for the command line.

    with Client.connect(path) as client:
        client.execute("device_del", id="d0")
        event = client.wait_for(lambda event: event["event"] == "DEVICE_DELETED")
"""

import json
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from memhpfs.errors import UserError

__all__ = ["Client", "CommandError"]

Event = dict[str, Any]


class CommandError(UserError):
    """The machine refused a command; the text is its own."""

    def __init__(self, desc: str, kind: str) -> None:
        super().__init__(desc)
        self.kind = kind


class Client:
    """One connection; made with `connect`."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self._sock = sock
        self._path = path
        self._file = sock.makefile("rb")
        self._events: deque[Event] = deque()

    @classmethod
    def connect(cls, path: str, timeout_s: float = 10.0) -> "Client":
        """Connect and negotiate.

        Raises:
            UserError: nobody answers there.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise UserError(f"no machine answers at {path}: {error.strerror or error}") from None
        client = cls(sock, path)
        greeting = client._receive()
        if "QMP" not in greeting:
            raise UserError(f"{path}: not a QMP socket")
        client.execute("qmp_capabilities")
        return client

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._sock.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command; its result.  `_` in argument names becomes `-`.

        Raises:
            CommandError: refused, in the machine's words.
            UserError: the connection broke.
        """
        request = {"execute": command, "arguments": {name.replace("_", "-"): v for name, v in arguments.items()}}
        try:
            self._sock.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror}") from None
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise CommandError(answer["error"]["desc"], answer["error"]["class"])
            self._events.append(answer)

    def wait_for(self, wanted: Callable[[Event], bool], timeout_s: float | None = None) -> Event:
        """The next event that is wanted.

        Args:
            timeout_s: None: wait for ever.

        Raises:
            UserError: the machine ended, or the time is over.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for event in self.events(deadline):
            if wanted(event):
                return event
        raise UserError("the machine ended")

    def events(self, deadline: float | None = None) -> Iterator[Event]:
        """Events as they come, until the machine ends.

        Args:
            deadline: on the monotonic clock; None: none.

        Raises:
            UserError: the time is over.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            self._sock.settimeout(left)
            try:
                line = self._file.readline()
            except TimeoutError:
                raise UserError("the machine did not answer in time") from None
            except OSError:
                return
            if not line:
                return
            message = self._parse(line)
            if "event" in message:
                self._events.append(message)

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror or 'no answer in time'}") from None
        if not line:
            raise UserError(f"{self._path}: the machine ended")
        return self._parse(line)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError:
            raise UserError(f"{self._path}: not a QMP socket") from None
        return found if isinstance(found, dict) else {}
