"""`memhpfs ps`: the running machines."""

import json
import time

import click
from attrs import asdict

from memhpfs.host import registry

__all__ = ["command"]

_COLUMNS = ("PID", "KIND", "NAME", "UP", "WHERE", "QMP")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> None:
    """List the machines that run, for this user.

    \b
    Example:
      memhpfs ps
    """
    running = registry.entries()
    if as_json:
        for entry in running:
            click.echo(json.dumps(asdict(entry)))
        return
    rows = [_COLUMNS, *(
        (str(entry.pid), entry.kind, entry.name, _age(time.time() - entry.started), entry.where, entry.qmp)
        for entry in running
    )]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _age(seconds: float) -> str:
    """How long ago, as `ps` has it: 5s, 3m12s, 2h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
