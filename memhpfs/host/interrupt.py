"""Signals to a waiting writer: how the daemon learns of them although pyfuse3 does not tell.

Lives here: libfuse's debug log, read for FUSE_INTERRUPT and for the number of the request being handled.
Must not: what follows from a signal (caller.py, driver.py).

With `-o debug` libfuse logs each request before its handler runs, and each FUSE_INTERRUPT with the number of the
request that it is about.  To take these lines in Python costs every request 10 to 20 %.  So a C function that does
nothing gets them, and Python gets them only while some descriptor is open for writing; nobody else can be interrupted.
Invariant: the last request logged is the one whose handler starts; both happen on one thread with nothing in between.
Source: fuse_session_process_buf_int, do_interrupt (lib/fuse_lowlevel.c of libfuse 3.7 to 3.18).
"""

import ctypes
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memhpfs.host.caller import Caller

__all__ = ["Interrupts"]

_log = logging.getLogger("libfuse")
_LINE_BYTES = 512
_DEBUG, _INIT = 7, 26
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_REQUEST = re.compile(rb"unique: (\d+), opcode: \S+ \((\d+)\).* pid: (\d+)")
_INTERRUPT = re.compile(rb"INTERRUPT: (\d+)")


class Interrupts:
    """The signals of waiting callers.  Make it before the mount, and give `options` to it.

    Args:
        verbose: pass everything libfuse logs on to the log.

    Attributes:
        options: mount options that it needs.
        complaints: what libfuse logged until the file system was ready.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self.options: frozenset[str] = frozenset()
        self.complaints: list[str] = []
        self._verbose = verbose
        self._writers = 0
        self._callers: dict[int, Caller] = {}
        self._takers: dict[int, Callable[[int, int], None] | None] = {}
        self._request = ctypes.create_string_buffer(_LINE_BYTES)
        self._line = ctypes.create_string_buffer(_LINE_BYTES)
        self._libc = ctypes.CDLL(None)
        self._libc.vsnprintf.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
        self._set_function: Any = None
        path = _loaded_library("libfuse3")
        if path is not None:
            library = ctypes.CDLL(path)
            self._set_function = library.fuse_set_log_func
            self._set_function.argtypes, self._set_function.restype = [ctypes.c_void_p], None
            self._python = _FUNCTION(self._take)
            self._on = ctypes.cast(self._python, ctypes.c_void_p)
            # A function without arguments and effects.
            self._off = self._on if verbose else ctypes.cast(library.fuse_version, ctypes.c_void_p)
            self._set_function(self._on)
            self.options = frozenset({"debug"})

    def ready(self) -> None:
        """Check, while the kernel's first request is being handled, that libfuse logs as expected; stop listening."""
        found = _REQUEST.search(self._request.value)
        if found is None or int(found[2]) != _INIT:
            _log.info("libfuse does not log requests as expected; signals are looked for in /proc")
            self.options = frozenset()
        if self._set_function is not None:
            self._set_function(self._off)

    def opened(self) -> None:
        """A descriptor was opened for writing."""
        self._writers += 1
        if self._writers == 1 and self.options:
            self._set_function(self._on)

    def closed(self) -> None:
        """A descriptor that was open for writing was closed."""
        self._writers -= 1
        if self._writers == 0 and self.options:
            self._set_function(self._off)

    @contextmanager
    def caller(self, opener: int) -> Iterator[Caller]:
        """Who waits for the request being handled.  Enter it before the handler first waits.

        Args:
            opener: the thread that opened the descriptor, for want of the one that made the request.
        """
        found = _REQUEST.search(self._request.value) if self.options else None
        if found is None:
            yield Caller(opener, watched=True)
            return
        number = int(found[1])
        self._callers[number] = caller = Caller(int(found[3]))
        try:
            yield caller
        finally:
            del self._callers[number]

    def _take(self, level: int, form: int, values: int) -> None:
        """Take a line: `form` is a string literal of libfuse, so its address tells what kind of line it is."""
        try:
            taker = self._takers[form]
        except KeyError:
            taker = self._takers[form] = self._taker(level, ctypes.string_at(form))
        if taker is not None:
            taker(form, values)

    def _taker(self, level: int, form: bytes) -> Callable[[int, int], None] | None:
        if b"unique: %llu, opcode" in form:
            return self._take_request
        if form.startswith(b"INTERRUPT"):
            return self._take_interrupt
        if level < _DEBUG:
            return self._take_complaint
        return self._take_other if self._verbose else None

    def _take_request(self, form: int, values: int) -> None:
        self._libc.vsnprintf(self._request, _LINE_BYTES, form, values)
        if self._verbose:
            _log.debug("%s", self._request.value.decode(errors="replace").rstrip())

    def _take_interrupt(self, form: int, values: int) -> None:
        found = _INTERRUPT.search(self._format(form, values))
        caller = self._callers.get(int(found[1])) if found else None
        if caller is not None:
            caller.signal()

    def _take_complaint(self, form: int, values: int) -> None:
        text = self._format(form, values).decode(errors="replace").strip()
        self.complaints.append(text)
        _log.warning("%s", text)

    def _take_other(self, form: int, values: int) -> None:
        _log.debug("%s", self._format(form, values).decode(errors="replace").strip())

    def _format(self, form: int, values: int) -> bytes:
        self._libc.vsnprintf(self._line, _LINE_BYTES, form, values)
        return self._line.value


def _loaded_library(name: str) -> str | None:
    """Path of a shared library that this process has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if "/" in path and Path(path).name.startswith(name):
            return path
    return None
