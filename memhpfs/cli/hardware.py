"""`memhpfs plug` and `unplug`: the hardware side of a running machine, as thin faces on QMP."""

import contextlib

import click

from memhpfs.client import Client, CommandError, Event
from memhpfs.errors import UserError
from memhpfs.host import registry
from memhpfs.units import format_size, parse_size

__all__ = ["SizeParam", "check_node", "commands", "qmp_option"]

#: How long the guest may take, in seconds; offlining retries for ever, so an unplug has no limit.
_PLUG_TIMEOUT_S = 60.0

qmp_option = click.option(
    "--qmp", metavar="PATH", help="The machine's socket.  Default: $MEMHPFS_QMP, else the only machine that runs."
)


class SizeParam(click.ParamType[int]):
    """A size on the command line."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(value if isinstance(value, int) else str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("id")
@click.option("--size", type=SizeParam(), required=True, help="How large the DIMM is, e.g. 1G.")
@click.option("--node", type=click.IntRange(0), default=0, show_default=True, help="NUMA node it belongs to.")
@click.option("--addr", type=SizeParam(), help="Address to map it at.  Default: the lowest free gap.")
@qmp_option
def plug(id: str, size: int, node: int, addr: int | None, qmp: str | None) -> None:
    """Plug a DIMM into a running machine, and wait until its memory blocks are there.

    \b
    Example:
      memhpfs plug d0 --size 1G
      memhpfs plug d1 --size 512M --node 1
    """
    with Client.connect(registry.find(qmp)) as client:
        backend = f"mem-{id}"
        if id in _backends(client):
            raise UserError(f"{id}: a DIMM of this name is there already")
        # An unplug that was interrupted leaves it behind.
        with contextlib.suppress(CommandError):
            client.execute("object-del", id=backend)
        client.execute("object-add", qom_type="memory-backend-ram", id=backend, size=size)
        try:
            where = {} if addr is None else {"addr": addr}
            client.execute("device_add", driver="pc-dimm", id=id, memdev=backend, node=node, **where)
        except CommandError:
            client.execute("object-del", id=backend)
            check_node(client, node)
            raise
        if _outcome(client, id, source=1, timeout_s=_PLUG_TIMEOUT_S):
            raise UserError(f"the DIMM {id} is there, but the guest could not add its memory "
                            "(is it a multiple of the block size, and is there room for its memory map?)")
        address = client.execute("qom-get", path=f"/machine/peripheral/{id}", property="addr")
        click.echo(f"{id}: {format_size(size)} at {address:#x}, node {node}")


@click.command()
@click.argument("id")
@qmp_option
def unplug(id: str, qmp: str | None) -> None:
    """Ask a running machine to give a DIMM back, and wait for its answer.

    The guest offlines all memory blocks of the DIMM first.  When one refuses, those that were online before are online
    again, and the command fails with the guest's reason.

    \b
    Example:
      memhpfs unplug d0
    """
    with Client.connect(registry.find(qmp)) as client:
        backend = _backends(client).get(id)
        if backend is None:
            raise UserError(f"{id}: there is no DIMM of this name")
        client.execute("device_del", id=id)
        event = client.wait_for(lambda event: _is_about(event, id, "DEVICE_DELETED", "MEM_UNPLUG_ERROR"))
        if event["event"] == "MEM_UNPLUG_ERROR":
            raise UserError(f"{id}: {event['data']['msg']}")
        client.execute("object-del", id=backend)
        click.echo(f"{id}: gone")


def check_node(client: Client, node: int) -> None:
    """Say it plainly where a command was refused because there is no such node.

    Raises:
        UserError: there is none, and which there are.
    """
    known = [item["node"] for item in client.execute("x-query-nodes")]
    if node not in known:
        names = f"node {known[0]}" if len(known) == 1 else f"nodes {', '.join(map(str, known))}"
        raise UserError(f"node {node} is not there; this machine has {names}; one with more: memhpfs run -M numa2, "
                        "or [[node]] in a machine file")


def _outcome(client: Client, name: str, source: int, timeout_s: float) -> int:
    """The ACPI status with which the guest ended what it was asked."""
    def ended(event: Event) -> bool:
        info = event["data"].get("info", {})
        wanted = ("ACPI_DEVICE_OST", name, source)
        return (event["event"], info.get("device"), info.get("source")) == wanted

    return int(client.wait_for(ended, timeout_s)["data"]["info"]["status"])


def _backends(client: Client) -> dict[str, str]:
    """The memory backends of all DIMMs that have a name, by that name."""
    devices = [device["data"] for device in client.execute("query-memory-devices")]
    return {device["id"]: device["memdev"].removeprefix("/objects/") for device in devices if "id" in device}


def _is_about(event: Event, name: str, *kinds: str) -> bool:
    return event["event"] in kinds and bool(event["data"].get("device") == name)


commands = {"plug": plug, "unplug": unplug}
