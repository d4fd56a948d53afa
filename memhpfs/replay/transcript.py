"""Transcripts of real kernels: what was done to a machine, and what Linux answered.

Lives here: reading a transcript, checked, as records.  Must not: doing or comparing anything.
A transcript is JSON lines: a header (the machine, and all followed files right after boot), then one step a line.
"""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from memhpfs.errors import UserError

__all__ = ["Header", "Outcome", "Step", "Transcript", "VirtioMem", "errno_name", "read"]

#: What a step of each kind must say.
_STEP_KEYS: dict[str, dict[str, type]] = {
    "put": {"path": str, "data": str},
    "cat": {"path": str},
    "ls": {"path": str},
    "stat": {"path": str},
    "readlink": {"path": str},
    "sys": {"args": list},
    "plug": {"id": str, "size": int},
    "unplug": {"id": str},
    "virtio": {"id": str, "size": int},
    "inject": {"action": str, "error": int},
    "hog": {"kind": str, "bytes": int},
    "free": {"pid": int},
    "sh": {},
}
#: The arguments of each system call; `open` may have a mode as well.
_SYSTEM_CALLS: dict[str, tuple[type, ...]] = {
    "open": (int, str, int),
    "close": (int,),
    "read": (int, int, int),
    "write": (int, int, str),
    "lseek": (int, int, int),
    "poll": (int, int, int),
    "truncate": (str, int),
    "mkdir": (str,),
    "rmdir": (str,),
    "unlink": (str,),
    "rename": (str, str),
    "symlink": (str, str),
    "link": (str, str),
    "mknod": (str,),
    "chmod": (str, int),
    "chown": (str, int, int),
    "utime": (str,),
    "access": (str, int),
    "listxattr": (str,),
    "getxattr": (str, str),
    "setxattr": (str, str),
    "mmap": (str, int, int),
    "fallocate": (str,),
    "fsync": (str,),
    "statfs": (str,),
}
_HEADER_KEYS = {"machine": dict, "uname": str, "arch": str, "suite": str, "boot": dict}
_MACHINE_KEYS = {"name": str, "ram": str, "slots": int, "maxmem": str, "cmdline": str}
_BOOT_KEYS = {"iomem": list, "block_size_bytes": str}

#: What a step is about, in the order that is looked for.
_ABOUT = ("path", "args", "id", "action", "kind", "pid")


def errno_name(number: int) -> str:
    """The name of an errno, or its number where it has no name."""
    return errno.errorcode.get(number, str(number))


@frozen
class Outcome:
    """What came of a step.

    Attributes:
        ok: the answer, as JSON has it.
        errno: the number of the refusal, 0 for success.
        failed: why the step could not be done at all; Linux never answers so.
    """

    ok: Any = None
    errno: int = 0
    failed: str = ""

    def __str__(self) -> str:
        return self.failed or (errno_name(self.errno) if self.errno else f"ok {self.ok!r}")


@frozen
class VirtioMem:
    """A virtio-mem device of the recorded machine; sizes as they were written."""

    id: str
    node: int
    maxsize: str
    block: str
    requested: str


@frozen
class Header:
    """The first line: the machine, and what it showed after boot.

    Attributes:
        name, arch, suite: of the run.
        release: kernel release, such as 6.12.
        ram, maxmem: sizes as they were written.
        numa: RAM of each node where there are several.
        boot: the followed files, by key.
    """

    name: str
    arch: str
    suite: str
    release: str
    cmdline: str
    ram: str
    slots: int
    maxmem: str
    numa: tuple[str, ...]
    virtio_mem: tuple[VirtioMem, ...]
    boot: Mapping[str, Any]


@frozen
class Step:
    """One step.

    Attributes:
        number: from 1; its line is one more.
        do: what kind of step.
        fields: everything else that the line says.
        outcome: what Linux answered.
        uevents: what it sent meanwhile, in order.
        changed: followed files that changed, None for those that are gone; None if nobody looked.
    """

    number: int
    do: str
    fields: Mapping[str, Any]
    outcome: Outcome
    uevents: tuple[Mapping[str, str], ...] = ()
    changed: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        about = next((self.fields[key] for key in _ABOUT if key in self.fields), "")
        if isinstance(about, list):
            about = " ".join(str(word).removeprefix("h:")[:80] for word in about)
        data = f" {self.fields['data']!r}"[:40] if "data" in self.fields else ""
        return f"step {self.number} {self.do} {about}{data}".rstrip()


