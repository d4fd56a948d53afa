"""The map of the house in pyproject.toml, [tool.memhpfs], against every import in the code."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["memhpfs"]
PURE = ["errors", "units", "parse", "kernel", "sysfs", "qmp", "machine"]


def module_of(path: Path) -> str:
    """memhpfs/kernel/boot.py is `kernel.boot`, memhpfs/kernel/__init__.py is `kernel`."""
    return ".".join(path.relative_to(ROOT / "memhpfs").with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree: ast.AST) -> Iterator[str]:
    """The full name of everything that is imported; of `from a import b` both a and a.b, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def waits(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith) for node in ast.walk(tree)
    )


TREES = {module_of(path): ast.parse(path.read_text()) for path in sorted((ROOT / "memhpfs").rglob("*.py"))}
IMPORTS = {module: set(imports_of(tree)) for module, tree in TREES.items()}
#: Rooms that are folders.  Their __init__.py say nothing of what `from memhpfs.kernel import dimm` uses.
FOLDERS = {path.name for path in (ROOT / "memhpfs").iterdir() if path.is_dir()}
#: Imports of our own: module -> modules, both without the leading `memhpfs.`.
OWN = {
    module: ({name.removeprefix("memhpfs.") for name in names} & TREES.keys()) - FOLDERS
    for module, names in IMPORTS.items()
}


def lies_in(module: str, places: list[str]) -> bool:
    """Whether a module is one of these rooms or modules, or in one of them."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_every_room_is_on_the_map() -> None:
    """A new folder or file of memhpfs/ gets its line in [tool.memhpfs.rooms]."""
    assert {room_of(module) for module in TREES} - {"__init__"} == MAP["rooms"].keys()


def test_imports_between_rooms_are_on_the_map() -> None:
    """A room imports only what its line names, and itself; `memhpfs`, which has the version, is free."""
    offences = [
        f"{module} imports {other}"
        for module, others in OWN.items()
        for other in others
        if not lies_in(other, [room_of(module), *MAP["rooms"].get(room_of(module), [])])
    ]
    assert not offences


def test_rooms_have_an_order() -> None:
    """No two rooms import each other, also not by way of others."""
    places = {room: {room_of(place) for place in places} for room, places in MAP["rooms"].items()}
    assert list(TopologicalSorter(places).static_order())


def test_modules_have_an_order() -> None:
    """No import goes round in a circle; in kernel/ that is the order of the layers of mm/."""
    assert list(TopologicalSorter(OWN).static_order())


@pytest.mark.parametrize("library", MAP["libraries"])
def test_library_stays_in_its_rooms(library: str) -> None:
    """Clocks, the operating system and libraries are for the rooms that the map names."""
    users = [
        module
        for module, names in IMPORTS.items()
        if (waits(TREES[module]) if library == "async" else any(lies_in(name, [library]) for name in names))
    ]
    assert [module for module in users if not lies_in(module, MAP["libraries"][library])] == []


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_load_no_machinery(room: str) -> None:
    """Whoever imports the model gets no FUSE and no trio with it, so it works where libfuse is missing."""
    modules = [f"memhpfs.{module}" for module in TREES if lies_in(module, [room])]
    assert loaded_by(modules).isdisjoint({"pyfuse3", "trio", "asyncio", "socket", "subprocess"})


def test_hardware_commands_load_no_fuse() -> None:
    """`memhpfs plug` starts without FUSE and trio, which cost more time than it takes."""
    assert loaded_by(["memhpfs.cli.main", "memhpfs.cli.hardware"]).isdisjoint({"pyfuse3", "trio"})


def loaded_by(modules: list[str]) -> set[str]:
    """The modules that a new Python has loaded after it imported these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
