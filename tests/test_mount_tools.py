"""Ordinary programs on a machine: they give what they give on Linux."""

import ctypes
import os
import re
import shlex
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from host_kit import MEMORY, PATIENCE_S
from mount_kit import FUSE_TYPE, mounted
from run_kit import ME, PEOPLE

from memhpfs.client import Client

pytestmark = [pytest.mark.mount]
me = pytest.mark.parametrize("person", [ME], indirect=True)
everybody = pytest.mark.parametrize("person", PEOPLE, indirect=True)
root_only = pytest.mark.parametrize("person", PEOPLE[:1], indirect=True)

#: 1 GiB of boot memory, and a DIMM of 1 GiB at 4 GiB.
DIMM = ("-M", "tiny", "--set", 'dimm=[{id="d0", size="1G"}]')
#: What is done to it: blocks of ZONE_NORMAL, ZONE_MOVABLE and offline ones in turn.
WRITES = {32: "online_kernel", 34: "online_movable", 35: "online_movable"}
OPTIONS = ("", "-a", "-J", "-P", "-r", "-b", "-n", "-a -J", "-a -P -b", "--output-all", "-a -b -r --output-all",
           "-o RANGE,SIZE,STATE,REMOVABLE,ZONES,NODE,BLOCK", "-o BLOCK -r", "-J --output-all", "-S STATE", "-S ZONES",
           "-S NODE,REMOVABLE", "--summary", "--summary=only", "--summary=never", "--summary=only -b", "-o NONSENSE")


@frozen
class Block:
    """What Linux says of a block."""

    state: str = "offline"
    zones: str = "Normal Movable"


#: The machine after WRITES, by the rules of the kernel's own documentation.
LINUX = {
    0: Block("online", "none"), **{number: Block("online", "DMA32") for number in range(1, 8)},
    32: Block("online", "Normal"), 33: Block(),
    34: Block("online", "Movable"), 35: Block("online", "Movable"),
    36: Block(), 37: Block(), 38: Block(), 39: Block(),
}


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """Plain files that say what Linux says; good enough for programs that only read."""
    memory = tmp_path / "linux" / MEMORY
    memory.mkdir(parents=True)
    (memory / "block_size_bytes").write_text("8000000\n")
    for number, block in LINUX.items():
        folder = memory / f"memory{number}"
        (folder / "node0").mkdir(parents=True)
        for name, text in (("state", block.state), ("valid_zones", block.zones), ("removable", "1")):
            (folder / name).write_text(f"{text}\n")
    parameters = tmp_path / "linux/sys/module/memory_hotplug/parameters"
    parameters.mkdir(parents=True)
    (parameters / "memmap_on_memory").write_text("N\n")
    (tmp_path / "linux/sys/devices/system/node").mkdir()
    return tmp_path / "linux"


def lsmem(sysroot: Path | None) -> str:
    """A script that shows a machine in all ways."""
    where = "" if sysroot is None else f"--sysroot {shlex.quote(str(sysroot))}"
    return "\n".join(f"echo '== {option}'; lsmem {option} {where} 2>&1; echo $?" for option in OPTIONS)


def writes(memory: Path | str) -> str:
    """A script that does WRITES."""
    return "; ".join(f"echo {word} > {memory}/memory{number}/state" for number, word in WRITES.items())


@everybody
def test_lsmem_on_a_mount(person, linux):
    """lsmem --sysroot, with every option, is the same as on Linux."""
    with mounted(person, *DIMM) as machine:
        machine.do("sh", "-c", writes(machine.memory))

        assert machine.do("sh", "-c", lsmem(machine.root)) == subprocess.getoutput(lsmem(linux)) + "\n"


@everybody
def test_lsmem_in_a_machine(person, linux):
    """So is plain lsmem in `run`."""
    done = person.do("memhpfs", "run", *DIMM, "--", "sh", "-c", f"{writes(f'/{MEMORY}')}; {lsmem(None)}")

    assert done.stdout == subprocess.getoutput(lsmem(linux)) + "\n"


