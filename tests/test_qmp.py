"""The hardware side: the protocol as QEMU speaks it, its clients, its events, and one who sends nonsense."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs
import pytest
from attrs import evolve
from guest_kit import Guest, Refused
from host_kit import PATIENCE_S, Daemon, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from memhpfs.client import Client, CommandError
from memhpfs.kernel.check import check
from memhpfs.qmp.commands import COMMANDS
from memhpfs.qmp.session import MAX_REQUEST_BYTES, Session
from memhpfs.units import GIB, MIB

#: What a QEMU with this machine answered, one request and its answer on a line.
CONVERSATIONS = {path.name: [json.loads(line) for line in path.read_text().splitlines()]
                 for path in sorted((Path(__file__).parent / "transcripts").glob("qemu-*.conversation"))}
MACHINE = """
ram = "2G"
slots = 4
maxmem = "4G"
cmdline = "memhp_default_state=offline"
node = [{id = 0, ram = "1G"}, {id = 1, ram = "1G"}]
"""
LINES = CONVERSATIONS["qemu-7.2.conversation"]


# -- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_answers_are_qemus(lines):
    """Refusals in QEMU's words and classes, placement, slots, odd values: the same answers, a hundred in a row."""
    session = Session(Guest(MACHINE).hardware)

    answers = [session.receive(json.dumps(request).encode()) for request, _ in lines]

    assert [[request, answer] for (request, _), answer in zip(lines, answers, strict=True)] == lines


def answer(line: bytes) -> dict[str, Any]:
    """The answer to a line, after the negotiation."""
    session = Session(Guest(MACHINE).hardware)
    session.receive(b'{"execute": "qmp_capabilities"}')
    return session.receive(line) or {}


@pytest.mark.parametrize("line", [b"nonsense", b'{"execute":', b'{"execute": "query-name"}}', b"'", b"\x00", b'"\xff"',
                                  b'{"execute": "query-name", "execute": "quit"}', b"[" * 100_000,
                                  b'{"execute": "query-name", "id": NaN}', b'{"execute": "query-name", "id": -1e999}',
                                  b'{"execute": "query-name", "id": ' + b"9" * 5000 + b"}"])
def test_what_is_not_json_is_an_error(line):
    """An error of the class GenericError, and no more than that."""
    error = answer(line)["error"]

    assert error["class"] == "GenericError"
    assert error["desc"].startswith("JSON parse error, ")


@pytest.mark.parametrize("line", [b"", b"  ", b"\r"])
def test_empty_lines_have_no_answer(line):
    """As QEMU skips white space."""
    assert answer(line) == {}


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 5000, "0x" + "f" * 5000, "-" + "9" * 5000])
@pytest.mark.parametrize(("command", "argument"), [("x-workload-add", "size"), ("device_add", "addr"),
                                                   ("device_add", "slot"), ("device_add", "node")])
def test_numbers_without_end(command, argument, digits):
    """A text of thousands of digits is refused like any that is too large."""
    others = {"x-workload-add": {"id": "w", "kind": "anon"}, "device_add": {"driver": "pc-dimm", "memdev": "m"}}
    request = {"execute": command, "arguments": {**others[command], argument: digits}}

    error = answer(json.dumps(request).encode())["error"]

    assert error["desc"].startswith(f"Parameter '{argument}' expects ")


def test_bug_of_a_command(monkeypatch):
    """What a command should never raise is an error for the client, is handed on, and ends nothing."""
    def bug(hardware, args):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setitem(COMMANDS, "query-name", evolve(COMMANDS["query-name"], run=bug))
    told = []
    session = Session(Guest(MACHINE).hardware, lambda where, error: told.append((where, str(error))))
    session.receive(b'{"execute": "qmp_capabilities"}')

    found = session.receive(b'{"execute": "query-name", "id": 1}')

    assert found == {"error": {"class": "GenericError", "desc": "a bug in memhpfs; the machine is tainted"}, "id": 1}
    assert told == [("QMP", "on purpose")]
    assert session.receive(b'{"execute": "query-status"}')


def test_capabilities_that_do_not_exist():
    """The negotiation fails in QEMU's words and can be tried again."""
    session = Session(Guest(MACHINE).hardware)

    refused = session.receive(b'{"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}}')

    assert refused == {"error": {"class": "GenericError", "desc": "Parameter 'null' does not accept value 'foo'"}}
    assert session.receive(b'{"execute": "qmp_capabilities"}') == {"return": {}}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["execute", "arguments", "id", "pc-dimm", "memory-backend-ram", "m0", "d0", *COMMANDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["execute", "arguments", "id", "qom-type", "size", "driver", "memdev", "node", "addr", "slot",
                         "kind", "op", "errno", "block", "count", "path", "property", "enable", "x"]), inner,
        max_size=5),
    max_leaves=12))
