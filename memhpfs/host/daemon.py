"""Serves one machine: puts the parts together, from boot to unmount.

Lives here: the order in which things start and stop, signals, readiness.  Must not: options' texts (cli/mount.py),
anything that a part does itself.

Order: what can be refused is refused before the mount; the QMP socket listens before the tree is usable; at the end
stale names are dropped while requests are still served, because a thread that waits for a client's directory lock would
keep the connection open for ever.
"""

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial

import trio
from attrs import frozen

from memhpfs.errors import UserError
from memhpfs.host import registry
from memhpfs.host.driver import Driver
from memhpfs.host.fuse import Requests
from memhpfs.host.interrupt import Interrupts
from memhpfs.host.invalidate import Invalidator
from memhpfs.host.loop import serve_requests
from memhpfs.host.mountpoint import allow_other, check_fuse, make_directory, mounted, prepare
from memhpfs.host.netlink import UeventSocket
from memhpfs.host.qmp_server import QmpServer
from memhpfs.machine.description import Machine
from memhpfs.qmp.hardware import Hardware
from memhpfs.qmp.power_on import power_on
from memhpfs.sysfs.tree import Tree

__all__ = ["ServeOptions", "notify_ready", "serve"]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How long the end waits for stale names to be dropped, and for others who are about to mount, in seconds.
_SETTLE_S = 1.0

_log = logging.getLogger(__name__)


@frozen
class ServeOptions:
    """How to serve a machine.

    Attributes:
        qmp: path of the QMP socket; None: where `ps` finds it.
        uevents: send uevents in this network namespace.
        allow_other: let other users in; None: where it is permitted.
        loop: "poll" or "stock", see loop.py.
        verbose: 2 logs every request.
        registered: leave word of the machine for `ps`.
        on_ready: called when the tree is usable.
    """

    qmp: str | None = None
    uevents: bool = False
    allow_other: bool | None = None
    loop: str = "poll"
    verbose: int = 0
    registered: bool = True
    on_ready: Callable[[], None] | None = None


@frozen
class _Place:
    """Where a machine is served: its name, mount point, QMP socket, and whether other users are let in."""

    name: str
    path: str
    qmp: str
    others: bool


async def serve(machine: Machine, mountpoint: str, options: ServeOptions) -> None:
    """Serve a machine until SIGINT, SIGTERM, SIGHUP, `quit`, an unmount from outside, or cancellation.

    Raises:
        UserError: something is not as it must be; nothing is left behind.
    """
    check_fuse()
    with ExitStack() as before_mount:
        if options.registered:
            before_mount.enter_context(registry.alone(registry.runtime_dir()))
        # From here on a signal ends a machine only when what there is of it can be taken back.
        with (
            trio.open_signal_receiver(*_STOP_SIGNALS) as signals,
            _directory(mountpoint, before_mount.close) if options.registered else nullcontext(),
            closing(UeventSocket()) if options.uevents else nullcontext() as uevents,
        ):
            place = _find_place(machine, mountpoint, options)
            hardware, driver = _switch_on(machine)
            # What boot made stays for good: keep the garbage collector away from it.
            gc.collect()
            gc.freeze()
            try:
                await _run(place, options, hardware, driver, uevents, signals, before_mount.close)
            except BaseExceptionGroup as group:
                raise _only_user_error(group) or group from None
            finally:
                for bug in driver.tainted:
                    _log.error("the machine was tainted: %s", bug)


@contextmanager
def _directory(mountpoint: str, let_others: Callable[[], None]) -> Iterator[None]:
    """Make the directory if it is not there, for the time of the block; one that is used then stays.

    Args:
        let_others: ends this process's turn, which it may still have when the block ends, as it takes another one then.
    """
    made = os.path.realpath(mountpoint) if make_directory(mountpoint) else None
    try:
        yield
    finally:
        if made:
            let_others()
            with suppress(OSError, UserError), registry.alone(registry.runtime_dir(), _SETTLE_S):
                os.rmdir(made)


