"""The kernel's own test of memory hotplug, mem-on-off-test.sh, run to its end inside a machine."""

import shutil
import subprocess
from pathlib import Path

import needs
import pytest

GET = Path(__file__).parent.parent / "scripts/get-selftest"
#: debugfs cannot be mounted in a user namespace, so a `mount` that comes first on the PATH tells where the machine has
#: what the test looks for there.
MOUNT = """#!/bin/sh
[ "$*" = "-t debugfs" ] && exec echo "debugfs on /sys/kernel/debug type debugfs (rw)"
exec "$REAL_MOUNT" "$@"
"""


@pytest.fixture(scope="module")
def selftest() -> Path:
    """The script, fetched with its package where that has not been done yet."""
    needs.program("bc", "bc")
    needs.program("xz", "xz-utils")
    done = subprocess.run([GET], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        needs.missing("mem-on-off-test.sh of Linux", "scripts/get-selftest, which says above what went wrong")
    return Path(done.stdout.strip())


@pytest.mark.parametrize("state", ["offline", "online_movable"])
def test_kernel_selftest(person, selftest, state):
    """The script exits with 0, and its second half, which makes notifiers fail, is not left out."""
    script = Path(shutil.copy(selftest, person.home))
    (person.home / "mount").write_text(MOUNT)
    for path in (script, person.home / "mount"):
        path.chmod(0o755)
    run = f'export REAL_MOUNT="$(command -v mount)" PATH="$PWD:$PATH"; exec bash -x ./{script.name} -r 50'
    machine = ("--set", f"cmdline=memhp_default_state={state}", "--set", 'dimm=[{id="d0", size="2G"}]')
    done = person.run(run, *machine)
    called = {" ".join(line.split()[:2]) for line in done.stderr.splitlines()}

    assert done.returncode == 0, done.stdout
    assert ("offline->online" in done.stdout, "online->offline" in done.stdout) == (True, True)
    assert called >= {"+ online_memory_expect_fail", "+ offline_memory_expect_fail"}