@me
def test_lsmem_text(person):
    """The same in so many words, for a person to compare."""
    with mounted(person, *DIMM) as machine:
        machine.do("sh", "-c", writes(machine.memory))

        assert machine.do("lsmem", "-r", "--summary=never", "--output-all", "--sysroot", str(machine.root)) == """\
RANGE SIZE STATE REMOVABLE BLOCK NODE ZONES
0x0000000000000000-0x0000000007ffffff 128M online yes 0 0 None
0x0000000008000000-0x000000003fffffff 896M online yes 1-7 0 DMA32
0x0000000100000000-0x0000000107ffffff 128M online yes 32 0 Normal
0x0000000108000000-0x000000010fffffff 128M offline  33 0 Normal/Movable
0x0000000110000000-0x000000011fffffff 256M online yes 34-35 0 Movable
0x0000000120000000-0x000000013fffffff 512M offline  36-39 0 Normal/Movable
"""


# -- chmem ------------------------------------------------------------------------------------------------------------


def block(number: int, what: str) -> str:
    """What chmem says of a block."""
    return f"Memory Block {number} ({number << 27:#018x}-{((number + 1) << 27) - 1:#018x}) {what}\n"


BUSY = "disable failed: Device or resource busy"
#: A command, its exit code and text, and the blocks 32 to 39 afterwards: offline, in ZONE_NORMAL or in ZONE_MOVABLE.
CHMEM = [
    ("chmem -v -e -b 32-33", 0, block(32, "enabled") + block(33, "enabled"), "MM------"),
    ("chmem -v -e -b 32", 0, block(32, "already enabled"), "MM------"),
    ("chmem -v -d -b 33", 0, block(33, "disabled"), "M-------"),
    ("chmem -v -e 0x110000000-0x117ffffff", 0, block(34, "enabled"), "M-M-----"),
    ("chmem -v -e 256M", 0, block(33, "enabled") + block(35, "enabled"), "MMMM----"),
    ("chmem -v -d 128M", 0, block(35, "disabled"), "MMM-----"),
    ("chmem -v -d 0x108000000-0x117ffffff", 0, block(33, "disabled") + block(34, "disabled"), "M-------"),
    ("chmem -v -e -z Normal -b 33", 0, block(33, "enabled"), "MN------"),
    ("chmem -v -e -z Movable -b 34", 0, block(34, "enabled"), "MNM-----"),
    ("chmem -v -e -z DMA -b 35", 1, "chmem: Memory Block 35 (0x0000000118000000-0x000000011fffffff) enable failed: "
                                    "Zone mismatch\n", "MNM-----"),
    ("chmem -v -e 100M", 1, "chmem: Size must be aligned to memory block size (128M)\n", "MNM-----"),
    ("chmem -v -d 0x100000001-0x107ffffff", 1,
     "chmem: Start address and (end address + 1) must be aligned to memory block size (128M)\n", "MNM-----"),
    ("chmem -v -d -b 39-99", 64, block(39, "already disabled"), "MNM-----"),
    ("chmem -v -d -b 90-99", 1, "", "MNM-----"),
    ("memhpfs fault add f --op offline --block 34 --errno EBUSY", 0, "", "MNM-----"),
    ("chmem -v -d -b 34", 1, "chmem: " + block(34, BUSY), "MNM-----"),
    ("chmem -v -d 0x110000000-0x117ffffff", 1, "chmem: " + block(34, BUSY), "MNM-----"),
    ("chmem -v -e 100G", 64, "chmem: Could only enable 640M of memory\n"
     + "".join(block(number, "enabled") for number in range(35, 40)), "MNMMMMMM"),
]


def chmem() -> str:
    """A script that does CHMEM in whatever is at the real path, if that is a machine."""
    state = "for b in 32 33 34 35 36 37 38 39; do read s < memory$b/state; read z < memory$b/valid_zones; " \
            "case $s$z in onlineNormal) echo -n N;; onlineMovable) echo -n M;; offline*) echo -n -;; esac; done; echo"
    lines = [f"{command} 2>&1; echo = $?; {state}" for command, *_ in CHMEM]
    return "\n".join([f"cd /{MEMORY} && [ $(stat -f -c %t .) = {FUSE_TYPE.strip()} ] || exit 99", *lines])


CHMEM_SAYS = "".join(f"{text}= {code}\n{blocks}\n" for _, code, text, blocks in CHMEM)


@everybody
def test_chmem_in_a_machine(person):
    """chmem by blocks, by range and by size: what it says, its exit code, and what it does."""
    done = person.do("memhpfs", "run", *DIMM, "--", "sh", "-c", chmem())

    assert done.stdout == CHMEM_SAYS


