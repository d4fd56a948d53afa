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
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext

import trio
from attrs import define, frozen

from memhpfs.errors import SysError, UserError
from memhpfs.host import registry
from memhpfs.host.driver import Driver
from memhpfs.host.fuse import Requests
from memhpfs.host.interrupt import Interrupts
from memhpfs.host.invalidate import Invalidator
from memhpfs.host.loop import serve_requests
from memhpfs.host.mountpoint import allow_other, check_fuse, mounted, prepare
from memhpfs.host.netlink import UeventSocket
from memhpfs.host.qmp_server import QmpServer
from memhpfs.kernel.boot import boot
from memhpfs.kernel.pause import run_now
from memhpfs.machine.description import Machine
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware
from memhpfs.sysfs.tree import Tree

__all__ = ["ServeOptions", "notify_ready", "serve"]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How long the end waits for stale names to be dropped, in seconds.
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
        on_ready: called when the tree is usable.
    """

    qmp: str | None = None
    uevents: bool = False
    allow_other: bool | None = None
    loop: str = "poll"
    verbose: int = 0
    on_ready: Callable[[], None] | None = None


async def serve(machine: Machine, mountpoint: str, options: ServeOptions) -> None:
    """Serve a machine until SIGINT, SIGTERM, SIGHUP, `quit`, an unmount from outside, or cancellation.

    Raises:
        UserError: something is not as it must be; nothing is left behind.
    """
    check_fuse()
    others = allow_other(options.allow_other)
    path = prepare(mountpoint)
    with closing(UeventSocket()) if options.uevents else nullcontext() as uevents:
        hardware, driver = _switch_on(machine)
        driver.uevents = uevents
        interrupts = Interrupts(verbose=options.verbose > 1)
        gc.collect()
        gc.freeze()
        try:
            await _Serving(machine, path, options, hardware, driver, interrupts, others).run()
        finally:
            if driver.tainted:
                _log.warning("the machine was tainted by %d bugs in memhpfs, first: %s", len(driver.tainted), driver.tainted[0])


def _switch_on(machine: Machine) -> tuple[Hardware, Driver]:
    """Boot the kernel, with the DIMMs that are there from the start."""
    kernel = boot(machine.spec)
    hardware = Hardware(
        kernel, slots=machine.slots, ram_bytes=machine.ram_bytes, maxmem_bytes=machine.maxmem_bytes,
        hotplug_base=machine.hotplug_base, name=machine.name,
    )
    driver = Driver(kernel, Tree(kernel, time.time_ns), work=hardware.work)
    for dimm in machine.dimms:
        try:
            run_now(hardware.plug(dimm.id, dimm.size_bytes, dimm.node_id))
        except (QmpError, SysError) as error:
            raise UserError(f"machine {machine.name}: DIMM {dimm.id}: {error}", exit_code=2) from None
    driver.flush()
    return hardware, driver
