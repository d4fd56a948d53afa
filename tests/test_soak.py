"""A machine in hard use for long: in the end everything adds up, and nothing has grown.

SOAK_SECONDS says how long, 20 by default; `make soak` takes an hour.
"""

import os
import random
import re
import subprocess
import time
from pathlib import Path

import needs
from host_kit import PATIENCE_S, PYTHON, Daemon, serving, wait_until

from memhpfs.client import Client
from memhpfs.host.loop import SPARES
from memhpfs.units import MIB

SECONDS = float(os.environ.get("SOAK_SECONDS") or 20)
USERS = ("writer", "writer", "writer", "reader", "reader", "hardware")
#: How often one of them is killed.
KILL_S = 0.3
GROWTH = 3 * MIB
MACHINE = """
ram = "4G"
slots = 8
maxmem = "16G"
node = [{id = 0, ram = "3G"}, {id = 1, ram = "1G"}]
timing = {migration-rate = "2G"}
"""
#: What `!check` says in the log.
TASKS = re.compile(r"^tasks: (\d+)$", re.MULTILINE)


def user(name: str, daemon: Daemon, seed: float) -> "subprocess.Popen[bytes]":
    qmp = daemon.root.with_name("qmp")
    return subprocess.Popen([*PYTHON, str(Path(__file__).with_name("soak_kit.py")), name, str(daemon.root), str(qmp),
                             str(seed)])


def resident_bytes(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def tasks(daemon: Daemon) -> int:
    """How many tasks the daemon has; fails where a counter of the model does not add up."""
    auto_online = os.open(daemon.memory / "auto_online_blocks", os.O_WRONLY)
    os.write(auto_online, b"!check")
    os.close(auto_online)
    return int(TASKS.findall(daemon.said)[-1])


def let_them(daemon: Daemon, seconds: float, chance: random.Random) -> None:
    """All users at work, one of them killed now and then, and replaced."""
    users = {index: user(name, daemon, chance.random()) for index, name in enumerate(USERS)}
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(KILL_S)
            index = chance.randrange(len(USERS))
            users[index].kill()
            users[index].wait(PATIENCE_S)
            users[index] = user(USERS[index], daemon, chance.random())
            tasks(daemon)
    finally:
        for process in users.values():
            process.kill()
            process.wait(PATIENCE_S)


def clean_up(daemon: Daemon) -> None:
    with Client.connect(str(daemon.root.with_name("qmp"))) as client:
        for item in client.execute("x-query-faults"):
            client.execute("x-fault-del", id=item["id"])
        for item in client.execute("x-query-workloads"):
            client.execute("x-workload-del", id=item["id"])


def test_hard_use_for_long(tmp_path):
    """Random work, plugging, signals, faults and deaths: counters add up, memory stays, no task is left."""
    needs.fuse()
    chance = random.Random(1)
    (tmp_path / "machine.toml").write_text(MACHINE)
    options = ("--machine", str(tmp_path / "machine.toml"), "--qmp", str(tmp_path / "qmp"))
    with serving(tmp_path / "m", *options) as daemon:
        idle = tasks(daemon)
        let_them(daemon, SECONDS / 3, chance)
        before = resident_bytes(daemon)
        let_them(daemon, SECONDS * 2 / 3, chance)
        clean_up(daemon)
        wait_until(lambda: tasks(daemon) <= idle + SPARES)
        growth = resident_bytes(daemon) - before
    assert growth < GROWTH
    assert "tainted" not in daemon.said
    assert "Traceback" not in daemon.said
