"""`memhpfs events`: what the hardware of a machine reports, and what its kernel says."""

import json
import time
from typing import Any

import click

from memhpfs.cli.hardware import qmp_option
from memhpfs.client import Client
from memhpfs.host import registry

__all__ = ["command", "describe", "describe_line"]

_KERNEL_LOG = "X_KERNEL_LOG"


@click.command()
@click.option("--kernel", is_flag=True, help="The kernel's log instead, as dmesg --follow tells it.")
@click.option("--json", "as_json", is_flag=True, help="Each as the machine sent it, one JSON object a line.")
@qmp_option
def command(kernel: bool, as_json: bool, qmp: str | None) -> None:
    """Follow the events of a running machine until it ends, or until Ctrl-C.

    \b
    Example:
      memhpfs events &
      memhpfs events --kernel &
      memhpfs plug d0 --size 1G
    """
    with Client.connect(registry.find(qmp)) as client:
        try:
            if kernel:
                _follow_log(client, as_json)
            else:
                _follow_events(client, as_json)
        except KeyboardInterrupt:
            return


def _follow_events(client: Client, as_json: bool) -> None:
    for event in client.events():
        if event["event"] != _KERNEL_LOG:
            click.echo(json.dumps(event) if as_json else describe(event))


def _follow_log(client: Client, as_json: bool) -> None:
    """What the kernel has said, then what it says.  Lines that come while the old ones are read are in both."""
    lines = client.execute("x-query-kernel-log")
    last = lines[-1]["seq"] if lines else -1
    for line in lines:
        click.echo(json.dumps(line) if as_json else describe_line(line))
    for event in client.events():
        if event["event"] == _KERNEL_LOG and event["data"]["seq"] > last:
            click.echo(json.dumps(event["data"]) if as_json else describe_line(event["data"]))


def describe(event: dict[str, Any]) -> str:
    """One event for people: time, name, and its data as words."""
    stamp = event.get("timestamp", {})
    seconds, micro = stamp.get("seconds", 0), stamp.get("microseconds", 0)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{micro // 1000:03}"
    data = event.get("data", {})
    words = " ".join(f"{key}={value}" for key, value in (data.get("info") or data).items())
    return f"{clock} {event['event']} {words}".rstrip()


def describe_line(line: dict[str, Any]) -> str:
    """A line of the kernel's log as dmesg prints it."""
    return f"[{line['seconds']:12.6f}] {line['text']}"
