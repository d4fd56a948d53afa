"""`memhpfs events`: what the hardware of a machine reports."""

import json
import sys
import time
from typing import Any

import click

from memhpfs.cli.hardware import qmp_option
from memhpfs.client import Client
from memhpfs.host import registry

__all__ = ["command", "describe"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Each event as the machine sent it, one JSON object a line.")
@qmp_option
def command(as_json: bool, qmp: str | None) -> None:
    """Follow the events of a running machine until it ends, or until Ctrl-C.

    \b
    Example:
      memhpfs events &
      memhpfs plug d0 --size 1G
    """
    with Client.connect(registry.find(qmp)) as client:
        try:
            for event in client.events():
                click.echo(json.dumps(event) if as_json else describe(event))
                sys.stdout.flush()
        except KeyboardInterrupt:
            return


def describe(event: dict[str, Any]) -> str:
    """One event for people: time, name, and its data as words."""
    stamp = event.get("timestamp", {})
    seconds, micro = stamp.get("seconds", 0), stamp.get("microseconds", 0)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{micro // 1000:03}"
    data = event.get("data", {})
    words = " ".join(f"{key}={value}" for key, value in (data.get("info") or data).items())
    return f"{clock} {event['event']} {words}".rstrip()