@frozen
class Transcript:
    """A whole run."""

    path: str
    header: Header
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return Path(self.path).name.removesuffix(".jsonl")


def read(path: str) -> Transcript:
    """Read a transcript.

    Raises:
        UserError: naming the file, the line and what is wrong there.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", 2) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}", 2) from None
    if not lines:
        raise UserError(f"{path}: empty; a transcript begins with a header line", 2)
    records = [_record(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
    header = _header(records[0], f"{path}:1")
    steps = tuple(_step(record, number, f"{path}:{number + 1}") for number, record in enumerate(records[1:], 1))
    return Transcript(path, header, steps)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error.msg} at column {error.colno}", 2) from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON object is expected, not {type(record).__name__}", 2)
    return record


def _check(record: Mapping[str, Any], keys: Mapping[str, type], what: str, where: str) -> None:
    """Check that a record says what it must.

    Raises:
        UserError: naming the key.
    """
    for key, kind in keys.items():
        if key not in record:
            raise UserError(f"{where}: {what} has no {key!r}", 2)
        if not isinstance(record[key], kind):
            raise UserError(f"{where}: {key!r} of {what} is expected to be {kind.__name__}, not {record[key]!r:.40}", 2)


def _header(record: dict[str, Any], where: str) -> Header:
    _check(record, _HEADER_KEYS, "the header", where)
    machine, boot = record["machine"], record["boot"]
    _check(machine, _MACHINE_KEYS, "'machine'", where)
    _check(boot, _BOOT_KEYS, "'boot'", where)
    release = ".".join(record["uname"].split(".")[:2])
    return Header(
        machine["name"], record["arch"], record["suite"], release, machine["cmdline"], machine["ram"],
        machine["slots"], machine["maxmem"], tuple(machine.get("numa") or ()),
        tuple(_virtio_mem(item, where) for item in machine.get("virtio_mem") or ()), boot,
    )


def _virtio_mem(record: dict[str, Any], where: str) -> VirtioMem:
    _check(record, {"id": str, "maxsize": str}, "a virtio-mem device", where)
    return VirtioMem(
        record["id"], record.get("node", 0), record["maxsize"], record.get("block", "2M"),
        str(record.get("requested", "0")),
    )


def _step(record: dict[str, Any], number: int, where: str) -> Step:
    _check(record, {"do": str}, "the step", where)
    do = record["do"]
    if do not in _STEP_KEYS:
        raise UserError(f"{where}: unknown step {do!r}; allowed are {', '.join(_STEP_KEYS)}", 2)
    _check(record, _STEP_KEYS[do], f"the step {do!r}", where)
    if do == "sys":
        _check_call(record["args"], where)
    return Step(
        number, do, record, _outcome(record, where), tuple(record.get("uevents") or ()), record.get("changed"),
    )


def _check_call(words: list[Any], where: str) -> None:
    """Check that a raw system call is known and has its arguments.

    Raises:
        UserError: naming the call.
    """
    if words[:1] == ["as"]:
        words = words[2:]
    kinds = _SYSTEM_CALLS.get(words[0]) if words and isinstance(words[0], str) else None
    if kinds is None:
        raise UserError(f"{where}: unknown system call {words[:1]}; allowed are {', '.join(_SYSTEM_CALLS)}", 2)
    arguments = words[1:4] if words[0] == "open" else words[1:]
    if [type(word) for word in arguments] != list(kinds):
        wanted = ", ".join(kind.__name__ for kind in kinds)
        raise UserError(f"{where}: the arguments of {words[0]!r} are ({wanted}), not {arguments!r:.60}", 2)


def _outcome(record: dict[str, Any], where: str) -> Outcome:
    if "errno" not in record:
        return Outcome(record.get("ok"))
    name = str(record["errno"])
    number = int(name) if name.isdigit() else getattr(errno, name, 0)
    if not number:
        raise UserError(f"{where}: {name!r} is not the name of an errno", 2)
    return Outcome(errno=number)
