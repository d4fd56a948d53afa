"""Those who use a machine for hours without rest: each is a process of its own, and may be killed at any time.

usage: soak_kit.py WHO ROOT QMP SEED
"""

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from memhpfs.client import Client, CommandError
from memhpfs.errors import UserError
from memhpfs.kernel.faults import OPERATIONS
from memhpfs.kernel.workload import KINDS
from memhpfs.units import GIB, MIB

__all__ = ["WHO"]

MEMORY, PARAMETERS = "sys/devices/system/memory", "sys/module/memory_hotplug/parameters"
STATES = ("online", "offline", "online_movable", "online_kernel", "junk")
#: More than that many at once leave nothing to do for the others.
MOST_WORKLOADS, MOST_FAULTS = 6, 3


class Alarm(Exception):
    """A signal came while a system call waited."""


def _ring(number: int, frame: object) -> None:
    raise Alarm


def blocks(root: Path) -> list[Path]:
    return [path for path in (root / MEMORY).iterdir() if path.name.removeprefix("memory").isdigit()]


def put(path: Path, text: str) -> None:
    """One write; a refusal is as good as an answer."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def writer(root: Path, qmp: str, chance: random.Random) -> None:
    """Asks for states, mostly with a signal on its way that ends the wait."""
    signal.signal(signal.SIGALRM, _ring)
    for _ in range(50):
        block = chance.choice(blocks(root))
        with contextlib.suppress(Alarm):
            signal.setitimer(signal.ITIMER_REAL, chance.choice([0.001, 0.01, 0.1]))
            put(block / "state", chance.choice(STATES))
            signal.setitimer(signal.ITIMER_REAL, 0)
    number = int(block.name.removeprefix("memory"))
    put(root / MEMORY / "soft_offline_page", f"{(number << 27) + (chance.randrange(1 << 15) << 12):#x}")
    put(root / MEMORY / "auto_online_blocks", chance.choice(STATES))
    put(root / PARAMETERS / "online_policy", chance.choice(["contig-zones", "auto-movable"]))


def reader(root: Path, qmp: str, chance: random.Random) -> None:
    """Reads whatever there is, but for `online`: as long as an offlining lasts, no signal ends that, on Linux too."""
    for folder in (root / "proc", *chance.sample(blocks(root), 20), root / "sys/devices/system/node/node0"):
        for path in [path for path in folder.iterdir() if path.is_file() and path.name != "online"]:
            with contextlib.suppress(OSError):
                path.read_bytes()


def hardware(root: Path, qmp: str, chance: random.Random) -> None:
    """Plugs and unplugs, fills and frees, makes operations fail and lets them succeed again."""
    with Client.connect(qmp) as client:
        for _ in range(30):
            with contextlib.suppress(CommandError):
                chance.choice([_plug, _unplug, _fill, _free, _fault])(client, chance)


def _plug(client: Client, chance: random.Random) -> None:
    name, size = f"d{chance.randrange(8)}", chance.choice([128, 256, 1024]) * MIB
    client.execute("object-add", qom_type="memory-backend-ram", id=f"mem-{name}", size=size)
    client.execute("device_add", driver="pc-dimm", id=name, memdev=f"mem-{name}", node=chance.randrange(2))


def _unplug(client: Client, chance: random.Random) -> None:
    """The backend of a DIMM that is gone goes as well."""
    used = {item["data"]["memdev"].rpartition("/")[2] for item in client.execute("query-memory-devices")}
    for backend in client.execute("query-memdev"):
        if backend["id"] not in used:
            client.execute("object-del", id=backend["id"])
    client.execute("device_del", id=f"d{chance.randrange(8)}")


def _fill(client: Client, chance: random.Random) -> None:
    if len(client.execute("x-query-workloads")) < MOST_WORKLOADS:
        client.execute("x-workload-add", id=f"w{chance.randrange(100)}", kind=chance.choice(list(KINDS)),
                       size=chance.choice([MIB, 100 * MIB, GIB]), movable=chance.random() < 0.5)


def _free(client: Client, chance: random.Random) -> None:
    for item in client.execute("x-query-workloads")[:2]:
        client.execute("x-workload-del", id=item["id"])


def _fault(client: Client, chance: random.Random) -> None:
    faults = client.execute("x-query-faults")
    if len(faults) >= MOST_FAULTS:
        client.execute("x-fault-del", id=faults[0]["id"])
    client.execute("x-fault-add", id=f"f{chance.randrange(100)}", op=chance.choice(OPERATIONS), errno="ENOMEM", count=2)


WHO: dict[str, Callable[[Path, str, random.Random], None]] = {
    "writer": writer, "reader": reader, "hardware": hardware,
}

if __name__ == "__main__":
    name, mount_point, socket, seed = sys.argv[1:]
    dice = random.Random(seed)
    with contextlib.suppress(UserError, Alarm, FileNotFoundError):
        while True:
            WHO[name](Path(mount_point), socket, dice)
