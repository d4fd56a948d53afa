"""The frame of the project: what lies where, and that the words about it are true."""

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import pytest

from memhpfs.cli.help import TOPICS
from memhpfs.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
CODE = sorted((ROOT / "memhpfs").rglob("*.py"))
TOP = {".ci", ".gitignore", "LICENSE", "Makefile", "README.md", "memhpfs", "pyproject.toml", "scripts", "tests"}
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "memhpfs/help").glob("*.md")}
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
#: README and help pages: what users read.
WORDS = [pytest.param(README, id="README"), *(pytest.param(text, id=name) for name, text in sorted(PAGES.items()))]


def own_files() -> list[Path]:
    """All text files of the project: what is there and not named in .gitignore."""
    everything = [path for top in TOP for path in [ROOT / top, *(ROOT / top).rglob("*")]]
    return [path for path in everything if path.is_file() and not ignored(path)]


def ignored(path: Path) -> bool:
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    relative = path.relative_to(ROOT)
    return any(
        fnmatch.fnmatch(str(relative), pattern) or any(fnmatch.fnmatch(part, pattern) for part in relative.parts)
        for pattern in patterns
    )


def code_of(text: str) -> str:
    """What stands in code in Markdown: between backquotes, and in fenced blocks."""
    blocks = re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", text)])


def test_top_level() -> None:
    """Nothing lies at the top that does not belong there."""
    assert {path.name for path in ROOT.iterdir() if not ignored(path)} - {".git"} == TOP


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    """A module has at most 500 lines and says what lives in it; so do its public functions and classes."""
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 500
    assert not tree.body or ast.get_docstring(tree)
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    assert [node.name for node in defined if not node.name.startswith("_") and not ast.get_docstring(node)] == []


def test_no_paths_of_a_workplace() -> None:
    """The project stands alone: no file names a folder of the machine where it was written."""
    place = re.compile(rf"(^|[^.\w])/({'wor' 'k'}|{'far' 'm'})/[a-z.]|\.\./{'shar' 'ed'}|/{'hom' 'e'}/[a-z]")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in own_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if place.search(line)
    ]
    assert not found


def test_ci_runs_the_tests_of_the_readme() -> None:
    """CI runs the README's own commands: here as root and as an ordinary user, and on fresh machines."""
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == 1
    assert lines[0].endswith('/scripts/ci"')
    commands = re.findall(r"^as_(root|user)\(\) \{.*?\b(make test)\b", (ROOT / "scripts/ci").read_text(), re.M | re.S)
    assert commands == [("root", "make test"), ("user", "make test")]
    steps = set(re.findall(r'\bstep with\w* "(.*)"', (ROOT / "scripts/fresh-inside").read_text()))
    assert steps == {"make run", "make test"}
    assert all(step in code_of(README) for step in steps)


def test_make_lists_its_targets() -> None:
    """Each target has a line in `make help`."""
    done = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(re.findall(r"^  make (\w+)", done.stdout, re.MULTILINE)) == set(phony[1].split()) == TARGETS


def test_setup_installs_what_tests_need() -> None:
    """Each Debian package that a test names for a program is in the lists of scripts/setup."""
    setup = (ROOT / "scripts/setup").read_text()
    named = {
        match
        for path in (ROOT / "tests").rglob("*.py")
        for match in re.findall(r'program\("([\w-]+)", "([\w-]+)"\)', path.read_text())
    }
    assert {f"{program}:{package}" for program, package in named} <= set(re.findall(r"[\w-]+:[\w-]+", setup))


def test_setup_knows_its_purposes() -> None:
    """An unknown purpose is told in one line, and nothing is installed."""
    done = subprocess.run([ROOT / "scripts/setup", "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "setup: nonsense is not known; allowed are run and test\n")


@pytest.mark.parametrize(("python", "venv", "complaint"), [
    ("echo Python 3.9.2; exit 1", None, "is 'Python 3.9.2', and memhpfs needs Python 3.11 or newer"),
    (f"exec {sys.executable} \"$@\"", "exit 127", ".venv is broken: its Python does not start"),
], ids=["old Python", "broken .venv"])
def test_setup_tells_what_is_wrong(tmp_path: Path, python: str, venv: str | None, complaint: str) -> None:
    """An old Python and a broken .venv are told in one line, before anything is installed with pip."""
    for program in ("fusermount3:fuse3", "gcc:gcc", "pkg-config:pkg-config"):
        needs.program(*program.split(":"))
    for name in ("scripts/setup", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    programs = {"python": python} | ({".venv/bin/python": venv} if venv else {})
    for name, code in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [tmp_path / "scripts/setup", "run"], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHON": str(tmp_path / "python")},
    )
    assert done.returncode == 1
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_make_run_without_a_terminal() -> None:
    """`make run` shows the tour, whose every step does what it should."""
    needs.fuse()
    needs.user_namespaces()
    needs.program("chmem", "util-linux")
    done = subprocess.run(
        [ROOT / "scripts/run"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ memhpfs unplug tour\ntour: gone\n" in done.stdout
    assert re.search(r"The tour is over: all [0-9]+ steps did what they should\.\n\Z", done.stdout)


def test_tour_touches_nothing_outside() -> None:
    """Outside a machine the tour ends before its first step."""
    done = subprocess.run([ROOT / "scripts/tour"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tour: this is not inside a machine; start it with: memhpfs run -- scripts/tour\n"


def test_bench_compares_with_the_floor() -> None:
    """`make bench` measures all trees and says whether the limit is met; nothing stays mounted."""
    needs.fuse()
    needs.program("gcc", "gcc")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/bench.py", "--rounds", "1"],
        capture_output=True, text=True, check=False, timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| open\+read\+close, us +\|( +[0-9.]+ \|){4}", done.stdout, re.MULTILINE)
    assert re.search(r"^limit: .* 1\.35 times the C floor; here [0-9.]+: (NOT )?met$", done.stdout, re.MULTILINE)
    assert "8,192 blocks: first state file after" in done.stdout
    assert "memhpfs-bench" not in Path("/proc/self/mounts").read_text()


def test_readme_names_every_command() -> None:
    """Each command of memhpfs stands in the README."""
    assert [name for name in COMMANDS if not re.search(rf"memhpfs {name}\b", code_of(README))] == []


def test_help_topics_are_the_pages() -> None:
    """`memhpfs help` lists exactly the pages that there are."""
    assert sorted(TOPICS) == sorted(PAGES)


@pytest.mark.parametrize("text", WORDS)
def test_words_name_what_exists(text: str) -> None:
    """Commands, make targets, help topics and files of this project that a page names are there."""
    code = code_of(text)
    assert set(re.findall(r"\bmemhpfs ([a-z]+)\b", code)) <= COMMANDS.keys()
    assert set(re.findall(r"\bmake ([a-z]+)\b", code)) <= TARGETS
    assert set(re.findall(r"\bmemhpfs help ([a-z]+)\b", code)) <= PAGES.keys() | COMMANDS.keys()
    named = re.findall(r"`((?:memhpfs|tests|scripts)/[\w/.-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES.keys())
def test_page_is_short(text: str) -> None:
    """A page begins with its title, fits on two screens, and on a terminal of 80 columns."""
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 80
    assert [line for line in text.splitlines() if len(line) > 80] == []
