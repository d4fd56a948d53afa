"""What a machine tells over QMP and by `memhpfs events`: the hardware's events, and the kernel's log."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
from host_kit import PATIENCE_S, PYTHON, Daemon, serving

from memhpfs.client import Client

FAILED = "memory offlining [mem 0x138000000-0x13fffffff] failed due to"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    needs.fuse()
    with serving(tmp_path / "m", "--qmp", str(tmp_path / "qmp")) as daemon:
        yield daemon


def refuse_offline(daemon: Daemon) -> None:
    """One write, which a Python file object would do again when it is closed."""
    state = os.open(daemon.memory / "memory39/state", os.O_WRONLY)
    with pytest.raises(OSError, match="busy"):
        os.write(state, b"offline")
    os.close(state)


def events(daemon: Daemon, *options: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"MEMHPFS_QMP": str(daemon.root.with_name("qmp"))}
    return subprocess.Popen([*PYTHON, "-m", "memhpfs", "events", *options], stdout=subprocess.PIPE, text=True,
                            env=environment)


def until_failed(following: "subprocess.Popen[str]") -> list[str]:
    """What it prints, up to the line that says that an offlining failed."""
    assert following.stdout
    lines: list[str] = []
    while not (lines and FAILED in lines[-1]):
        lines.append(following.stdout.readline())
        assert lines[-1]
    return lines


def test_kernel_log_is_a_qmp_event(daemon):
    """A line of the kernel's log reaches every client as X_KERNEL_LOG, and stays to be asked for."""
    with Client.connect(str(daemon.root.with_name("qmp"))) as client:
        refuse_offline(daemon)
        event = client.wait_for(
            lambda event: event["event"] == "X_KERNEL_LOG" and FAILED in event["data"]["text"], PATIENCE_S
        )
        kept = client.execute("x-query-kernel-log")

    assert event["data"] in kept
    assert [line["seq"] for line in kept] == list(range(len(kept)))
    assert set(event["data"]) == {"seq", "seconds", "level", "text"}


def test_events_kernel_tells_old_and_new_lines(daemon):
    """It begins with what was said before, goes on with what is said, each line once, and ends with the machine."""
    refuse_offline(daemon)
    following = events(daemon, "--kernel")
    assert following.stdout
    lines = until_failed(following)
    refuse_offline(daemon)
    lines += until_failed(following)
    daemon.stop()
    rest, _ = following.communicate(timeout=PATIENCE_S)

    assert following.returncode == 0
    assert rest == ""
    assert all(line.startswith("[    ") for line in lines)
    assert ["page dumped because: unmovable page" in line for line in lines].count(True) == 2


def test_ctrl_c_ends_events(daemon):
    """That is how one leaves it, so it is no failure."""
    refuse_offline(daemon)
    following = events(daemon, "--kernel")
    assert following.stdout
    assert following.stdout.readline()
    following.send_signal(signal.SIGINT)

    following.communicate(timeout=PATIENCE_S)
    assert following.returncode == 0


def test_events_tells_of_the_hardware_only(daemon):
    """Without --kernel the kernel's log is left out; --json gives the events as they were sent."""
    following = events(daemon, "--json")
    assert following.stdout
    with Client.connect(str(daemon.root.with_name("qmp"))) as client:
        for number in range(16):
            refuse_offline(daemon)
            client.execute("object-add", qom_type="memory-backend-ram", id=f"b{number}", size=1 << 27)
            client.execute("device_add", driver="pc-dimm", id=f"d{number}", memdev=f"b{number}")
            if select.select([following.stdout], [], [], 0.2)[0]:
                break
    daemon.stop()
    lines = [json.loads(line) for line in following.communicate(timeout=PATIENCE_S)[0].splitlines()]

    assert {line["event"] for line in lines} == {"ACPI_DEVICE_OST"}
    assert set(lines[0]) == {"event", "data", "timestamp"}
