"""`memhpfs mount`: serve a machine at a directory."""

import sys

import click

from memhpfs.errors import UserError
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
@click.option("--loop", type=click.Choice(["poll", "stock"]), default="poll", show_default=True,
              help="How requests are waited for: poll is two to three times faster.")
@click.option("-v", "--verbose", count=True, help="Log more; twice: every request.")
def command(
    directory: str, name: str, overrides: tuple[str, ...], qmp: str | None, uevents: bool, allow_other: bool | None,
    loop: str, verbose: int,
) -> None:
    """Serve a machine at DIR, an empty directory, until Ctrl-C.

    DIR becomes a sysroot: the machine's files are at DIR/sys and DIR/proc.

    \b
    Example:
      memhpfs mount /tmp/m &
      lsmem --sysroot /tmp/m
      memhpfs plug d0 --size 1G
      echo online > /tmp/m/sys/devices/system/memory/memory40/state
    """
    start_logging(verbose)
    machine = load(name, overrides)
    try:
        import pyfuse3  # noqa: F401
    except ImportError as error:
        raise UserError(f"pyfuse3 cannot be used: {error}; install libfuse3 (package fuse3, libfuse3-3)") from None
    import trio

    from memhpfs.host.daemon import ServeOptions, notify_ready, serve

    def ready() -> None:
        click.echo(f"memhpfs: machine {machine.name} is at {directory}", err=True)
        notify_ready()

    options = ServeOptions(
        qmp=qmp, uevents=uevents, allow_other=allow_other, loop=loop, verbose=verbose, on_ready=ready
    )
    trio.run(serve, machine, directory, options)
