"""`memhpfs run`: a command inside a private machine."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import click

from memhpfs.cli.choice import WordParam
from memhpfs.cli.greeting import greeting
from memhpfs.cli.mount import start_logging
from memhpfs.errors import UserError
from memhpfs.host.background import in_background
from memhpfs.machine.description import Machine
from memhpfs.machine.load import load

__all__ = ["command"]


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("-M", "--machine", "name", default="default", show_default=True, metavar="NAME|FILE",
              help="A preset's name, or a machine file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Override a top-level key of the machine file; repeatable.")
@click.option("--qmp", metavar="PATH", help="Socket of the hardware side.  Default: inside, as $MEMHPFS_QMP.")
@click.option("--uevents/--no-uevents", default=True, show_default=True, help="Send uevents inside the machine.")
@click.option("--udev", is_flag=True, help="Run a systemd-udevd inside, ready before CMD.")
@click.option("--rules", multiple=True, metavar="FILE|DIR", help="udev rules for it; repeatable.  Implies --udev.")
@click.option("--host-rules", is_flag=True, help="Let the host's own udev rules act as well.")
@click.option("--proc/--no-proc", default=True, show_default=True,
              help="Cover /proc/meminfo and its neighbours with the machine's.")
@click.option("--allow-other/--no-allow-other", default=None, help="Let other users in, as file modes say.")
@click.option("--loop", type=WordParam(["poll", "stock"]), default="poll", show_default=True,
              help="How requests are waited for.")
@click.option("-d", "--detach", is_flag=True,
              help="Return when the machine is ready, and print its name: it ends with CMD, or by `memhpfs stop`.")
@click.option("-v", "--verbose", count=True, help="Log more; twice: every request.")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
def command(
    name: str, overrides: tuple[str, ...], qmp: str | None, uevents: bool, udev: bool, rules: tuple[str, ...],
    host_rules: bool, proc: bool, allow_other: bool | None, loop: str, detach: bool, verbose: int,
    cmd: tuple[str, ...],
) -> NoReturn:
    """Run CMD (default: $SHELL) inside a private machine.

    The machine's files are at the real /sys paths, and nothing of it reaches the host.  The exit code is CMD's, or 125
    when the machine cannot be built.  With --detach CMD has no input, and what it prints is lost.

    \b
    Example:
      memhpfs run -- lsmem
      memhpfs run -M numa2 -- sh -c 'memhpfs plug d0 --size 1G --node 2 && lsmem'
      name=$(memhpfs run --detach -M tiny); memhpfs exec $name -- lsmem; memhpfs stop $name
      memhpfs run --rules my.rules -- sh -c 'memhpfs plug d0 --size 1G && udevadm settle && lsmem'
    """
    start_logging(verbose)
    machine = load(name, overrides)
    sys.stdout.flush()
    try:
        from memhpfs.host.daemon import ServeOptions
        from memhpfs.host.rules import check_rules, read_rules
        from memhpfs.host.run import run_machine
        from memhpfs.host.udevd import UdevOptions, find_udevd
    except ImportError as error:
        raise UserError(f"pyfuse3 cannot be used: {error}; install libfuse3 (package fuse3)", 125) from None
    texts = read_rules(rules)
    options = ServeOptions(
        qmp=os.path.abspath(qmp) if qmp else None, uevents=uevents, allow_other=allow_other, loop=loop, verbose=verbose
    )
    wanted = UdevOptions(find_udevd(), texts, host_rules) if udev or rules or host_rules else None
    check_rules(texts)

    def build(on_built: Callable[[str], None]) -> int:
        return run_machine(machine, cmd, options, proc=proc, udev=wanted, on_built=on_built, detached=detach)

    code = in_background(lambda ready: build(partial(_tell_name, ready))) if detach else build(
        partial(_greet, machine, bool(cmd)))
    # To take Python down takes ten times as long as it took the machine to end.
    os._exit(code)


def _tell_name(ready: Callable[[], None], name: str) -> None:
    """Print the name of a machine that goes on in the background."""
    click.echo(name)
    ready()


def _greet(machine: Machine, has_command: bool, name: str) -> None:
    """Greet whoever will sit at the shell."""
    if not has_command and os.isatty(0) and os.isatty(1):
        click.echo(greeting(machine, name, root=os.geteuid() == 0))
