"""`memhpfs mount`: serve a machine at a directory."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import click

from memhpfs.cli.choice import WordParam
from memhpfs.errors import UserError
from memhpfs.host.background import in_background
from memhpfs.machine.description import Machine
from memhpfs.machine.load import load

__all__ = ["command", "start_logging"]


def start_logging(verbose: int) -> None:
    """Log to stderr: warnings; with one -v what happens; with two every request."""
    import logging

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="memhpfs: %(message)s", stream=sys.stderr)


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("-M", "--machine", "name", metavar="NAME|FILE", default="default", show_default=True,
              help="A preset's name or a machine file.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True,
              help="Override a top-level key of the machine file; repeatable.")
@click.option("--qmp", metavar="PATH", help="Socket of the hardware side.  Default: $XDG_RUNTIME_DIR/memhpfs/PID.qmp.")
@click.option("--uevents/--no-uevents", default=False, show_default=True,
              help="Send uevents in this network namespace, which must not be the host's.")
@click.option("--allow-other/--no-allow-other", default=None,
              help="Let other users in, as file modes say.  Default: where it is permitted.")
@click.option("--loop", type=WordParam(["poll", "stock"]), default="poll", show_default=True,
              help="How requests are waited for: poll is two to three times faster.")
@click.option("--background", is_flag=True, help="Return when the machine is usable, and serve it in the background.")
@click.option("-v", "--verbose", count=True, help="Log more; twice: every request.")
def command(
    directory: str, name: str, overrides: tuple[str, ...], qmp: str | None, uevents: bool, allow_other: bool | None,
    loop: str, background: bool, verbose: int,
) -> int:
    """Serve a machine at DIR, an empty or new directory, until Ctrl-C.

    DIR becomes a sysroot: the machine's files are at DIR/sys and DIR/proc.  With --background the machine ends with
    `memhpfs stop DIR`, `umount DIR` or SIGTERM.

    \b
    Example:
      memhpfs mount --background /tmp/m
      lsmem --sysroot /tmp/m
      memhpfs plug d0 --size 1G
      echo online > /tmp/m/sys/devices/system/memory/memory40/state
      memhpfs stop /tmp/m
    """
    start_logging(verbose)
    machine = load(name, overrides)

    def work(ready: Callable[[], None]) -> int:
        _serve(machine, directory, ready, qmp=qmp, uevents=uevents, allow_other=allow_other, loop=loop, verbose=verbose)
        return 0

    return in_background(work) if background else work(lambda: None)


def _serve(machine: Machine, directory: str, ready: Callable[[], None], **options: Any) -> None:
    """Serve the machine until it is told to end.

    Args:
        ready: called when the machine is usable and everybody was told.
        options: see ServeOptions.
    """
    try:
        import pyfuse3  # noqa: F401
    except ImportError as error:
        raise UserError(f"pyfuse3 cannot be used: {error}; install libfuse3 (package fuse3, libfuse3-3)") from None
    import trio

    from memhpfs.host.daemon import ServeOptions, notify_ready, serve

    def on_ready() -> None:
        with contextlib.suppress(OSError):
            click.echo(f"memhpfs: machine {machine.name} is at {directory}", err=True)
        notify_ready()
        ready()

    trio.run(serve, machine, directory, ServeOptions(on_ready=on_ready, **options))
