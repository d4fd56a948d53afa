"""QMP commands as rows: name, arguments, what it does.

Names, arguments and results are QEMU's; names that QEMU does not have begin with `x-`.
Source: QEMU's qapi/*.json.
"""

from typing import Any

from memhpfs.qmp.command import Args, Argument, Command
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.guest import GUEST_COMMANDS
from memhpfs.qmp.hardware import DimmDevice, Hardware

__all__ = ["COMMANDS", "VERSION"]

#: The QEMU whose protocol this speaks.
VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "memhpfs"}

def _object_add(hardware: Hardware, args: Args) -> Any:
    if args["qom-type"] != "memory-backend-ram":
        raise QmpError(f"invalid object type: {args['qom-type']}; this machine has memory-backend-ram")
    hardware.add_backend(args["id"], args["size"])
    return {}


def _object_del(hardware: Hardware, args: Args) -> Any:
    hardware.delete_backend(args["id"])
    return {}


def _device_add(hardware: Hardware, args: Args) -> Any:
    if args["driver"] != "pc-dimm":
        raise QmpError(f"'{args['driver']}' is not a valid device model name")
    for needed in ("id", "memdev"):
        if needed not in args:
            raise QmpError("'memdev' property is not set" if needed == "memdev" else "Parameter 'id' is missing")
    hardware.add_dimm(args["id"], args["memdev"], args.get("node", 0), args.get("addr"), args.get("slot"))
    return {}


def _device_del(hardware: Hardware, args: Args) -> Any:
    hardware.delete_dimm(args["id"].removeprefix("/machine/peripheral/"))
    return {}


def _info(device: DimmDevice) -> dict[str, Any]:
    return {
        "id": device.id, "addr": device.address, "slot": device.slot, "node": device.node_id,
        "size": device.backend.size_bytes, "memdev": f"/objects/{device.backend.id}",
        "hotplugged": device.hotplugged, "hotpluggable": True,
    }


def _query_memory_devices(hardware: Hardware, args: Args) -> Any:
    devices = sorted(hardware.devices.values(), key=lambda device: device.address)
    return [{"type": "dimm", "data": _info(device)} for device in devices]


def _query_memory_size_summary(hardware: Hardware, args: Args) -> Any:
    plugged = sum(device.backend.size_bytes for device in hardware.devices.values())
    return {"base-memory": hardware.ram_bytes, "plugged-memory": plugged}


def _query_memdev(hardware: Hardware, args: Args) -> Any:
    return [
        {"id": backend.id, "size": backend.size_bytes, "merge": True, "dump": True, "prealloc": False, "share": False,
         "reserve": True, "host-nodes": [], "policy": "default"}
        for backend in hardware.backends.values()
    ]


def _qom_get(hardware: Hardware, args: Args) -> Any:
    name = args["path"].removeprefix("/machine/peripheral/")
    device = hardware.devices.get(name)
    if device is None:
        raise QmpError(f"Device '{args['path']}' not found", "DeviceNotFound")
    properties = _info(device)
    if args["property"] not in properties:
        raise QmpError(f"Property 'pc-dimm.{args['property']}' not found")
    return properties[args["property"]]


def _qom_set(hardware: Hardware, args: Args) -> Any:
    _qom_get(hardware, {"path": args["path"], "property": args["property"]})
    raise QmpError(f"Attempt to set property '{args['property']}' on device "
                   f"'{args['path'].removeprefix('/machine/peripheral/')}' (type 'pc-dimm') after it was realized")


def _quit(hardware: Hardware, args: Args) -> Any:
    hardware.quitting = True
    return {}


def _query_commands(hardware: Hardware, args: Args) -> Any:
    return [{"name": name} for name in sorted(COMMANDS)]


_ID = {"id": Argument()}
COMMANDS: dict[str, Command] = {
    "qmp_capabilities": Command("End the negotiation.", lambda hardware, args: {},
                                {"enable": Argument(list, required=False)}),
    "object-add": Command("Make a memory backend.", _object_add,
                          {"qom-type": Argument(), "id": Argument(), "size": Argument("size")}),
    "object-del": Command("Delete a memory backend.", _object_del, _ID),
    "device_add": Command("Plug a DIMM.", _device_add, {
        "driver": Argument(), "id": Argument(required=False), "memdev": Argument(required=False),
        "node": Argument(int, required=False), "addr": Argument("size", required=False),
        "slot": Argument(int, required=False),
    }),
    "device_del": Command("Ask the guest to give a DIMM back.", _device_del, _ID),
    "qom-get": Command("Read a property of a device.", _qom_get, {"path": Argument(), "property": Argument()}),
    "qom-set": Command("Write a property of a device.", _qom_set,
                       {"path": Argument(), "property": Argument(), "value": Argument(int)}),
    "query-memory-devices": Command("List plugged memory.", _query_memory_devices),
    "query-memory-size-summary": Command("Boot RAM and plugged memory, in bytes.", _query_memory_size_summary),
    "query-memdev": Command("List memory backends.", _query_memdev),
    "query-version": Command("The version of QEMU whose protocol this is.", lambda hardware, args: VERSION),
    "query-status": Command("Whether the machine runs.", lambda hardware, args: {
        "status": "running", "singlestep": False, "running": True}),
    "query-name": Command("The machine's name.", lambda hardware, args: {"name": hardware.name}),
    "query-commands": Command("List all commands.", _query_commands),
    "quit": Command("Unmount and end.", _quit),
    **GUEST_COMMANDS,
}
