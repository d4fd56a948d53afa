"""Commands that QEMU does not have: what happens inside the guest.

Workloads use its memory, faults make its operations fail, x-query-blocks tells what is in each block,
x-query-nodes which nodes there are, x-query-kernel-log what the kernel said.
"""

import re
from typing import Any

from memhpfs.errors import errno_named, errno_spelled
from memhpfs.kernel.faults import OPERATIONS, add_fault, delete_fault
from memhpfs.kernel.geometry import PAGE_SIZE
from memhpfs.kernel.pages import Use
from memhpfs.kernel.state import Block, Fault
from memhpfs.kernel.workload import add_workload, delete_workload
from memhpfs.qmp.command import Args, Argument, Command
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.hardware import Hardware

__all__ = ["GUEST_COMMANDS"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _workload_add(hardware: Hardware, args: Args) -> Any:
    if not _NAME.fullmatch(args["id"]):
        raise QmpError(f"Parameter 'id' expects an identifier, not {args['id']!r}")
    add_workload(hardware.kernel, args["id"], args["kind"], args["size"], args.get("node"),
                 movable=args.get("movable", False), reserved=args.get("reserved", False))
    return {}


def _workload_del(hardware: Hardware, args: Args) -> Any:
    delete_workload(hardware.kernel, args["id"])
    return {}


def _query_workloads(hardware: Hardware, args: Args) -> Any:
    return [
        {"id": item.name, "kind": item.kind, "size": item.nr_pages * PAGE_SIZE, "movable": item.movable,
         "reserved": item.reserved, **({} if item.node_id is None else {"node": item.node_id})}
        for item in hardware.kernel.workloads.values() if args.get("id", item.name) == item.name
    ]


def _fault_add(hardware: Hardware, args: Args) -> Any:
    if args["op"] not in OPERATIONS:
        raise QmpError(f"Parameter 'op' expects one of {', '.join(OPERATIONS)}, not {args['op']!r}")
    number = errno_named(args["errno"])
    if number is None:
        raise QmpError(f"Parameter 'errno' expects the name of an errno like EBUSY, not {args['errno']!r}")
    if args.get("count", 1) < 1:
        raise QmpError("Parameter 'count' expects a positive number")
    add_fault(hardware.kernel, Fault(args["id"], args["op"], number, args.get("block"), args.get("count")))
    return {}


def _fault_del(hardware: Hardware, args: Args) -> Any:
    delete_fault(hardware.kernel, args["id"])
    return {}


def _query_faults(hardware: Hardware, args: Args) -> Any:
    return [
        {"id": fault.name, "op": fault.operation, "errno": errno_spelled(fault.errno),
         **({} if fault.block_id is None else {"block": fault.block_id}),
         **({} if fault.count is None else {"count": fault.count})}
        for fault in hardware.kernel.faults.values() if args.get("id", fault.name) == fault.name
    ]


def _query_blocks(hardware: Hardware, args: Args) -> Any:
    kernel = hardware.kernel
    return [_block(hardware, block) for _, block in sorted(kernel.blocks.items())]


def _query_nodes(hardware: Hardware, args: Args) -> Any:
    return [{"node": node_id} for node_id in sorted(hardware.kernel.nodes)]


def _query_kernel_log(hardware: Hardware, args: Args) -> Any:
    return list(hardware.kernel_log)


def _block(hardware: Hardware, block: Block) -> dict[str, Any]:
    """State, place and use of a block; sizes in bytes, uses that have no page left out."""
    kernel = hardware.kernel
    pages = {use: sum(kernel.pages.get(extent, use) for extent in block.extents) for use in Use}
    uses = {use.name.lower().replace("_", "-"): count * PAGE_SIZE for use, count in pages.items()}
    fixed = {
        "reserved": block.unmanaged_pages if block.extents else 0,
        "memmap": block.vmemmap_pages if block.extents else 0,
        "poisoned": block.nr_hwpoison,
    }
    uses |= {name: count * PAGE_SIZE for name, count in fixed.items()}
    return {
        "block": block.id, "start": block.id * kernel.block_size_bytes, "size": kernel.block_size_bytes,
        "state": block.state.value, "node": block.node_id, "zone": block.zone.name if block.zone is not None else None,
        "boot": block.early, "uses": {name: size for name, size in uses.items() if size},
    }


_ID = {"id": Argument()}
_FILTER = {"id": Argument(required=False)}
GUEST_COMMANDS: dict[str, Command] = {
    "x-workload-add": Command("Fill memory with something.", _workload_add, {
        "id": Argument(), "kind": Argument(), "size": Argument("size"), "node": Argument(int, required=False),
        "movable": Argument(bool, required=False), "reserved": Argument(bool, required=False),
    }),
    "x-workload-del": Command("Free what a workload holds.", _workload_del, _ID),
    "x-query-workloads": Command("List workloads.", _query_workloads, _FILTER),
    "x-fault-add": Command("Make operations fail.", _fault_add, {
        "id": Argument(), "op": Argument(), "errno": Argument(), "block": Argument(int, required=False),
        "count": Argument(int, required=False),
    }),
    "x-fault-del": Command("Take a fault back.", _fault_del, _ID),
    "x-query-faults": Command("List faults.", _query_faults, _FILTER),
    "x-query-blocks": Command("What is in each memory block.", _query_blocks),
    "x-query-nodes": Command("List NUMA nodes, also those without memory.", _query_nodes),
    "x-query-kernel-log": Command("The end of the kernel's log.", _query_kernel_log),
}
