"""Running a command in a private machine, as its caller sees it: plans, the registry, exit codes.

Exit codes: the command's own (128 plus the signal for a killed one), 125 when the machine cannot be built.
"""

import logging
import os
import shlex
from collections.abc import Callable, Sequence
from typing import NoReturn

from attrs import evolve

from memhpfs.errors import UserError
from memhpfs.host import registry
from memhpfs.host.complain import complain
from memhpfs.host.daemon import ServeOptions, serve
from memhpfs.host.inside import Inside, exec_command, qmp_inside, working_directory
from memhpfs.host.namespaces import PLANS, CannotBuild, exit_code_of, fork_forwarding, run_child, spawn, why_forbidden
from memhpfs.host.qmp_server import claim
from memhpfs.host.syscalls import NAMESPACES, NEWUSER, die_with_parent, enter
from memhpfs.host.udevd import UdevOptions
from memhpfs.machine.description import Machine

__all__ = ["exec_in", "run_machine"]

_EXIT_CANNOT = 125

_log = logging.getLogger(__name__)


def run_machine(
    machine: Machine, command: Sequence[str], options: ServeOptions, *, proc: bool, udev: UdevOptions | None,
    on_built: Callable[[str], None], detached: bool = False,
) -> int:
    """Run a command in a machine of its own; its exit code.

    Args:
        command: program and arguments; none: the user's shell.
        proc: whether the machine's /proc files cover the real ones.
        udev: how to run a udevd inside, or None.
        on_built: told the machine's name before the command is started.
        detached: the machine gets none of the caller's streams; without a command it goes on until it is stopped.

    Raises:
        UserError: exit code 125: the machine cannot be built; 2: the udev rules cannot be used.
    """
    import trio

    if options.qmp:
        _check_socket(options.qmp)
    files = registry.Files(options.qmp)

    def daemon(mountpoint: str, ready: Callable[[], None]) -> None:
        inner = evolve(options, qmp=qmp_inside(files.socket), on_ready=ready, registered=False)
        trio.run(serve, machine, mountpoint, inner)

    if detached and not command:
        command = ("sleep", "infinity")

    def report(pid: int) -> str:
        what = shlex.join(command or [os.environ.get("SHELL", "")])
        name = registry.write_entry("run", machine.name, what, files.socket, pid=pid).name
        on_built(name)
        return name

    try:
        return _first_that_works(Inside(command, daemon, files.socket, proc, udev), report, files, detached=detached)
    finally:
        files.remove()


def _check_socket(path: str) -> None:
    """See that the caller's socket can be made, before anything else is.

    Raises:
        UserError: it cannot.
    """
    if not os.path.isdir(os.path.dirname(path)):
        raise UserError(f"{path}: no such directory", 2)
    try:
        claim(path)
    except UserError as error:
        raise UserError(str(error), _EXIT_CANNOT) from None


def _first_that_works(inside: Inside, report: Callable[[int], str], files: registry.Files, *, detached: bool) -> int:
    """Try the plans in order.

    Raises:
        UserError: none of them works.
    """
    failed: dict[str, CannotBuild] = {}
    for plan in PLANS:
        # Where no user namespace owns the network, udevd would hear the uevents of the host and act on its devices.
        hears_host = not plan.flags & NEWUSER
        if (plan.needs_root and os.geteuid() != 0) or (hears_host and inside.udev is not None):
            continue
        try:
            return spawn(plan, inside, report, files, detached=detached)
        except CannotBuild as error:
            _log.info("%s: %s", plan.name, error)
            failed.setdefault(str(error), error)
    hint = f": {why_forbidden()}" if any(error.forbidden for error in failed.values()) else ""
    raise UserError(f"the machine cannot be built: {', then '.join(failed)}{hint}", _EXIT_CANNOT)


def exec_in(name: str, command: Sequence[str]) -> int:
    """Run another command in a running machine; its exit code.

    Args:
        name: the machine's name or pid.

    Raises:
        UserError: no such machine, or it cannot be entered.
    """
    entry = registry.named(name, "run", _EXIT_CANNOT)
    caller = os.getpid()
    child = fork_forwarding(lambda: _enter(entry, command, caller))
    return exit_code_of(os.waitpid(child, 0)[1])


def _enter(entry: registry.Entry, command: Sequence[str], caller: int) -> int:
    """Enter the namespaces of a machine, and run the command in its process namespace; its exit code."""
    where = working_directory()

    def main() -> NoReturn:
        die_with_parent()
        exec_command(command, where, entry.qmp, entry.name)

    try:
        same_user = os.stat(f"/proc/{entry.pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
        enter(entry.pid, NAMESPACES & ~NEWUSER if same_user else NAMESPACES)
    except OSError as error:
        complain(f"the machine {entry.name} cannot be entered: {error.strerror}")
        return _EXIT_CANNOT
    return run_child(main, caller)
