"""Doing one recorded step through a door, and telling what came of it in the words of a transcript.

Must not: know whether the door leads to a model or to a mount, or what Linux answered.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from memhpfs.errors import SysError
from memhpfs.replay.calls import Calls
from memhpfs.replay.doors import Door, HardwareError
from memhpfs.replay.transcript import Outcome, Step

__all__ = ["Actor"]

Fields = Mapping[str, Any]

_ERROR_FILE = "/sys/kernel/debug/notifier-error-inject/memory/actions/{}/error"

#: The flags of open(2) whose numbers depend on the architecture, where they are not those of x86.
_ARM64_FLAGS = {0x4000: os.O_DIRECTORY, 0x8000: os.O_NOFOLLOW, 0x10000: os.O_DIRECT, 0x20000: os.O_LARGEFILE}
_PPC64_FLAGS = {0x4000: os.O_DIRECTORY, 0x8000: os.O_NOFOLLOW, 0x10000: os.O_LARGEFILE, 0x20000: os.O_DIRECT}
_OPEN_FLAGS = {"arm64": _ARM64_FLAGS, "ppc64": _PPC64_FLAGS}


@define
class Actor:
    """Does the steps of one transcript.

    Attributes:
        arch: whose numbers the flags of open(2) are.
    """

    door: Door
    arch: str
    _slots: dict[int, int] = field(factory=dict, init=False)
    _workloads: dict[Any, str] = field(factory=dict, init=False)

    def do(self, step: Step) -> Outcome:
        """Do a step."""
        try:
            return Outcome(_STEPS[step.do](self, step.fields))
        except (OSError, SysError) as error:
            return Outcome(errno=error.errno or 0)
        except HardwareError as error:
            return Outcome(failed=f"the hardware refused: {error}")

    # -- files ------------------------------------------------------------------------------------------------

    def put(self, step: Fields) -> int:
        """Open, one write, close."""
        calls = self.door.calls
        fd = calls.open(step["path"], self._flags(step.get("flags", os.O_WRONLY | os.O_TRUNC)))
        try:
            return calls.write(fd, step["data"].encode("latin1"), None, step.get("timeout_ms", 0))
        finally:
            calls.close(fd)

    def inject(self, step: Fields) -> int:
        """Make a memory notifier fail from now on."""
        return self.put({"path": _ERROR_FILE.format(step["action"]), "data": str(step["error"])})

    def stat(self, step: Fields) -> list[str]:
        mode, *numbers = self.door.calls.lstat(step["path"])
        return [f"{mode:o}", *map(str, numbers)]

    def system_call(self, step: Fields) -> list[str]:
        """One raw system call; `as UID` does it in a process of its own, whose descriptors end with it."""
        words = [_word(word) for word in step["args"]]
        if words[0] != "as":
            return self._call(words)
        before = dict(self._slots)
        try:
            with self.door.calls.as_user(words[1]):
                return self._call(words[2:])
        finally:
            for slot, fd in self._slots.items():
                if before.get(slot) != fd:
                    self.door.calls.close(fd)
            self._slots = before

    def _call(self, words: list[Any]) -> list[str]:
        name, *rest = words
        calls = self.door.calls
        if name == "open":
            slot, path, flags, *mode = rest
            self._slots[slot] = calls.open(path, self._flags(flags), *mode)
            return ["0"]
        if name == "close":
            calls.close(self._slots.pop(rest[0]))
            return ["0"]
        if name in _ON_SLOT:
            return _ON_SLOT[name](calls, self._slots[rest[0]], *rest[1:])
        return _ON_PATH[name](calls, *rest) or ["0"]

    def _flags(self, flags: int) -> int:
        """Flags of open(2) as recorded, in the numbers of x86."""
        table = _OPEN_FLAGS.get(self.arch, {})
        differing = sum(table)
        return flags & ~differing | sum(here for there, here in table.items() if flags & there)

    # -- hardware ---------------------------------------------------------------------------------------------

    def plug(self, step: Fields) -> bool:
        memdev = f"b-{step['id']}"
        node = {} if step.get("node") is None else {"node": step["node"]}
        self.door.command("object-add", **{"qom-type": "memory-backend-ram", "id": memdev, "size": step["size"]})
        self.door.command("device_add", driver="pc-dimm", id=step["id"], memdev=memdev, **node)
        self.door.settle(step["id"])
        return True

    def unplug(self, step: Fields) -> bool:
        """Ask for a DIMM back; whether the guest gave it."""
        self.door.command("device_del", id=step["id"])
        self.door.settle(step["id"])
        there = [device["data"]["id"] for device in self.door.command("query-memory-devices")]
        if step["id"] in there:
            return False
        self.door.command("object-del", id=f"b-{step['id']}")
        return True

    def virtio(self, step: Fields) -> Any:
        """Ask a virtio-mem device for another size; the size it reaches."""
        path = f"/machine/peripheral/{step['id']}"
        self.door.command("qom-set", path=path, property="requested-size", value=step["size"])
        self.door.settle(step["id"])
        return self.door.command("qom-get", path=path, property="size")

    def hog(self, step: Fields) -> Any:
        """Start something that uses memory; it is known by the recorded process id."""
        name = f"w{len(self._workloads)}"
        self.door.command("x-workload-add", id=name, kind=step["kind"], size=step["bytes"])
        self._workloads[step.get("ok")] = name
        return step.get("ok")

    def free(self, step: Fields) -> Any:
        """End it."""
        if step["pid"] not in self._workloads:
            raise HardwareError(f"process {step['pid']} was not started")
        self.door.command("x-workload-del", id=self._workloads.pop(step["pid"]))
        return step.get("ok")


_STEPS: dict[str, Callable[[Actor, Fields], Any]] = {
    "put": Actor.put,
    "inject": Actor.inject,
    "cat": lambda actor, step: actor.door.calls.contents(step["path"]).decode("latin1"),
    "ls": lambda actor, step: sorted(actor.door.calls.listdir(step["path"])),
    "readlink": lambda actor, step: actor.door.calls.readlink(step["path"]),
    "stat": Actor.stat,
    "sys": Actor.system_call,
    "plug": Actor.plug,
    "unplug": Actor.unplug,
    "virtio": Actor.virtio,
    "hog": Actor.hog,
    "free": Actor.free,
}


def _read(calls: Calls, fd: int, offset: int, size: int) -> list[str]:
    return _hex(calls.read(fd, size, None if offset < 0 else offset))


def _write(calls: Calls, fd: int, offset: int, data: str) -> list[str]:
    return [str(calls.write(fd, data.encode("latin1"), None if offset < 0 else offset))]


_ON_SLOT: dict[str, Callable[..., list[str]]] = {
    "read": _read,
    "write": _write,
    "lseek": lambda calls, fd, offset, whence: [str(calls.lseek(fd, offset, whence))],
    "poll": lambda calls, fd, events, timeout_ms: [str(calls.poll(fd, events, timeout_ms))],
}

#: System calls on paths; those that answer nothing but success return None.
_ON_PATH: dict[str, Callable[..., list[str] | None]] = {
    "truncate": lambda calls, path, length: calls.truncate(path, length),
    "mkdir": lambda calls, path: calls.mkdir(path),
    "rmdir": lambda calls, path: calls.rmdir(path),
    "unlink": lambda calls, path: calls.unlink(path),
    "rename": lambda calls, old, new: calls.rename(old, new),
    "symlink": lambda calls, target, path: calls.symlink(target, path),
    "link": lambda calls, old, new: calls.link(old, new),
    "mknod": lambda calls, path: calls.mknod(path),
    "chmod": lambda calls, path, mode: calls.chmod(path, int(str(mode), 8)),
    "chown": lambda calls, path, uid, gid: calls.chown(path, uid, gid),
    "utime": lambda calls, path: calls.utime(path, 1, 2),
    "access": lambda calls, path, mode: calls.access(path, mode),
    "listxattr": lambda calls, path: _hex(calls.listxattr(path)),
    "getxattr": lambda calls, path, name: _hex(calls.getxattr(path, name)),
    "setxattr": lambda calls, path, name: calls.setxattr(path, name, b"x"),
    "mmap": lambda calls, path, protection, shared: calls.mmap(path, protection, bool(shared)),
    "fallocate": lambda calls, path: calls.fallocate(path),
    "fsync": lambda calls, path: calls.fsync(path),
    "statfs": lambda calls, path: _statfs(*calls.statfs(path)),
}


def _word(word: Any) -> Any:
    return word[2:] if isinstance(word, str) and word.startswith("h:") else word


def _hex(data: bytes) -> list[str]:
    return [data.hex() or "-"]


def _statfs(kind: int, block_size: int, blocks: int, name_max: int) -> list[str]:
    return [f"{kind:x}", str(block_size), str(blocks), str(name_max)]
