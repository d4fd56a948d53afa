"""The scripts that people start: what they announce, refuse and leave behind.

What scripts/fresh-machine and scripts/ci do as a whole shows where CI runs them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import pytest
import run_kit

ROOT = Path(__file__).parent.parent
#: What scripts/setup itself uses.
TOOLS = ("sh", "sed", "awk", "sort", "paste", "mktemp", "rm", "env", "id", "dirname", "cat", "cksum", "ln")
#: An apt-get that tells what it is asked to do, knows what it would fetch, and gets nothing.
APT_GET = """\
case "$*" in
*--print-uris*)
    for word; do
        case $word in install) ;; [a-z]*) echo "'http://debian.test/$word.deb' $word.deb 1500000 MD5Sum:0" ;; esac
    done ;;
*) echo "apt-get $*" >&9; echo "E: no network"; exit 100 ;;
esac
"""


def program(path: Path, code: str) -> None:
    """Write a program of sh."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A project with nothing but its scripts, and in bin/ all the programs of a machine that has just these."""
    for name in ("scripts/setup", "scripts/install", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(needs.program(name, "coreutils"))
    program(tmp_path / "bin/apt-get", APT_GET)
    program(tmp_path / "bin/sudo", 'exec "$@"')
    return tmp_path


def setup(bare: Path, purpose: str = "run", **words: str) -> "subprocess.CompletedProcess[str]":
    """Run the setup; what it says and what apt-get is asked to do stand in stdout, in their order."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec 9>&1 && exec "{bare}/scripts/setup" {purpose} 2>&1'],
        stdout=subprocess.PIPE, text=True, check=False, env={"PATH": str(bare / "bin"), "HOME": str(bare), **words},
    )


def test_setup_announces_before_it_installs(bare: Path) -> None:
    """All that is to be installed is told with its size, before apt-get is asked to change anything."""
    done = setup(bare)
    lines = done.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("apt-get"))
    told = "\n".join(lines[:first])
    assert done.returncode == 1
    assert lines[0] == "setup: this machine lacks, and gets now:"
    assert re.search(r"Debian packages: .*\bfuse3\b.*\bpython3 python3-venv; to fetch, .* \d packages, \d\.\d MB", told)
    assert re.search(r"only if there is no pyfuse3 .*: .*\bgcc\b.*\bpython3-dev; to fetch, .* \d\.\d MB", told)
    assert re.search(r"Python packages, in \.venv: attrs cattrs click .*; to fetch, .*: about \d+ MB", told)
    for word in lines[first].split("--no-install-recommends ")[1].split():
        assert re.search(rf"\b{word}\b", told), word
    assert "gcc" not in lines[first]


def test_setup_announces_more_for_tests(bare: Path) -> None:
    """For the tests more is needed: a compiler too, which then needs no line of its own."""
    said = setup(bare, "test").stdout
    assert re.search(r"Debian packages: .*\bxz-utils\b.*\bgcc\b", said)
    assert re.search(r"Python packages, in \.venv: attrs .* pytest ", said)


def test_setup_takes_debians_pyfuse3(bare: Path) -> None:
    """Where Debian's pyfuse3 is new enough for the project, nothing is said of a compiler."""
    program(bare / "bin/apt-cache", 'echo "python3-pyfuse3:"; echo "  Candidate: $CANDIDATE"')
    (bare / "bin/dpkg").symlink_to("/usr/bin/dpkg")
    assert "python3-pyfuse3" in setup(bare, CANDIDATE="99.0-1").stdout
    assert "gcc" not in setup(bare, CANDIDATE="99.0-1").stdout
    assert "gcc" in setup(bare, CANDIDATE="3.2.1-2+b2").stdout
    assert "gcc" in setup(bare, CANDIDATE="(none)").stdout


def test_setup_without_sudo(bare: Path) -> None:
    """Who may install nothing hears in one line what to ask for."""
    for name in ("sudo", "id"):
        (bare / "bin" / name).unlink()
    program(bare / "bin/id", "echo 1000")
    done = setup(bare)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert re.match("setup: missing are fuse3 .*, and there is no sudo; as root run: apt-get install f", done.stdout)


def test_setup_is_silent_where_nothing_lacks(bare: Path) -> None:
    """Where everything is there nothing is said."""
    needs.fuse()
    for name in ("fusermount3", "lsmem", "chmem", "unshare", ".venv/bin/memhpfs"):
        program(bare / "bin" / name if "/" not in name else bare / name, "")
    program(bare / ".venv/bin/python", "echo Python 3.11.2")
    with open(bare / "pyproject.toml") as description:
        sums = subprocess.run(["cksum"], stdin=description, capture_output=True, text=True, check=True).stdout
    (bare / ".venv/filled-for-run").write_text(f"{sums.strip()} {bare} Python 3.11.2\n")
    done = setup(bare)
    assert (done.returncode, done.stdout) == (0, "")


def test_install_and_uninstall(bare: Path) -> None:
    """The program gets a link where the user asks for it, and is gone again; what is not ours stays."""
    program(bare / ".venv/bin/memhpfs", "echo here")

    def install(*options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([bare / "scripts/install", *options], capture_output=True, text=True, check=False,
                              env={"PATH": os.environ["PATH"], "HOME": str(bare / "home dir")})

    link = bare / "home dir/.local/bin/memhpfs"
    for _ in range(2):
        done = install()
        assert done.returncode == 0
        assert f"install: your PATH lacks {link.parent}" in done.stderr
        assert subprocess.run([link], capture_output=True, text=True, check=True).stdout == "here\n"
    assert install("--undo").returncode == 0
    assert not link.is_symlink()
    link.write_text("somebody else's")
    for option in ((), ("--undo",)):
        done = install(*option)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert f"{link} is there and leads elsewhere" in done.stderr
    assert link.read_text() == "somebody else's"


@pytest.mark.parametrize(("words", "complaint"), [
    (("sid", "root"), "SUITE: 'sid' is not known; allowed are bookworm and trixie"),
    (("trixie",), "USER: '' is no name for an account"),
    (("trixie", "../x"), "USER: '../x' is no name for an account"),
], ids=["suite", "no user", "user"])
def test_fresh_machine_tells_bad_usage(words: tuple[str, ...], complaint: str) -> None:
    """Bad usage is told with what is allowed."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/fresh-machine", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.parametrize("person", ["user"], indirect=True)
def test_fresh_machine_needs_root(person: run_kit.Person) -> None:
    """An ordinary user is told in one line that it takes root."""
    done = person.do("python3", str(person.checkout / "scripts/fresh-machine"), "trixie", "root")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "fresh-machine: it needs root" in done.stderr