def _find_place(machine: Machine, mountpoint: str, options: ServeOptions) -> _Place:
    """Check where the machine is to be served.

    What the daemon writes itself must not lie in the mount: it would wait for its own answer.
    """
    path = prepare(mountpoint)
    qmp = os.path.abspath(registry.socket_path() if options.qmp is None else options.qmp)
    for own in (qmp, *([str(registry.runtime_dir())] if options.registered else [])):
        if os.path.commonpath([path, os.path.realpath(own)]) == path:
            raise UserError(f"{own} lies in {mountpoint}, where the machine is to be mounted; choose another place", 2)
    return _Place(machine.name, path, qmp, allow_other(options.allow_other))


def notify_ready() -> None:
    """Tell the service manager at $NOTIFY_SOCKET that the service is up, if there is one.  See sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            _log.warning("NOTIFY_SOCKET %s: %s", address, error.strerror)


def _switch_on(machine: Machine) -> tuple[Hardware, Driver]:
    """Boot the machine.  Files belong to whoever mounts."""
    hardware = power_on(machine)
    tree = Tree(hardware.kernel, time.time_ns, uid=os.geteuid(), gid=os.getegid())
    return hardware, Driver(hardware.kernel, tree, work=hardware.work)


async def _run(
    place: _Place, options: ServeOptions, hardware: Hardware, driver: Driver, uevents: UeventSocket | None,
    signals: AsyncIterator[int], on_mount: Callable[[], None],
) -> None:
    interrupts, caches, ready = Interrupts(verbose=options.verbose > 1), Invalidator(), trio.Event()
    async with trio.open_nursery() as outer:
        stop = partial(outer.start_soon, _stop, caches, outer.cancel_scope)
        outer.start_soon(_stop_at_signal, signals, stop)
        server = QmpServer(hardware, driver.wake_guest, stop, driver.bug)
        driver.guest_idle, driver.kernel_log = server.announce, server.kernel_log
        # Nobody hears the uevents of boot; its log lines are kept.
        driver.flush()
        if uevents is not None:
            driver.uevents = uevents
            outer.start_soon(uevents.run)
        await outer.start(server.serve, place.qmp)
        requests = Requests(driver.tree, driver, interrupts, ready.set)
        with mounted(requests, place.path, interrupts, others=place.others) as descriptor:
            on_mount()
            # Whatever uses the mount ends before the mount does.
            async with trio.open_nursery() as inner:
                driver.caches = caches
                inner.start_soon(caches.run)
                inner.start_soon(driver.run_guest)
                inner.start_soon(_announce, ready, place, options)
                await serve_requests(descriptor, options.loop)
                inner.cancel_scope.cancel()
        outer.cancel_scope.cancel()


async def _announce(ready: trio.Event, place: _Place, options: ServeOptions) -> None:
    await ready.wait()
    if options.registered:
        registry.write_entry("mount", place.name, place.path, place.qmp)
    try:
        if options.on_ready is not None:
            options.on_ready()
        await trio.sleep_forever()
    finally:
        if options.registered:
            registry.withdraw()


async def _stop_at_signal(signals: AsyncIterator[int], stop: Callable[[], None]) -> None:
    async for number in signals:
        _log.info("%s: unmounting", signal.Signals(number).name)
        stop()


async def _stop(caches: Invalidator, everything: trio.CancelScope) -> None:
    with trio.move_on_after(_SETTLE_S):
        await caches.settle()
    everything.cancel()


def _only_user_error(group: BaseExceptionGroup[BaseException]) -> UserError | None:
    """The error of the caller, if a group holds nothing else."""
    mistakes, others = group.split(UserError)
    while isinstance(mistakes, BaseExceptionGroup):
        mistakes = mistakes.exceptions[0]  # type: ignore[assignment]
    return mistakes if others is None and isinstance(mistakes, UserError) else None
