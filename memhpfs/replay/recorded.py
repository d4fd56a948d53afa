"""The recorded machine, as a machine file: boot RAM exactly as its /proc/iomem told it."""

import json
import tomllib
from collections.abc import Iterator

from memhpfs.errors import UserError
from memhpfs.machine.description import Machine
from memhpfs.machine.mistakes import Mistakes
from memhpfs.machine.resolve import resolve
from memhpfs.replay.transcript import Header
from memhpfs.units import GIB, MIB, align_up, parse_size

__all__ = ["machine_text", "recorded_machine"]

_SYSTEM_RAM = ": System RAM"


def recorded_machine(header: Header) -> Machine:
    """The machine of a recorded run.

    Raises:
        UserError: it has something that this version does not model.
    """
    return resolve(tomllib.loads(machine_text(header)), header.name, "", Mistakes(f"machine {header.name}"))


def machine_text(header: Header) -> str:
    """The machine file of a recorded run.

    Raises:
        UserError: a size or a line of iomem cannot be read.
    """
    try:
        return "\n".join(_lines(header)) + "\n"
    except ValueError as error:
        raise UserError(f"machine {header.name}: {error}", 2) from None


def _lines(header: Header) -> Iterator[str]:
    yield f'arch = "{header.arch}"'
    yield f'kernel = "{header.release}"'
    yield f"cmdline = {json.dumps(header.cmdline)}"
    yield f"slots = {header.slots}"
    yield f'maxmem = "{header.maxmem}"'
    sizes = [parse_size(size) for size in header.numa or (header.ram,)]
    for node_id in range(len(sizes)):
        yield f"\n[[node]]\nid = {node_id}"
    for start, end, node_id in _ram(header, sizes):
        yield f'\n[[ram]]\nstart = "{start:#x}"\nend = "{end:#x}"\nnode = {node_id}'
    for device in header.virtio_mem:
        yield (f'\n[[virtio-mem]]\nid = "{device.id}"\nnode = {device.node}\nmaxsize = "{device.maxsize}"\n'
               f'block = "{device.block}"\nrequested = "{device.requested}"')


def _ram(header: Header, sizes: list[int]) -> Iterator[tuple[int, int, int]]:
    """Ranges of boot RAM as (start, end, node), ascending."""
    rows = []
    for line in header.boot["iomem"]:
        if line.endswith(_SYSTEM_RAM):
            start, end = line.removesuffix(_SYSTEM_RAM).split("-")
            rows.append((int(start, 16), int(end, 16) + 1))
    for start, end in rows:
        yield start, end, _node_at(start, rows, sizes)


def _node_at(address: int, rows: list[tuple[int, int]], sizes: list[int]) -> int:
    """The node of an address: nodes share the RAM in order, and RAM leaves out the hole below 4 GiB."""
    low_end = align_up(max((end for start, end in rows if start < 4 * GIB), default=0), 128 * MIB)
    offset = address if address < 4 * GIB else address - 4 * GIB + low_end
    for node_id, size in enumerate(sizes):
        if offset < size:
            return node_id
        offset -= size
    return max(node_id for node_id, size in enumerate(sizes) if size)
