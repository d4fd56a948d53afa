"""`memhpfs exec`: another command in a running machine."""

import os
from typing import NoReturn

import click

__all__ = ["command"]


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("machine")
@click.argument("cmd", nargs=-1, required=True, type=click.UNPROCESSED)
def command(machine: str, cmd: tuple[str, ...]) -> NoReturn:
    """Run CMD inside a machine that `memhpfs run` started: MACHINE is its pid or name in `memhpfs ps`.

    \b
    Example:
      memhpfs run -M tiny &
      memhpfs exec tiny -- lsmem
    """
    from memhpfs.host.run import exec_in

    # click leaves a `--` that comes after MACHINE.
    command = cmd[1:] if cmd[0] == "--" else cmd
    if not command:
        raise click.UsageError("Missing argument 'CMD...'.")
    os._exit(exec_in(machine, command))
