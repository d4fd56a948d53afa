"""For all tests: a run of them leaves the computer as it was.

Others may use memhpfs on the same computer meanwhile, so processes are known by a variable in their environment.
"""

import errno
import os
import signal
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import run_kit
import users
from attrs import field, frozen

_MARK = "MEMHPFS_TEST_RUN"
#: The variables that tests take over from whoever calls them: who and where one is, what the tests themselves look at,
#: and how programs reach the network.  Any other one would reach memhpfs too, and hide a fault or make one.
_TAKEN_OVER = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "CI", "SOAK_SECONDS", "MODEL_EXAMPLES",
               "PYTEST_*", "*_proxy", "*_PROXY", "PIP_*", "*CERT*", "*_CA_*")
#: How long what was killed may take to go, in seconds.
_PATIENCE_S = 5.0
_MEMORY = Path("/sys/devices/system/memory")


@frozen
class Host:
    """What must not change: mounts, and what the memory blocks say.

    Attributes:
        mounts: lines of /proc/self/mounts.
        memory: contents of files about memory blocks.
    """

    mounts: frozenset[str] = field(factory=lambda: frozenset(Path("/proc/self/mounts").read_text().splitlines()))
    memory: dict[str, str] = field(factory=lambda: {
        str(path): path.read_text() for path in [*_MEMORY.glob("memory*/state"), *_MEMORY.glob("auto_online_blocks")]
    })


def pytest_configure() -> None:
    """Clean the environment, before anything looks at it."""
    for name in list(os.environ):
        if not any(fnmatchcase(name, pattern) for pattern in _TAKEN_OVER):
            del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """What tests start can be interrupted, also where the tests run under nohup or behind `&`."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL),
                            (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def unchanged_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail where the tests leave a mount or a process behind, or have changed a memory block of this computer."""
    os.environ[_MARK] = mark = f"{os.getpid()}-{time.time_ns()}"
    ours = str(tmp_path_factory.getbasetemp())
    before = Host()

    yield

    deadline = time.monotonic() + _PATIENCE_S
    while (left := _left_over(before, mark, ours)) and time.monotonic() < deadline:
        time.sleep(0.05)
    users.forget()
    assert not left, "the tests left behind:\n" + "\n".join(left)


def _left_over(before: Host, mark: str, ours: str) -> list[str]:
    after = Host()
    return [
        *(f"process {line}" for line in _processes(mark)),
        *(f"mount {line}" for line in after.mounts - before.mounts if _counts(line, ours)),
        *(f"no mount any more: {line}" for line in before.mounts - after.mounts if _counts(line, ours)),
        *(f"{path}: {text!r}" for path, text in after.memory.items() - before.memory.items()),
        *(f"no more: {path}" for path in before.memory.keys() - after.memory.keys()),
    ]


def _processes(mark: str) -> list[str]:
    """The processes of this run, but for this one."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARK}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{directory.name} {command}")
        except OSError:
            continue
    return [line for line in found if line.split()[0] != str(os.getpid())]


def _counts(line: str, ours: str) -> bool:
    """Whether a mount is no concern of others: it is at a directory of ours, over a part of the system, or dead."""
    place, kind = line.split()[1:3]
    if place.startswith((ours, "/sys", "/dev")):
        return True
    if not kind.startswith("fuse.memhpfs"):
        return False
    try:
        os.statvfs(place)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


@pytest.fixture(params=run_kit.PEOPLE)
def person(request: pytest.FixtureRequest) -> Iterator[run_kit.Person]:
    """Root and an ordinary user in turn; `@pytest.mark.parametrize("person", [ME], indirect=True)` picks one."""
    with run_kit.person(request.param) as someone:
        yield someone
