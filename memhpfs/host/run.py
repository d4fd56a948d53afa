"""Running a command in a private machine, as its caller sees it: plans, the registry, exit codes.

Exit codes: the command's own (128 plus the signal for a killed one), 125 when the machine cannot be built.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence

from attrs import evolve

from memhpfs.errors import UserError
from memhpfs.host import registry
from memhpfs.host.daemon import ServeOptions, serve
from memhpfs.host.inside import QMP_INSIDE, Inside, exec_command
from memhpfs.host.namespaces import PLANS, CannotBuild, exit_code_of, forward_signals, spawn, why_forbidden
from memhpfs.host.syscalls import NAMESPACES, NEWUSER, die_with_parent, enter
from memhpfs.host.udevd import UdevOptions
from memhpfs.machine.description import Machine

__all__ = ["exec_in", "run_machine"]

_EXIT_CANNOT = 125


def run_machine(
    machine: Machine, command: Sequence[str], options: ServeOptions, *, proc: bool, udev: UdevOptions | None
) -> int:
    """Run a command in a machine of its own; its exit code.

    Args:
        proc: whether the machine's /proc files cover the real ones.
        udev: how to run a udevd inside, or None.

    Raises:
        UserError: exit code 125: the machine cannot be built.
    """
    import trio

    def daemon(mountpoint: str, ready: Callable[[], None]) -> None:
        inner = evolve(options, qmp=options.qmp or QMP_INSIDE, on_ready=ready, registered=False)
        trio.run(serve, machine, mountpoint, inner)

    host_dir = str(registry.runtime_dir() / f"{os.getpid()}.d")
    os.mkdir(host_dir, 0o700)
    entry = None
    try:
        def report(pid: int) -> None:
            nonlocal entry
            entry = registry.write_entry("run", machine.name, " ".join(command), f"{host_dir}/qmp", pid=pid)

        return _first_that_works(Inside(command, daemon, host_dir, proc, udev), report)
    finally:
        if entry is not None:
            registry.withdraw(entry)
        shutil.rmtree(host_dir, ignore_errors=True)


def _first_that_works(inside: Inside, report: Callable[[int], None]) -> int:
    """Try the plans in order.

    Raises:
        UserError: none of them works.
    """
    reasons = []
    for plan in PLANS:
        if plan.needs_root and os.geteuid() != 0:
            continue
        try:
            return spawn(plan, inside, report)
        except CannotBuild as error:
            reasons.append(str(error))
    raise UserError(f"the machine cannot be built: {reasons[0]}: {why_forbidden()}", _EXIT_CANNOT)


def exec_in(name: str, command: Sequence[str]) -> int:
    """Run another command in a running machine; its exit code.

    Args:
        name: the machine's pid, or its name if only one that runs has it.

    Raises:
        UserError: no such machine, or it cannot be entered.
    """
    entry = _running(name)
    child = os.fork()
    if not child:
        _enter(entry.pid, command)
    forward_signals(child)
    return exit_code_of(os.waitpid(child, 0)[1])


def _running(name: str) -> registry.Entry:
    running = [entry for entry in registry.entries() if entry.kind == "run"]
    found = [entry for entry in running if name in (str(entry.pid), entry.machine)]
    if len(found) == 1:
        return found[0]
    choices = ", ".join(f"{entry.pid} ({entry.machine})" for entry in running) or "none"
    what = "more than one machine is called" if found else "no running machine is called"
    raise UserError(f"{what} {name!r}; running are: {choices}", _EXIT_CANNOT)


def _enter(pid: int, command: Sequence[str]) -> None:
    """Enter the namespaces of a machine, and run the command in its process namespace."""
    try:
        where = os.getcwd()
        same_user = os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
        enter(pid, NAMESPACES & ~NEWUSER if same_user else NAMESPACES)
        child = os.fork()
        if not child:
            die_with_parent()
            with contextlib.suppress(OSError):
                os.chdir(where)
            exec_command(command)
        forward_signals(child)
        os._exit(exit_code_of(os.waitpid(child, 0)[1]))
    except OSError as error:
        print(f"memhpfs: the machine {pid} cannot be entered: {error.strerror}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(_EXIT_CANNOT)