@settings(max_examples=200, deadline=None)
def test_any_json_has_an_answer(request_):
    """Whatever is asked there is one answer, which is a result or an error in words, and the model holds."""
    guest = Guest(MACHINE)
    session = Session(guest.hardware)
    session.receive(b'{"execute": "qmp_capabilities"}')

    found = session.receive(json.dumps(request_).encode())

    assert found is not None
    assert ("return" in found) != ("error" in found)
    assert found.get("error", {"desc": "fine"})["desc"]
    check(guest.kernel)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_do_no_harm(data):
    """Before the negotiation as well as after it."""
    session = Session(Guest(MACHINE).hardware)
    for line in (data, b'{"execute": "qmp_capabilities"}', data):
        session.receive(line.replace(b"\n", b""))

    assert session.negotiated


@given(st.lists(st.sampled_from([line for line, _ in LINES if isinstance(line, dict | list)]), max_size=5),
       st.lists(st.integers(1, 30), min_size=1), st.sampled_from(["", "\n", " ", "\r\n"]))
@settings(max_examples=40, deadline=None)
def test_requests_need_no_lines(requests, sizes, between):
    """However a client cuts what it sends, and whatever it puts between: one answer for each bracket that closes."""
    whole, pieces = Session(Guest(MACHINE).hardware), Session(Guest(MACHINE).hardware)
    data = between.join(json.dumps(request) for request in requests).encode()

    answers = []
    for number in range(len(data)):
        cut, data = data[:sizes[number % len(sizes)]], data[sizes[number % len(sizes)]:]
        answers += pieces.feed(cut)

    assert answers == [whole.receive(json.dumps(request).encode()) for request in requests]


# -- what the guest says ----------------------------------------------------------------------------------------------


def events(guest: Guest) -> list[tuple[str, Any]]:
    """New events, and what is told of the device."""
    found = [(event["event"], event["data"]) for event in guest.hardware.events]
    guest.hardware.events.clear()
    return [(name, (data["info"]["source"], data["info"]["status"]) if "info" in data else data["device"])
            for name, data in found]


def unplug(guest: Guest, name: str) -> None:
    guest.qmp("device_del", id=name)
    for op in guest.hardware.work:
        list(op)
    guest.hardware.work.clear()


def test_events_of_a_dimm():
    """Plugging is over with the guest's _OST; unplugging with DEVICE_DELETED, and the backend is free again."""
    guest = Guest(MACHINE)

    guest.plug("d0", 256 * MIB)
    assert events(guest) == [("ACPI_DEVICE_OST", (1, 0))]

    unplug(guest, "d0")
    assert events(guest) == [("ACPI_DEVICE_OST", (3, 0x84)), ("ACPI_DEVICE_OST", (3, 0)), ("DEVICE_DELETED", "d0")]
    guest.qmp("object-del", id="mem-d0")


def test_events_of_a_guest_that_refuses():
    """A block that twice will not go offline, as often as Linux tries: both events that QEMU has for it."""
    guest = Guest(MACHINE)
    guest.plug("d0", 256 * MIB)
    guest.set_state(33, "online_movable")
    guest.qmp("x-fault-add", id="f", op="offline", errno="EBUSY", block=33, count=2)
    events(guest)

    unplug(guest, "d0")
    assert [name for name, _ in events(guest)] == ["ACPI_DEVICE_OST", "ACPI_DEVICE_OST", "MEM_UNPLUG_ERROR",
                                                   "DEVICE_UNPLUG_GUEST_ERROR"]
    assert guest.state(33) == "online"

    unplug(guest, "d0")
    assert events(guest)[-1] == ("DEVICE_DELETED", "d0")


def test_devices_go_to_the_lowest_gap():
    """A gap that a DIMM left is filled by the next one that fits."""
    guest = Guest('ram = "2G"\nmaxmem = "16G"\ncmdline = "memhp_default_state=offline"')
    for name, size in (("a", GIB), ("b", 512 * MIB), ("c", GIB)):
        guest.plug(name, size)
    unplug(guest, "b")
    for name, size in (("d", GIB), ("e", 256 * MIB)):
        guest.plug(name, size)

    places = {item["data"]["id"]: item["data"]["addr"] for item in guest.qmp("query-memory-devices")}
    assert places == {"a": 4 * GIB, "e": 5 * GIB, "c": 5 * GIB + 512 * MIB, "d": 6 * GIB + 512 * MIB}


