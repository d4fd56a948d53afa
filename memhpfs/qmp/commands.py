"""QMP commands as rows: name, arguments, what it does.

Names, arguments and results are QEMU's; names that QEMU does not have begin with `x-`.
Source: QEMU's qapi/*.json.
"""

from typing import Any

from memhpfs.qmp.command import Args, Argument, Command
from memhpfs.qmp.errors import QmpError
from memhpfs.qmp.guest import GUEST_COMMANDS
from memhpfs.qmp.hardware import DimmDevice, Hardware

__all__ = ["CAPABILITIES", "COMMANDS", "VERSION"]

#: The QEMU whose protocol this speaks.
VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "memhpfs"}
#: What a client may enable.  No command can be run out of band, so `oob` only lets a client ask.
CAPABILITIES = ("oob",)


def _capabilities(hardware: Hardware, args: Args) -> Any:
    for name in args.get("enable", []):
        if name not in CAPABILITIES:
            raise QmpError(f"Parameter 'null' does not accept value '{name}'")
    return {}


def _object_add(hardware: Hardware, args: Args) -> Any:
    options = {name: args[name] for name in _BACKEND_OPTIONS if name in args}
    hardware.add_backend(args["id"], args["size"], options)
    return {}


def _object_del(hardware: Hardware, args: Args) -> Any:
    hardware.delete_backend(args["id"])
    return {}


def _device_add(hardware: Hardware, args: Args) -> Any:
    if args["driver"] != "pc-dimm":
        raise QmpError(f"'{args['driver']}' is not a valid device model name")
    if not args.get("memdev"):
        raise QmpError("'memdev' property must be set")
    slot = args.get("slot", -1)
    hardware.add_dimm(args.get("id"), args["memdev"], args.get("node", 0), args.get("addr") or None,
                      slot if slot != -1 else None)
    return {}


def _device_del(hardware: Hardware, args: Args) -> Any:
    hardware.delete_dimm(args["id"])
    return {}


def _info(device: DimmDevice) -> dict[str, Any]:
    return {
        **({"id": device.id} if device.id else {}), "addr": device.address, "slot": device.slot, "node": device.node_id,
        "size": device.backend.size_bytes, "memdev": f"/objects/{device.backend.id}",
        "hotplugged": device.hotplugged, "hotpluggable": True,
    }


def _query_memory_devices(hardware: Hardware, args: Args) -> Any:
    devices = sorted(hardware.devices, key=lambda device: device.address)
    return [{"type": "dimm", "data": _info(device)} for device in devices]


def _query_memory_size_summary(hardware: Hardware, args: Args) -> Any:
    plugged = sum(device.backend.size_bytes for device in hardware.devices)
    return {"base-memory": hardware.ram_bytes, "plugged-memory": plugged}


def _query_memdev(hardware: Hardware, args: Args) -> Any:
    return [
        {"id": backend.id, "size": backend.size_bytes, "host-nodes": [], "policy": "default", **_BACKEND_OPTIONS,
         **backend.options}
        for backend in hardware.backends.values()
    ]


def _qom_get(hardware: Hardware, args: Args) -> Any:
    properties = _info(hardware.device(args["path"])) | {"type": "pc-dimm", "realized": True}
    if args["property"] not in properties or args["property"] == "id":
        raise QmpError(f"Property 'pc-dimm.{args['property']}' not found")
    return properties[args["property"]]


def _qom_set(hardware: Hardware, args: Args) -> Any:
    name = args["property"]
    _qom_get(hardware, {"path": args["path"], "property": name})
    if name not in ("addr", "memdev", "node", "slot"):
        raise QmpError(f"Property 'pc-dimm.{name}' is not writable")
    link = "link " if name == "memdev" else ""
    raise QmpError(f"Attempt to set {link}property '{name}' on device '{hardware.device(args['path']).id}' "
                   "(type 'pc-dimm') after it was realized")


def _quit(hardware: Hardware, args: Args) -> Any:
    hardware.quitting = True
    return {}


def _query_commands(hardware: Hardware, args: Args) -> Any:
    return [{"name": name} for name in sorted(COMMANDS)]


#: Properties of a backend that change nothing here, and what they are when nobody says.
_BACKEND_OPTIONS = {"merge": True, "dump": True, "prealloc": False, "share": False, "reserve": True}
_ID = {"id": Argument()}
COMMANDS: dict[str, Command] = {
    "qmp_capabilities": Command("End the negotiation.", _capabilities, {"enable": Argument(list, required=False)}),
    "object-add": Command("Make a memory backend.", _object_add,
                          {"qom-type": Argument("backend"), "id": Argument("id"), "size": Argument("uint64"),
                           **{name: Argument(bool, required=False) for name in _BACKEND_OPTIONS}}),
    "object-del": Command("Delete a memory backend.", _object_del, _ID),
    "device_add": Command("Plug a DIMM.", _device_add, {
        "driver": Argument("text"), "id": Argument("id", required=False), "memdev": Argument("text", required=False),
        "node": Argument("uint32_t", required=False), "addr": Argument("uint64_t", required=False),
        "slot": Argument("int32_t", required=False),
    }, "Property 'pc-dimm.{}' not found", skips=(type(None), list, dict)),
    "device_del": Command("Ask the guest to give a DIMM back.", _device_del, _ID),
    "qom-get": Command("Read a property of a device.", _qom_get, {"path": Argument(), "property": Argument()}),
    "qom-set": Command("Write a property of a device.", _qom_set,
                       {"path": Argument(), "property": Argument(), "value": Argument(object)}),
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
