"""Garbage in every writable file: Linux's errno, nothing half done, and the machine goes on."""

import errno
import os
import random
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount_kit import mounted
from run_kit import ME

from memhpfs.errors import Poisoned, SysError
from memhpfs.kernel.check import check
from memhpfs.kernel.pause import run_now
from memhpfs.kernel.state import Kernel
from memhpfs.machine.load import load
from memhpfs.qmp.power_on import power_on
from memhpfs.sysfs.tree import Tree

OPTIONS = ('with=["probe"]', 'dimm=[{id="d0", size="128M"}]')
_DICE = random.Random(20)
#: What no parser takes.
JUNK = (
    b"\0", b"\0online", b"\n", b"\n\n", b" ", b"   \n", b" online", b"%s%n", b"--", b"+", b"=", b"/", b"..",
    b"-" * 4096, b"x" * 5000, bytes(range(1, 256)), bytes(range(128, 256)) * 20, "größer".encode(), "☃\n".encode(),
    b"\xed\xa0\x80",
    *(b"\xff" + _DICE.randbytes(length) for length in (1, 31, 300, 4095)),
)
#: What some parser takes, at least its beginning.
NUMBERS = (
    b"", b"-1", b"-0", b"-18446744073709551615", b"9" * 30, b"1" * 5000, b"0x" + b"f" * 30, b"18446744073709551615",
    b"18446744073709551616", b"0 ", b"0\t", b"00", b"08", b"0x", b"0x0x1", b"1e3", b"1.5", b"online\0junk", b"online  ",
    b"ONLINE", b"offlineonline", b"y" * 5000, b"add ", b"add x", b"add 0",
    *(b"%d" % _DICE.getrandbits(64) for _ in range(4)),
)
#: What a file answers to junk, by its name; 0: it takes anything.
REFUSES = {"autosuspend_delay_ms": errno.EIO, "compact": 0, "drivers_autoprobe": 0, "drivers_probe": errno.ENODEV}
#: What it may answer to numbers, beside success; others EINVAL and ERANGE.
MAY_ANSWER = {
    "autosuspend_delay_ms": {errno.EIO},
    "compact": set(),
    "drivers_autoprobe": set(),
    "drivers_probe": {errno.ENODEV},
    "hard_offline_page": {errno.EINVAL, errno.ENXIO, errno.EBUSY, Poisoned.errno},
    # EPERM: what was injected into the notifiers by then.
    "online": {errno.EINVAL, errno.EBUSY, errno.EPERM},
    "state": {errno.EINVAL, errno.EBUSY, errno.EPERM},
    "probe": {errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.EEXIST},
    "soft_offline_page": {errno.EINVAL, errno.ENXIO, errno.EBUSY, errno.EIO},
    "reclaim": {errno.EINVAL, errno.EAGAIN},
}


class Files:
    """The files of a machine in this process."""

    def __init__(self, kernel: str) -> None:
        hardware = power_on(load("tiny", [f'kernel="{kernel}"', *OPTIONS]))
        while hardware.work:
            run_now(hardware.work.popleft())
        self.kernel: Kernel = hardware.kernel
        self.tree = Tree(self.kernel, lambda: 0)

    def walk(self, mode: int) -> Iterator[tuple[str, int]]:
        """Path and inode number of the files that have one of these mode bits."""
        folders = [("", Tree.ROOT)]
        for folder, ino in folders:
            for child in self.tree.children(ino):
                found = self.tree.attributes(child.ino).mode
                if stat.S_ISDIR(found):
                    folders.append((f"{folder}/{child.name}", child.ino))
                elif stat.S_ISREG(found) and found & mode:
                    yield f"{folder}/{child.name}", child.ino

    def write(self, ino: int, data: bytes) -> int:
        """Write, and see that everything adds up; the errno, or 0."""
        try:
            taken = self.tree.write(ino, data)
            if not isinstance(taken, int):
                taken = run_now(taken)
            assert taken == min(len(data), 4096)
        except SysError as refusal:
            return refusal.errno
        finally:
            check(self.kernel)
        return 0

    def contents(self) -> dict[str, object]:
        """What all files say."""
        return {path: self._text(ino) for path, ino in self.walk(0o444)}

    def _text(self, ino: int) -> object:
        try:
            text = self.tree.read(ino)
            return text if isinstance(text, bytes) else run_now(text)
        except SysError as refusal:
            return refusal.errno


@pytest.fixture(params=["6.1", "6.12", "7.3"])
def files(request: pytest.FixtureRequest) -> Files:
    return Files(request.param)


def test_junk_is_refused_and_changes_nothing(files):
    """What no parser takes gets one errno from each file, and leaves every file as it was."""
    before = files.contents()
    answers = {(path, data): files.write(ino, data) for path, ino in list(files.walk(0o222)) for data in JUNK}
    wanted = {(path, data): REFUSES.get(Path(path).name, errno.EINVAL) for path, data in answers}

    assert answers == wanted
    assert files.contents() == before


def test_numbers(files):
    """What some parser takes gets success or an errno that the file can answer on Linux, and nothing breaks."""
    seen: dict[str, set[int]] = {}
    for path, ino in list(files.walk(0o222)):
        for data in NUMBERS:
            seen.setdefault(Path(path).name, set()).add(files.write(ino, data))

    strange = {name: found - MAY_ANSWER.get(name, {errno.EINVAL, errno.ERANGE}) - {0} for name, found in seen.items()}
    assert {name: found for name, found in strange.items() if found} == {}
    assert {"state", "online", "probe", "online_policy", "uevent", "error", "nr_hugepages"} <= seen.keys()
    assert all(len(found) > 1 or found == {0} for found in seen.values())


@pytest.mark.mount
@pytest.mark.parametrize("person", [ME], indirect=True)
def test_on_a_mount(person):
    """System calls answer the same, and the daemon goes on without a bug.  A write of nothing never reaches it."""
    files = Files("6.12")
    inside = {path: ino for path, ino in files.walk(0o222) if re.search(r"/memory(?!32/)\d+/", path) is None}
    with mounted(person, "-M", "tiny", *(word for option in OPTIONS for word in ("--set", option))) as machine:
        answers = {(path, data): _write(Path(f"{machine.root}{path}"), data)
                   for path in inside for data in JUNK + NUMBERS if data}
        machine.state(1).write_text("offline")

        assert machine.state(1).read_text() == "offline\n"
        assert answers == {(path, data): files.write(inside[path], data) for path, data in answers}
    assert "tainted" not in machine.said


def _write(path: Path, data: bytes) -> int:
    """One write(2); the errno, or 0."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        assert os.write(descriptor, data) == min(len(data), 4096)
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(descriptor)
    return 0