@given(st.lists(st.tuples(
    st.sampled_from("abcdef"), st.sampled_from([2, 128, 256, 384, 1024]),
    st.none() | st.integers(-1, 4), st.none() | st.integers(0, 40).map(lambda number: 4 * GIB + number * 64 * MIB),
), max_size=12))
@settings(max_examples=60, deadline=None)
def test_places_never_clash(steps):
    """Whatever is asked for: no two DIMMs share a slot or an address, and all lie where there is room for them."""
    guest = Guest(MACHINE)
    hardware = guest.hardware
    for number, (name, size, slot, address) in enumerate(steps):
        guest.qmp("object-add", qom_type="memory-backend-ram", id=f"m{number}", size=size * MIB)
        where = {"slot": slot, "addr": address}
        try:
            guest.qmp("device_add", driver="pc-dimm", id=name, memdev=f"m{number}", **where)
        except Refused:
            if name in [device.id for device in hardware.devices]:
                unplug(guest, name)
        for op in hardware.work:
            list(op)
        hardware.work.clear()
        check(guest.kernel)

        devices = sorted(hardware.devices, key=lambda device: device.address)
        ends = [device.address + device.backend.size_bytes for device in devices]
        assert all(end <= other.address for end, other in zip(ends, devices[1:], strict=False))
        assert {device.slot for device in devices} <= set(range(4))
        assert len({device.slot for device in devices}) == len(devices)
        assert not devices or (devices[0].address >= 4 * GIB and ends[-1] <= 10 * GIB)
        assert guest.qmp("query-memory-size-summary")["plugged-memory"] <= 2 * GIB


@pytest.mark.parametrize(("arguments", "told"), [
    ({"kind": "water"}, "kind 'water' is none of anon, file"),
    ({"size": -1}, "non-negative"), ({"size": "lots"}, "non-negative"), ({"node": 7}, "node 7"),
    ({"id": "a b"}, "identifier"), ({"movable": True}, "cannot be movable"), ({"size": 1 << 45}, "do not fit"),
])
def test_workloads_that_cannot_be(arguments, told):
    """The answer names the argument and what is allowed; nothing was taken."""
    guest = Guest(MACHINE)
    before = guest.read("proc/meminfo")

    with pytest.raises(Refused, match=told):
        guest.qmp("x-workload-add", **{"id": "w", "kind": "anon", "size": MIB, **arguments})

    assert guest.read("proc/meminfo") == before


@pytest.mark.parametrize(("arguments", "told"), [({"op": "dance"}, "online, offline, add, remove"),
                                                 ({"errno": "EFOO"}, "errno"), ({"count": 0}, "positive")])
def test_faults_that_cannot_be(arguments, told):
    """The same for faults."""
    guest = Guest(MACHINE)

    with pytest.raises(Refused, match=told):
        guest.qmp("x-fault-add", **{"id": "f", "op": "offline", "errno": "EBUSY", **arguments})
    assert guest.qmp("x-query-faults") == []


def test_queries_of_one():
    """With an id they tell of that one only."""
    guest = Guest(MACHINE)
    for name in ("a", "b"):
        guest.fill(name, "anon", MIB)
        guest.qmp("x-fault-add", id=name, op="offline", errno="EBUSY")

    for command in ("x-query-workloads", "x-query-faults"):
        assert [item["id"] for item in guest.qmp(command)] == ["a", "b"]
        assert [item["id"] for item in guest.qmp(command, id="b")] == ["b"]
        assert guest.qmp(command, id="c") == []


# -- the socket -------------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    needs.fuse()
    (tmp_path / "machine.toml").write_text(MACHINE)
    with serving(tmp_path / "m", "--machine", str(tmp_path / "machine.toml"), "--qmp", qmp_of(tmp_path)) as daemon:
        yield daemon


def qmp_of(folder: Path) -> str:
    return str(folder / "qmp")


