"""An ordinary user for tests: an account without rights, and a Python with memhpfs that it can read.

    done = subprocess.run(as_user(["memhpfs", "run", "--", "id", "-u"]), ...)

As root the account is made when it is first needed, and stays.  Where the tests run as an ordinary user, it is theirs.
Tests call `need_user` first.
"""

import functools
import os
import pwd
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

__all__ = ["NAME", "User", "as_user", "forget", "need_user", "ordinary_user", "user_directory"]

NAME = "memhpfs-test"
_CHECKOUT = Path(__file__).parent.parent
_PACKAGES = Path(sysconfig.get_path("purelib"))
#: Large, and of no use to memhpfs.
_LEFT_OUT = shutil.ignore_patterns("pip*", "mypy*", "*mypyc*", "ruff*", "__editable__*")
_IMPORTS = "import memhpfs.cli.main, pyfuse3, trio, click, attrs, cattrs"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Variables that are not cleared: by the first, conftest.py knows the processes of a test run.
_HANDED_ON = ("MEMHPFS_TEST_RUN",)
_kept = ExitStack()


@frozen
class User:
    """An ordinary user.

    Attributes:
        uid, gid: ids.
        home: a directory of theirs; its run/ is their XDG_RUNTIME_DIR, its bin/ has the program memhpfs.
        become: what stands before a command that runs as this user.
        python: an interpreter that they can read.
        path: PYTHONPATH for it.
    """

    uid: int
    gid: int
    home: Path
    become: tuple[str, ...]
    python: str
    path: str


def as_user(argv: Sequence[str]) -> list[str]:
    """A command as an ordinary user runs it, with `memhpfs` and `python3` on the PATH, and a clean environment."""
    user = ordinary_user()
    variables = {
        **{name: os.environ[name] for name in _HANDED_ON if name in os.environ},
        "HOME": user.home, "XDG_RUNTIME_DIR": user.home / "run", "SHELL": "/bin/sh", "LANG": "C.UTF-8",
        "PATH": f"{user.home}/bin:{_SYSTEM_PATH}", "PYTHONPATH": user.path,
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
        home = Path(_kept.enter_context(tempfile.TemporaryDirectory(prefix="memhpfs-test-")))
        return _furnish(User(os.geteuid(), os.getegid(), home, (), sys.executable, f"{_PACKAGES}:{_CHECKOUT}"))
    account = _account()
    uid, gid = account.pw_uid, account.pw_gid
    become = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all", "--")
    home = Path(_kept.enter_context(tempfile.TemporaryDirectory(prefix="memhpfs-test-")))
    return _furnish(User(uid, gid, home, become, *_readable_python(become, home)))


@contextmanager
def user_directory(name: str) -> Iterator[Path]:
    """A new empty directory of the user."""
    path = _give(ordinary_user(), ordinary_user().home / name)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def forget() -> None:
    """Remove what was made, but for the account."""
    ordinary_user.cache_clear()
    _kept.close()


def _account() -> pwd.struct_passwd:
    """The account.  It stays, because another run of the tests may use it as well."""
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        # -l: no entries in the logs of last logins; -M: no home.
        subprocess.run(["useradd", "-l", "-M", "-d", "/nonexistent", "-s", "/bin/sh", NAME], check=True)
        return pwd.getpwnam(NAME)


def _readable_python(become: Sequence[str], home: Path) -> tuple[str, str]:
    """An interpreter and a PYTHONPATH that a user can read, if need be of copies."""
    home.chmod(0o755)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreters = dict.fromkeys([sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"])
    for path in (f"{_PACKAGES}:{_CHECKOUT}", f"{home}/packages:{home}/checkout"):
        if path.startswith(str(home)):
            shutil.copytree(_PACKAGES, home / "packages", ignore=_LEFT_OUT)
            shutil.copytree(_CHECKOUT / "memhpfs", home / "checkout" / "memhpfs")
        for python in interpreters:
            tried = [*become, "env", "-i", f"PYTHONPATH={path}", python, "-c", _IMPORTS]
            done = subprocess.run(tried, cwd="/", capture_output=True, check=False)
            if done.returncode == 0:
                return python, path
    needs.missing(f"a {version} that ordinary users can read", f"apt-get install {version}")
    raise AssertionError


def _furnish(user: User) -> User:
    """Fill the home."""
    _give(user, user.home)
    for name in ("bin", "run"):
        _give(user, user.home / name)
    programs = {"python3": f'exec {user.python} "$@"', "memhpfs": f'exec {user.python} -P -m memhpfs "$@"'}
    for name, line in programs.items():
        program = user.home / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return user


def _give(user: User, path: Path) -> Path:
    """Make a directory of the user, which nobody else may write to."""
    path.mkdir(exist_ok=True)
    os.chown(path, user.uid, user.gid)
    path.chmod(0o700)
    return path
