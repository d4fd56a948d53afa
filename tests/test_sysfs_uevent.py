"""What a write to a `uevent` file is answered, where no transcript looks: NULs, letters, and room."""

import errno

import pytest
from guest_kit import MEMORY, Guest

from memhpfs.errors import SysError
from memhpfs.kernel.journal import LogRecord, Uevent
from memhpfs.sysfs import klog

UUID = "5a7c3d2e-8b1f-4c6d-9e0a-1b2c3d4e5f60"
BLOCK, ROOT = f"{MEMORY}/memory0/uevent", f"{MEMORY}/uevent"
#: A uevent has 64 variables: ACTION, DEVPATH, SUBSYSTEM, SEQNUM, SYNTH_UUID, and the writer's.
FULL = 59


def arguments(count: int) -> str:
    return f"add {UUID}" + " A=1" * count


@pytest.fixture
def guest():
    return Guest('ram = "1G"')


def refused(guest: Guest, path: str, text: str) -> tuple[int, list[str]]:
    """The errno, and what is logged; nothing is sent."""
    with pytest.raises(SysError) as refusal:
        guest.write(path, text)
    entries = list(guest.kernel.journal.drain())
    assert all(isinstance(entry, LogRecord) for entry in entries)
    return refusal.value.errno, [klog.line(entry)[1] for entry in entries]


@pytest.mark.parametrize("text", ["add\0", f"add {UUID}\0", f"add {UUID}\0junk", f"add {UUID} A=1\0\n",
                                  f"add {UUID} \xe9\xff=\xc0", arguments(FULL)])
def test_sent(guest, text):
    """A NUL ends the arguments, the letters are those of Latin-1, and the room is used to the last variable."""
    guest.write(BLOCK, text)

    (event,) = guest.kernel.journal.drain()
    assert isinstance(event, Uevent)
    assert (event.action, event.name) == ("add", 0)


@pytest.mark.parametrize("text", ["add\0\n", "add\n\0", "add\0junk", "\0", f"add {UUID} \xd7=1", f"add {UUID} A=\xf7",
                                  arguments(64), f"add {UUID} A={'x' * 2000}"])
def test_not_understood(guest, text):
    """A NUL that is not the last byte of the action; signs of Latin-1; more than there is room for at all."""
    assert refused(guest, BLOCK, text)[0] == errno.EINVAL


@pytest.mark.parametrize("text", [arguments(FULL + 1), arguments(63), f"add {UUID} A={'x' * 1980}"])
def test_no_room_beside_the_kernels_own(guest, text):
    """What parses, but does not fit together with the kernel's variables; a root device sends nothing."""
    assert refused(guest, BLOCK, text) == (errno.ENOMEM, [
        "synth uevent: /devices/system/memory/memory0: failed to send uevent",
        "memory memory0: uevent: failed to send synthetic uevent: -12",
    ])

    guest.write(ROOT, text)
    assert not guest.kernel.journal