def test_several_clients_at_once(daemon, tmp_path):
    """Each has its own negotiation; all hear the events; one that goes away in the middle of a line disturbs nobody."""
    with Client.connect(qmp_of(tmp_path)) as one, Client.connect(qmp_of(tmp_path)) as two:
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(qmp_of(tmp_path))
            rude.sendall(b'{"execute": "qmp_cap')
        one.execute("object-add", qom_type="memory-backend-ram", id="m", size=256 * MIB)
        two.execute("device_add", driver="pc-dimm", id="d", memdev="m")

        for client in (one, two):
            event = client.wait_for(lambda event: event["event"] == "ACPI_DEVICE_OST", PATIENCE_S)
            assert event["timestamp"]["seconds"]
        with pytest.raises(CommandError, match="Duplicate device ID"):
            one.execute("device_add", driver="pc-dimm", id="d", memdev="m")


def test_line_that_is_too_long_ends_the_client(daemon, tmp_path):
    """It gets an error; the machine goes on."""
    with socket.socket(socket.AF_UNIX) as long:
        long.connect(qmp_of(tmp_path))
        file = long.makefile("rb")
        file.readline()
        long.sendall(b"x" * (MAX_REQUEST_BYTES + 10))
        assert b"JSON token size limit exceeded" in file.readline()
        assert file.readline() == b""
        file.close()
    with Client.connect(qmp_of(tmp_path)) as client:
        assert client.execute("query-status")["running"]


def test_socket_is_its_owners_alone(daemon, tmp_path):
    """Mode 0600; gone when the machine ends."""
    assert os.stat(qmp_of(tmp_path)).st_mode & 0o777 == 0o600
    daemon.stop()
    assert not os.path.exists(qmp_of(tmp_path))


def test_quit_unmounts(daemon, tmp_path):
    """`quit` is answered, then the daemon ends with exit code 0."""
    with Client.connect(qmp_of(tmp_path)) as client:
        assert client.execute("quit") == {}
    assert daemon.process.wait(PATIENCE_S) == 0
    assert not os.path.ismount(daemon.root)


def test_quit_of_a_client_that_does_not_wait(daemon, tmp_path):
    """The answers to what it said before go first, and without anybody to answer the daemon ends all the same."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(qmp_of(tmp_path))
        client.sendall(b'{"execute": "qmp_capabilities"} {"execute": "quit"}')
    assert daemon.process.wait(PATIENCE_S) == 0


def test_what_was_said_before_quit_is_answered(daemon, tmp_path):
    """All of it in one piece: each request has its answer, and then the connection ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(qmp_of(tmp_path))
        client.sendall(b'{"execute": "qmp_capabilities"}' + b'{"execute": "query-memory-devices"}' * 50
                       + b'{"execute": "quit"}{"execute": "query-version"}')
        said = client.makefile("rb").read().splitlines()
    assert [next(iter(json.loads(line))) for line in said if b"event" not in line] == ["QMP"] + ["return"] * 52
    assert daemon.process.wait(PATIENCE_S) == 0


LIBRARY = """
import asyncio, sys
from qemu.qmp import QMPClient, ExecuteError

async def main():
    qmp = QMPClient("test")
    await qmp.connect(sys.argv[1])
    await qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": 1 << 28})
    with qmp.listener(("ACPI_DEVICE_OST", "DEVICE_DELETED")) as listener:
        await qmp.execute("device_add", {"driver": "pc-dimm", "id": "d", "memdev": "m"})
        print((await listener.get())["data"]["info"]["status"])
        await qmp.execute("device_del", {"id": "d"})
        async for event in listener:
            if event["event"] == "DEVICE_DELETED":
                break
    try:
        await qmp.execute("device_del", {"id": "d"})
    except ExecuteError as error:
        print(error)
    await qmp.disconnect()

asyncio.run(main())
"""


def test_library_of_qemu(daemon, tmp_path):
    """The client library that QEMU's people publish drives the machine."""
    done = subprocess.run([sys.executable, "-c", LIBRARY, qmp_of(tmp_path)], capture_output=True, text=True,
                          check=False, timeout=PATIENCE_S)

    assert done.stdout == "0\nDevice 'd' not found\n", done.stderr


def test_shell_of_qemu(daemon, tmp_path):
    """So does qmp-shell."""
    shell = Path(sys.executable).with_name("qmp-shell")
    if not shell.exists():
        needs.missing("qmp-shell", "pip install qemu.qmp")
    lines = "object-add qom-type=memory-backend-ram id=m size=268435456\ndevice_add driver=pc-dimm id=d memdev=m\n" \
            "query-memory-size-summary\n"

    done = subprocess.run([shell, qmp_of(tmp_path)], input=lines, capture_output=True, text=True, check=False,
                          timeout=PATIENCE_S)

    assert '"plugged-memory": 268435456' in done.stdout, done.stdout + done.stderr
