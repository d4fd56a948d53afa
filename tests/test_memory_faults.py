"""Faults on demand, broken pages, and the last block of a zone."""

import errno
import re

import pytest
from guest_kit import MEMORY, MOVABLE, Guest

from memhpfs.errors import SysError
from memhpfs.kernel.poison import hard_offline_page
from memhpfs.units import MIB

#: Not in the module errno of every Python.
EHWPOISON = 133
OFFLINE = 'ram = "2G"\ncmdline = "memhp_default_state=offline"\n'
BLOCK = 128 * MIB


def errno_of(guest: Guest, path: str, text: str) -> int:
    """What a write answers; 0 for success."""
    try:
        guest.write(path, text)
    except SysError as error:
        return error.errno
    return 0


def state(block: int) -> str:
    return f"{MEMORY}/memory{block}/state"


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "word"), [("online", "online_movable"), ("offline", "offline")])
@pytest.mark.parametrize("name", ["EBUSY", "ENOMEM", "EIO", "EPERM", "EINTR"])
def test_fault_of_a_block_as_often_as_asked_for(op, word, name):
    """The errno comes that often, for that block only; then the operation succeeds."""
    guest = Guest(OFFLINE + 'dimm = [{id = "d0", size = "256M"}]')
    if op == "offline":
        guest.write(state(32), "online_movable")
        guest.write(state(33), "online_movable")
    guest.qmp("x-fault-add", id="f", op=op, errno=name, block=33, count=2)

    assert errno_of(guest, state(32), word) == 0
    assert [errno_of(guest, state(33), word) for _ in range(3)] == [getattr(errno, name)] * 2 + [0]


def test_fault_stays_until_it_is_taken_back():
    """Without a count, and for all blocks without a block."""
    guest = Guest(OFFLINE + 'dimm = [{id = "d0", size = "256M"}]')
    guest.qmp("x-fault-add", id="f", op="online", errno="ENOSPC")
    assert {errno_of(guest, state(block), "online") for block in (32, 33, 32)} == {errno.ENOSPC}

    guest.qmp("x-fault-del", id="f")

    assert errno_of(guest, state(32), "online") == 0


def test_fault_when_memory_is_added():
    """The DIMM is there, its memory is not; the kernel says so, and a second DIMM works."""
    guest = Guest(OFFLINE)
    guest.qmp("x-fault-add", id="f", op="add", errno="ENOMEM", count=1)

    guest.plug("d0", 256 * MIB)
    assert 32 not in guest.kernel.blocks
    assert any("add_memory failed" in line for line in guest.said())

    guest.plug("d1", 256 * MIB)
    assert {34, 35} <= set(guest.kernel.blocks)


def test_fault_when_memory_is_removed():
    """The guest refuses to give the DIMM back, and its blocks are as they were."""
    guest = Guest(OFFLINE + 'dimm = [{id = "d0", size = "256M"}]')
    guest.qmp("x-fault-add", id="f", op="remove", errno="EBUSY", count=1)
    guest.unplug("d0")

    assert [event["event"] for event in guest.hardware.events][-1] == "DEVICE_UNPLUG_GUEST_ERROR"
    assert guest.state(32) == "offline"


@pytest.mark.parametrize("action", ["MEM_GOING_ONLINE", "MEM_GOING_OFFLINE"])
def test_notifier_error_inject(action):
    """The files of the kernel's own fault injection: the number written is the errno, 0 ends it."""
    guest = Guest(OFFLINE + 'dimm = [{id = "d0", size = "256M"}]')
    guest.write(state(33), "online_movable")
    block, word = (32, "online_movable") if action == "MEM_GOING_ONLINE" else (33, "offline")
    file = f"sys/kernel/debug/notifier-error-inject/memory/actions/{action}/error"

    guest.write(file, "-12")
    assert errno_of(guest, state(block), word) == errno.ENOMEM

    guest.write(file, "0")
    assert errno_of(guest, state(block), word) == 0


# -- poison -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "online_again"), [("6.1", 0), ("6.12", EHWPOISON), ("7.3", EHWPOISON)])
def test_block_with_a_broken_page(release, online_again):
    """It goes offline without the page; newer kernels do not let it go online again."""
    guest = Guest(MOVABLE + f'kernel = "{release}"\n')
    guest.write(f"{MEMORY}/hard_offline_page", hex(33 * BLOCK + 0x5000))
    assert "HardwareCorrupted:     4 kB" in guest.read("proc/meminfo")

    guest.write(state(33), "offline")

    assert errno_of(guest, state(33), "online_movable") == online_again


def test_broken_pages_are_counted():
    """By what became of them, and once each."""
    guest = Guest()
    counters = "sys/devices/system/node/node0/memory_failure"
    for address in (33 * BLOCK, 33 * BLOCK, 34 * BLOCK):
        errno_of(guest, f"{MEMORY}/hard_offline_page", hex(address))

    assert guest.read(f"{counters}/recovered") == "2\n"
    assert guest.read(f"{counters}/total") == "2\n"
    assert sum("recovery action for free buddy page: Recovered" in line for line in guest.said()) == 2


def test_soft_offline_keeps_what_the_page_held():
    """Its contents have moved: as many pages are in use, one less is free."""
    guest = Guest()
    guest.fill("programs", "anon", 128 * MIB)

    def numbers() -> dict[str, int]:
        return {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", guest.read("proc/meminfo"), re.M)}

    before = numbers()
    guest.write(f"{MEMORY}/soft_offline_page", hex(39 * BLOCK + 0x1000))
    after = numbers()

    assert after["AnonPages"] == before["AnonPages"]
    assert after["MemFree"] == before["MemFree"] - 4
    assert after["HardwareCorrupted"] == 4


def test_page_of_the_kernel_cannot_be_given_up():
    """hard_offline_page says EBUSY and counts it as ignored; the block keeps working."""
    guest = Guest()

    with pytest.raises(SysError) as refused:
        hard_offline_page(guest.kernel, 15 * BLOCK + 0x7000)

    assert refused.value.errno == errno.EBUSY
    assert guest.read("sys/devices/system/node/node0/memory_failure/ignored") == "1\n"


# -- the last block ---------------------------------------------------------------------------------------------------


def test_last_block_of_a_zone():
    """The zone is empty then, spans nothing, and the kernel builds its zone lists anew."""
    guest = Guest(MOVABLE.replace('"1G"', '"256M"'))
    guest.set_state(32, "offline")
    guest.said()

    guest.set_state(33, "offline")

    zone = guest.kernel.nodes[0].zones["Movable"]
    assert (zone.present_pages, zone.managed_pages, zone.spanned_pages) == (0, 0, 0)
    assert any(line.startswith("Built 1 zonelists") for line in guest.said())


def test_last_block_of_a_node():
    """The node has no memory any more."""
    guest = Guest("""
    cmdline = "memhp_default_state=online_movable"
    node = [{id = 0, ram = "2G"}, {id = 1, ram = 0}]
    dimm = [{id = "d0", size = "128M", node = 1}]
    """)
    assert guest.read("sys/devices/system/node/has_memory") == "0-1\n"

    guest.set_state(32, "offline")

    assert guest.read("sys/devices/system/node/has_memory") == "0\n"