@root_only
def test_chmem_on_a_mount(person):
    """The same through a mount that is bound over the real path."""
    with mounted(person, *DIMM) as machine:
        bind = f"mount --bind {machine.memory} /{MEMORY} && {chmem()}"

        assert machine.do("unshare", "-m", "--propagation", "private", "sh", "-c", bind) == CHMEM_SAYS


@me
def test_chmem_wants_more_than_there_is(person):
    """It takes what it gets, says how much that was, and exits with 64; what refuses stays online."""
    fault = "memhpfs fault add f --op offline --block 34 --errno EBUSY"
    script = f"cd /{MEMORY}; {fault}; chmem -e 100G; chmem -d 100G; echo $?; cat memory34/state"
    done = person.do("memhpfs", "run", *DIMM, "--", "sh", "-c", script)

    assert done.stdout == "64\nonline\n"
    told = r"chmem: Could only enable 1G of memory\nchmem: Could only disable 1\.\dG of memory\n"
    assert re.fullmatch(told, done.stderr)


# -- other programs ---------------------------------------------------------------------------------------------------


def walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files below a directory, in the order of the listing."""
    for entry in os.scandir(root):
        yield Path(entry.path), entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))


@me
def test_every_file_can_be_walked_to(person):
    """Types, link counts and targets are right everywhere, and what can be read has text, but for uevent."""
    with mounted(person, *DIMM) as machine:
        found = dict(walk(machine.root))
        folders = [path for path, status in found.items() if stat.S_ISDIR(status.st_mode)]

        assert len(found) > 400
        for folder in folders:
            assert os.stat(folder).st_nlink == 2 + sum(path.parent == folder for path in folders)
        for path, status in found.items():
            assert status.st_blocks == 0
            if stat.S_ISLNK(status.st_mode):
                assert status.st_size == 0
                # Processors and ACPI devices are not the machine's.
                assert path.exists() or re.fullmatch(r"cpu\d+|firmware_node", path.name)
            elif stat.S_ISREG(status.st_mode) and _refusal(path, status) is None:
                assert path.read_bytes().endswith(b"\n") or path.name == "uevent"


def _refusal(path: Path, status: os.stat_result) -> str | None:
    """How reading a file is refused on Linux, also to root."""
    if not status.st_mode & 0o444:
        return "Permission denied"
    return "Input/output error" if path.name == "autosuspend_delay_ms" else None


@everybody
def test_find_ls_du_and_stat(person):
    """Programs that look at names and attributes have nothing to complain about."""
    with mounted(person, *DIMM) as machine:
        root = str(machine.root)
        names = machine.do("find", root).splitlines()
        folders = machine.do("find", root, "-type", "d").splitlines()
        listed = person.do("ls", "-lR", root)

        assert (listed.returncode, listed.stderr) == (0, "")
        assert len(names) == len(set(names)) > 400
        # A line for each file, and for each directory its name, the total, and an empty line between them.
        assert len(listed.stdout.splitlines()) == len(names) - 1 + 3 * len(folders) - 1
        assert machine.do("find", root, "-name", "state", "-size", "4096c").count("\n") == len(LINUX)
        assert machine.do("du", "-s", root) == f"0\t{root}\n"
        assert machine.do("stat", "-f", "-c", "%l %s %S %b %f %a %c %d", root) == "255 4096 4096 0 0 0 0 0\n"


READERS = {
    "cat": "find sys proc -type f -exec cat {} + > ../out",
    "grep": "grep -r nothing-has-this-text sys proc",
    "cp": "cp -r sys proc ../copy",
    "tar": "tar -cf ../m.tar sys proc",
}


@everybody
def test_programs_that_read_everything(person):
    """They are refused where they are on Linux and nowhere else, and get what the files say."""
    with mounted(person, *DIMM) as machine:
        person.do("mkdir", "copy")
        listing = machine.do("find", str(machine.root), "-type", "f", "-printf", "%P %m\n").splitlines()
        modes = {name: int(mode, 8) for name, mode in (line.split(" ") for line in listing)}
        refused = {name: "Permission denied" for name, mode in modes.items() if not mode & 0o444}
        refused |= {name: "Input/output error" for name in modes if name.endswith("/autosuspend_delay_ms")}

        for program, command in READERS.items():
            done = person.do("sh", "-c", f"cd m && export LC_ALL=C && {command}")
            assert _complaints(done.stderr) == refused, program
        contents = "find sys -type f -perm /444 ! -name autosuspend_delay_ms | sort | xargs tail -n +1"
        assert machine.do("sh", "-c", f"cd copy && {contents}") == machine.do("sh", "-c", f"cd m && {contents}")
        with tarfile.open(person.home / "m.tar") as archive:
            members = {member.name for member in archive if member.isfile()}
            state = archive.extractfile("sys/devices/system/memory/memory32/state")
            assert state is not None
            assert state.read().rstrip(b"\0") == b"offline\n"
        assert members == modes.keys() - {name for name, why in refused.items() if why == "Permission denied"}


def _complaints(stderr: str) -> dict[str, str]:
    """Files that a program could not read, and why."""
    reason = "(Permission denied|Input/output error)"
    return dict(re.findall(rf"[ '`]((?:sys|proc)/[^': ]+).*: {reason}$", stderr, re.MULTILINE))


# -- watching, and looking while things change ------------------------------------------------------------------------

_EVENTS = {0x1: "access", 0x2: "modify", 0x8: "close-write", 0x10: "close", 0x20: "open"}


class Inotify:
    """What inotify(7) tells of some paths."""

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in paths:
            assert libc.inotify_add_watch(self.descriptor, os.fsencode(path), 0xFFF) > 0

    def told(self) -> list[str]:
        """Events since the last time, with the name where a directory is watched; those of directories left out."""
        found, at = [], 0
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return []
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16:at + 16 + length].rstrip(b"\0").decode()
            at += 16 + length
            if not mask & 0x40000000:
                found.append(f"{_EVENTS.get(mask, mask)} {name}".strip())
        return found


@me
def test_inotify(person):
    """Watchers hear of what processes do to a file, of no failed write, and of nothing the kernel does."""
    with mounted(person, *DIMM) as machine:
        state = machine.state(32)
        watch = Inotify(state, state.parent, machine.memory)
        try:
            state.read_bytes()
            assert set(watch.told()) == {"open", "access", "close", "open state", "access state", "close state"}

            machine.do("sh", "-c", f"echo online_movable >> {state}")
            assert set(watch.told()) == {"open", "modify", "close-write", "open state", "modify state",
                                         "close-write state"}

            assert person.do("sh", "-c", f"echo online >> {state}").returncode == 1
            assert set(watch.told()) == {"open", "close-write", "open state", "close-write state"}

            machine.do("memhpfs", "plug", "d1", "--size", "128M")
            assert watch.told() == []
        finally:
            os.close(watch.descriptor)


#: What lsmem shows of a block that comes and goes.
STATES = ("offline", "?")


@me
def test_lsmem_while_blocks_come_and_go(person):
    """lsmem sees what is there, or as on Linux that a block goes: it finds no state, or fails to open the directory."""
    with mounted(person, *DIMM, "--qmp", "q") as machine:
        show = "lsmem -a -r -n --summary=never --sysroot m"
        before = machine.do("sh", "-c", show)
        loop = f"until [ -e stop ]; do {show} >> out 2>> err; echo $? >> codes; done"
        with subprocess.Popen(person.argv("sh", "-c", loop), cwd=person.home):
            try:
                _plug_and_unplug(str(person.home / "q"))
            finally:
                (person.home / "stop").touch()

        assert machine.do("sh", "-c", show) == before
    out, err, codes = [(person.home / name).read_text().splitlines() for name in ("out", "err", "codes")]
    ranges = {f"{n << 27:#018x}-{((n + 1) << 27) - 1:#018x} 128M": n for n in range(40, 44)}
    partly = {f"{text} {state}  {n}" for text, n in ranges.items() for state in STATES}
    assert set(out) <= {*before.splitlines(), *partly}
    assert set(err) <= {f"lsmem: Failed to open memory{n}: No such file or directory" for n in ranges.values()}
    assert (codes.count("0") > 1, codes.count("1")) == (True, len(err))


def _plug_and_unplug(path: str) -> None:
    """A DIMM of four blocks, many times."""
    with Client.connect(path) as client:
        for _ in range(100):
            client.execute("object-add", qom_type="memory-backend-ram", id="mem", size=1 << 29)
            client.execute("device_add", driver="pc-dimm", id="d1", memdev="mem")
            client.wait_for(lambda event: event["event"] == "ACPI_DEVICE_OST", PATIENCE_S)
            client.execute("device_del", id="d1")
            client.wait_for(lambda event: event["event"] == "DEVICE_DELETED", PATIENCE_S)
            client.execute("object-del", id="mem")
