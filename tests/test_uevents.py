"""Uevents on netlink, as listeners in the machine's network namespace receive them."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from host_kit import wait_until
from mount_kit import Mounted, mounted
from run_kit import PEOPLE, Person

from memhpfs.replay.network import private_network, uevent_socket

#: The computer's own kernel tells every namespace of its devices, e.g. of mounts.
SUBSYSTEMS = {f"SUBSYSTEM={name}" for name in ("memory", "node", "bus", "module")}
UUID = "0123abcd-0000-1111-2222-0123456789AB"

root_only = pytest.mark.parametrize("person", PEOPLE[:1], indirect=True)
pytestmark = [root_only, pytest.mark.root, pytest.mark.mount]


class Listener:
    """Hears the uevents of machines."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard: list[list[str]] = []

    def listen(self, number: int) -> list[list[str]]:
        """The next messages, split at NUL, the last word without its number; no more have come."""
        wait_until(lambda: len(self._heard()) >= number)
        heard, self.heard = self.heard, []
        assert len(heard) == number
        return heard

    def short(self, number: int) -> list[str]:
        """The next messages as action@name."""
        return [message[0].replace("/devices/system/", "").replace("node/", "").replace("memory/", "")
                for message in self.listen(number)]

    def _heard(self) -> list[list[str]]:
        while True:
            try:
                message = self.sock.recv(1 << 16).decode().split("\0")
            except BlockingIOError:
                return self.heard
            if SUBSYSTEMS & set(message):
                self.heard.append(message)


@contextmanager
def listening(person: Person, *options: str) -> Iterator[tuple[Mounted, Listener]]:
    """A machine that sends uevents, and somebody who hears them."""
    with private_network(), uevent_socket() as sock, mounted(person, "--uevents", *options) as machine:
        yield machine, Listener(sock)


@pytest.mark.parametrize(("kernel", "added"), [
    ("6.1", ["add@memory56", "add@memory57", "add@node2"]),
    ("6.12", ["add@memory56", "add@memory57", "add@node2"]),
    ("7.3", ["add@node2", "add@memory56", "add@memory57"]),
])
def test_order(person, kernel, added):
    """What is plugged is added, onlined, offlined and removed in the order of the kernel."""
    with listening(person, "-M", "numa2", "--set", f'kernel="{kernel}"') as (machine, listener):
        machine.do("memhpfs", "plug", "d0", "--size", "256M", "--node", "2")
        assert listener.short(3) == added

        machine.state(57).write_text("online_movable")
        machine.state(57).write_text("offline")
        machine.state(56).write_text("online_movable")
        assert listener.short(3) == ["online@memory57", "offline@memory57", "online@memory56"]

        machine.do("memhpfs", "unplug", "d0")
        assert listener.short(4) == ["offline@memory56", "remove@memory56", "remove@memory57", "remove@node2"]


def test_order_with_auto_online(person):
    """Blocks that go online by themselves do so after all of them were added."""
    with listening(person, "-M", "movable") as (machine, listener):
        machine.do("memhpfs", "plug", "d0", "--size", "256M")

        assert listener.short(4) == ["add@memory40", "add@memory41", "online@memory40", "online@memory41"]


def test_content(person):
    """A message is header, ACTION, DEVPATH, SUBSYSTEM, SEQNUM and nothing else, and the numbers rise."""
    with listening(person, "-M", "tiny") as (machine, listener):
        machine.do("memhpfs", "plug", "d0", "--size", "256M")
        machine.state(33).write_text("online")
        first, second, third = listener.listen(3)

    path = "/devices/system/memory/memory33"
    assert third[:4] == [f"online@{path}", "ACTION=online", f"DEVPATH={path}", "SUBSYSTEM=memory"]
    assert third[5:] == [""]
    numbers = [int(re.fullmatch(r"SEQNUM=(\d+)", message[4])[1]) for message in (first, second, third)]
    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize(("file", "text", "sent"), [
    ("devices/system/memory/memory0", "change", ["change", "memory", "SYNTH_UUID=0"]),
    ("devices/system/memory/memory0", "offline\n", ["offline", "memory", "SYNTH_UUID=0"]),
    ("devices/system/node/node0", "add\0", ["add", "node", "SYNTH_UUID=0"]),
    ("devices/system/node/node0", f"add {UUID}\0junk", ["add", "node", f"SYNTH_UUID={UUID}"]),
    ("devices/system/memory/memory0", f"add {UUID}", ["add", "memory", f"SYNTH_UUID={UUID}"]),
    ("devices/system/memory/memory0", f"bind {UUID} A=1 key=Value\n",
     ["bind", "memory", f"SYNTH_UUID={UUID}", "SYNTH_ARG_A=1", "SYNTH_ARG_key=Value"]),
    ("bus/memory", "unbind", ["unbind", "bus", "SYNTH_UUID=0"]),
    ("module/memory_hotplug", "move", ["move", "module", "SYNTH_UUID=0"]),
])
def test_what_one_asks_for(person, file, text, sent):
    """A write to a uevent file sends it with the identifier and the arguments of the writer, and changes nothing."""
    with listening(person, "-M", "tiny") as (machine, listener):
        (machine.root / "sys" / file / "uevent").write_bytes(text.encode())
        (message,) = listener.listen(1)

        assert machine.state(0).read_text() == "online\n"

    action, subsystem, *extra = sent
    assert message[:4] == [f"{action}@/{file}", f"ACTION={action}", f"DEVPATH=/{file}", f"SUBSYSTEM={subsystem}"]
    assert message[4:-2] == extra
    assert message[-2].startswith("SEQNUM=")


def test_nothing_is_sent(person):
    """Of the root devices, of bad words, of what was refused, and into other network namespaces."""
    with private_network(), uevent_socket() as other, listening(person, "-M", "tiny") as (machine, listener):
        for folder in ("memory", "node"):
            (machine.root / f"sys/devices/system/{folder}/uevent").write_text("add")
        for path, text in ((machine.memory / "memory1/uevent", "junk"), (machine.state(1), "online")):
            with pytest.raises(OSError, match="Invalid argument"):
                path.write_text(text)
        (machine.memory / "memory0/uevent").write_text("change")

        assert listener.short(1) == ["change@memory0"]
        assert Listener(other).listen(0) == []


def test_a_listener_that_does_not_read(person):
    """It misses uevents; nobody waits for it."""
    with listening(person, "-M", "tiny") as (machine, listener):
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        uevent = machine.memory / "memory0/uevent"
        for _ in range(200):
            uevent.write_text("change")

        with pytest.raises(OSError, match="No buffer space"):
            listener.listen(200)


def test_mount_sends_none_unasked(person):
    """Without --uevents nothing is sent, wherever it runs."""
    with private_network(), uevent_socket() as sock, mounted(person, "-M", "tiny") as machine:
        (machine.memory / "memory0/uevent").write_text("change")

        assert Listener(sock).listen(0) == []
