"""What a test needs from the machine it runs on.

Where CI is set in the environment a missing thing fails the test; elsewhere the test is skipped, and says what is
missing and how to get it.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest

__all__ = ["fuse", "missing", "program", "root", "user_namespaces"]


def missing(what: str, how: str) -> None:
    """Fail where CI is set, else skip: what is missing, and how to get it."""
    text = f"missing: {what}; to get it: {how}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def fuse() -> None:
    """The test mounts a file system."""
    if not os.path.exists("/dev/fuse"):
        missing("/dev/fuse", "modprobe fuse, or start the container with --device /dev/fuse")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        missing("permission on /dev/fuse", "run as root, or chmod 0666 /dev/fuse")


def root() -> None:
    """The test must be root.  Where CI is set, too, it is no fault of the machine that somebody else runs the tests."""
    if os.geteuid() != 0:
        pytest.skip("missing: root; to get it: run the tests with sudo")


def program(name: str, package: str) -> str:
    """The test runs a program; the path where it is."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/lib/systemd:/lib/systemd")
    if not found:
        missing(f"the program {name}", f"apt-get install {package}")
    return found or ""


def user_namespaces(become: Sequence[str] = ()) -> None:
    """The test makes user namespaces; `become` stands before a command of another user."""
    if subprocess.run([*become, "unshare", "-Urm", "true"], capture_output=True, check=False).returncode:
        how = "sysctl user.max_user_namespaces=10000, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
        missing("user namespaces", how)
