"""`memhpfs fill`, `free` and `fault`: what happens inside a running machine, as thin faces on QMP."""

import re
from typing import Any

import click

from memhpfs.cli.choice import WordParam
from memhpfs.cli.hardware import SizeParam, check_node, qmp_option
from memhpfs.client import Client, CommandError
from memhpfs.errors import UserError
from memhpfs.host import registry
from memhpfs.units import align_down, format_size

__all__ = ["commands"]

#: Kinds of workload, as the machine knows them, each with what it is like.
KINDS = {
    "anon": "a process's memory", "file": "page cache", "shm": "shared memory, tmpfs", "mlock": "locked memory",
    "hugetlb-2M": "huge pages", "hugetlb-1G": "gigantic pages", "pinned": "pages pinned for devices",
    "slab": "the kernel's objects", "pagetables": "page tables", "kernel": "other memory of the kernel",
    "balloon": "pages given to the hypervisor", "cma": "contiguous memory of a device",
}
_KIND_HELP = "What it is: " + "; ".join(f"{name} ({what})" for name, what in KINDS.items()) + "."
_OPERATIONS = ("online", "offline", "add", "remove")
_SHARE = re.compile(r"([0-9]{1,3})%?")
_PAGE = 4096


class ShareParam(click.ParamType[int]):
    """A share in percent, like 50%."""

    name = "P%"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SHARE.fullmatch(str(value))
        if match is None or not 1 <= int(match[1]) <= 100:
            self.fail(f"{value!r} is not a share; allowed are 1% to 100%", param, ctx)
        return int(match[1])


@click.command()
@click.argument("id")
@click.option("--kind", type=WordParam(list(KINDS)), required=True, help=_KIND_HELP)
@click.option("--size", type=SizeParam(), help="How much, e.g. 512M.")
@click.option("--share", type=ShareParam(), help="How much, as a share of the memory that is online (there).")
@click.option("--node", type=click.IntRange(0), help="Only on this NUMA node.")
@click.option("--movable", is_flag=True, help="For pinned: a short pin, also in ZONE_MOVABLE; for balloon: pages that "
              "can migrate.")
@click.option("--reserved", is_flag=True, help="For hugetlb-2M: pages that are promised and not used yet.")
@qmp_option
def fill(
    id: str, kind: str, size: int | None, share: int | None, node: int | None, movable: bool, reserved: bool,
    qmp: str | None,
) -> None:
    """Let something in a running machine use memory, until `memhpfs free`.

    \b
    Example:
      memhpfs fill app --kind anon --size 512M
      memhpfs fill pins --kind pinned --movable --share 10%
      memhpfs free app
    """
    if (size is None) == (share is None):
        raise UserError("fill: give either --size or --share", exit_code=2)
    with Client.connect(registry.find(qmp)) as client:
        if size is None:
            assert share is not None
            size = align_down(_online_bytes(client, node) * share // 100, _PAGE)
        where: dict[str, Any] = {} if node is None else {"node": node}
        try:
            client.execute("x-workload-add", id=id, kind=kind, size=size, movable=movable, reserved=reserved, **where)
        except CommandError:
            if node is not None:
                check_node(client, node)
            raise
        click.echo(f"{id}: {format_size(size)} of {kind}")


@click.command()
@click.argument("id")
@qmp_option
def free(id: str, qmp: str | None) -> None:
    """End what `memhpfs fill` started.

    \b
    Example:
      memhpfs free app
    """
    with Client.connect(registry.find(qmp)) as client:
        client.execute("x-workload-del", id=id)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def fault() -> None:
    """Make operations of a running machine fail, with any errno.

    \b
    Example:
      memhpfs fault add stuck --op offline --errno EBUSY --block 34
      memhpfs fault add once --op online --errno ENOMEM --count 1
      memhpfs fault list
      memhpfs fault del stuck
    """


@fault.command()
@click.argument("id")
@click.option("--op", type=WordParam(_OPERATIONS), required=True, help="The operation that fails.")
@click.option("--errno", required=True, help="With which errno, e.g. EBUSY.")
@click.option("--block", type=click.IntRange(0), help="Only for this memory block.")
@click.option("--count", type=click.IntRange(1), help="How often.  Default: until it is deleted.")
@qmp_option
def add(id: str, op: str, errno: str, block: int | None, count: int | None, qmp: str | None) -> None:
    """Let an operation fail from now on.

    \b
    Example:
      memhpfs fault add stuck --op offline --errno EBUSY --block 34
      memhpfs fault add once --op online --errno ENOMEM --count 1
    """
    given = {"block": block, "count": count}
    with Client.connect(registry.find(qmp)) as client:
        client.execute("x-fault-add", id=id, op=op, errno=errno, **{k: v for k, v in given.items() if v is not None})


@fault.command("del")
@click.argument("id")
@qmp_option
def delete(id: str, qmp: str | None) -> None:
    """Let it succeed again.

    \b
    Example:
      memhpfs fault del stuck
    """
    with Client.connect(registry.find(qmp)) as client:
        client.execute("x-fault-del", id=id)


@fault.command("list")
@qmp_option
def list_faults(qmp: str | None) -> None:
    """List the faults that are set.

    \b
    Example:
      memhpfs fault list
    """
    with Client.connect(registry.find(qmp)) as client:
        for item in client.execute("x-query-faults"):
            block = f" block {item['block']}" if "block" in item else ""
            count = f", {item['count']} more" if "count" in item else ""
            click.echo(f"{item['id']}: {item['op']}{block} fails with {item['errno']}{count}")


def _online_bytes(client: Client, node: int | None) -> int:
    """Bytes that the guest's allocator manages, on a node or altogether."""
    blocks = [b for b in client.execute("x-query-blocks") if node is None or b["node"] == node]
    return sum(size for b in blocks for use, size in b["uses"].items() if use not in ("reserved", "memmap", "poisoned"))


commands: dict[str, click.Command] = {"fill": fill, "free": free, "fault": fault}
