"""An ordinary user for tests: an account without rights, and a Python with memhpfs that it can read.

    done = subprocess.run(as_user(["memhpfs", "run", "--", "id", "-u"]), ...)

As root the account is made when it is first needed, for this process alone, and removed at the end, also where the
tests are killed.  Where the tests run as an ordinary user, it is theirs.  Tests call `need_user` first.
"""

import functools
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import needs
from attrs import frozen

__all__ = ["User", "account", "as_user", "forget", "need_user", "new_directory", "ordinary_user"]

_CHECKOUT = Path(__file__).parent.parent
_PACKAGES = Path(sysconfig.get_path("purelib"))
#: Packages that are large, and of no use to memhpfs.
_LEFT_OUT = shutil.ignore_patterns("pip*", "mypy*", "*mypyc*", "ruff*", "__editable__*")
_IMPORTS = "import memhpfs.cli.main, pyfuse3, trio, click, attrs, cattrs"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Variables that are not cleared: by the first, conftest.py knows the processes of a test run.
_HANDED_ON = ("MEMHPFS_TEST_RUN",)
#: Waits for the end of the tests, then ends what is left of an account: processes, mounts and files in its home.
#: Group and user have one name; the processes can be those of no one else.
_JANITOR = """
trap "" HUP INT TERM
cat
setpriv --reuid="$1" --regid="$1" --clear-groups sh -c "kill -9 -1"
awk -v home="$2/" 'index($2, home) == 1 { print $2 }' /proc/self/mounts | xargs -r umount -l
userdel -f "$1"
rm -rf "$2"
"""
_kept = ExitStack()


@frozen
class User:
    """An ordinary user.

    Attributes:
        uid, gid: ids.
        home: a directory of theirs; its run/ is their XDG_RUNTIME_DIR, its bin/ has the program memhpfs.
        become: what stands before a command that runs as this user.
        python: an interpreter that they can read.
        packages: where Python's packages are that they can read.
        checkout: this project, as they can read it: at least memhpfs/ and scripts/.
    """

    uid: int
    gid: int
    home: Path
    become: tuple[str, ...]
    python: str
    packages: Path
    checkout: Path


def as_user(argv: Sequence[str]) -> list[str]:
    """A command as an ordinary user runs it, with `memhpfs` and `python3` on the PATH, and a clean environment."""
    user = ordinary_user()
    variables = {
        **{name: os.environ[name] for name in _HANDED_ON if name in os.environ},
        "HOME": user.home, "XDG_RUNTIME_DIR": user.home / "run", "SHELL": "/bin/sh", "LANG": "C.UTF-8",
        "PATH": f"{user.home}/bin:{_SYSTEM_PATH}", "PYTHONPATH": f"{user.packages}:{user.checkout}",
    }
    return [*user.become, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv]


def need_user() -> None:
    """The test runs machines as the ordinary user: they must be allowed /dev/fuse and user namespaces."""
    needs.fuse()
    needs.user_namespaces()
    become = ordinary_user().become
    if subprocess.run([*become, "test", "-w", "/dev/fuse"], check=False).returncode:
        needs.missing("permission on /dev/fuse for ordinary users", "chmod 0666 /dev/fuse")
    needs.user_namespaces(become)


@functools.cache
def ordinary_user() -> User:
    """The user; what is missing for one skips or fails the test."""
    if os.geteuid() != 0:
        home = _kept.enter_context(new_directory(os.geteuid(), os.getegid()))
        return _furnish(User(os.geteuid(), os.getegid(), home, (), sys.executable, _PACKAGES, _CHECKOUT))
    entry = _kept.enter_context(account())
    uid, gid, home = entry.pw_uid, entry.pw_gid, Path(entry.pw_dir)
    become = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all", "--")
    return _furnish(User(uid, gid, home, become, *_readable_python(become, home)))


@contextmanager
def account(*, ranges: bool = False) -> Iterator[pwd.struct_passwd]:
    """Make an account with a home of its own, as root; at the end, also where the tests are killed, nothing is left.

    Args:
        ranges: whether it has subordinate ids, by which newuidmap maps more than one user.
    """
    home = Path(tempfile.mkdtemp(prefix="memhpfs-test-"))
    name = f"memhpfs-test-{secrets.token_hex(4)}"
    none = [] if ranges else ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
    with subprocess.Popen(
        ["sh", "-c", _JANITOR, "sh", name, home], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={"PATH": _SYSTEM_PATH}, cwd="/", start_new_session=True,
    ):
        # -l: no entries in the logs of last logins; -M: the home is there; -U: a group of its own.
        subprocess.run(["useradd", "-l", "-M", "-U", "-d", home, "-s", "/bin/sh", *none, name], check=True)
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield entry


@contextmanager
def new_directory(uid: int, gid: int, within: Path | None = None) -> Iterator[Path]:
    """A new empty directory of a user; it is removed with all that is in it, whatever its modes."""
    path = Path(tempfile.mkdtemp(prefix="memhpfs-test-", dir=within))
    os.chown(path, uid, gid)
    try:
        yield path
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", path], check=False)
        shutil.rmtree(path)


def forget() -> None:
    """Remove what was made."""
    ordinary_user.cache_clear()
    _kept.close()


def _readable_python(become: Sequence[str], home: Path) -> tuple[str, Path, Path]:
    """An interpreter, packages and a checkout that a user can read, if need be copies."""
    home.chmod(0o755)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreters = dict.fromkeys([sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"])
    for packages, checkout in ((_PACKAGES, _CHECKOUT), (home / "packages", home / "checkout")):
        if packages != _PACKAGES:
            _copy(packages, checkout)
        for python in interpreters:
            tried = [*become, "env", "-i", f"PYTHONPATH={packages}:{checkout}", python, "-c", _IMPORTS]
            done = subprocess.run(tried, cwd="/", capture_output=True, check=False)
            if done.returncode == 0:
                return python, packages, checkout
    needs.missing(f"a {version} that ordinary users can read", f"apt-get install {version}")
    raise AssertionError


def _copy(packages: Path, checkout: Path) -> None:
    """Copy what memhpfs needs, and what tests run."""
    def left_out(folder: str, names: list[str]) -> set[str]:
        return _LEFT_OUT(folder, names) if Path(folder) == _PACKAGES else set()

    shutil.copytree(_PACKAGES, packages, ignore=left_out)
    for name in ("memhpfs", "scripts"):
        shutil.copytree(_CHECKOUT / name, checkout / name)


def _furnish(user: User) -> User:
    """Fill the home."""
    for name in ("bin", "run"):
        path = user.home / name
        path.mkdir(mode=0o700)
        os.chown(path, user.uid, user.gid)
    programs = {"python3": f'exec {user.python} "$@"', "memhpfs": f'exec {user.python} -P -m memhpfs "$@"'}
    for name, line in programs.items():
        program = user.home / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return user
