"""Machines by name or file: reading TOML, checking what the values mean together, and the presets.

Raises UserError with exit code 2, with every mistake, naming file, key, value and what is allowed.
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from memhpfs.errors import UserError
from memhpfs.machine.description import Dimm, Machine
from memhpfs.machine.mistakes import Mistakes
from memhpfs.machine.toml import read_toml
from memhpfs.words import did_you_mean

__all__ = ["Dimm", "Machine", "explanation", "load", "preset_names", "source_text"]

#: Keys whose values are strings: `--set kernel=6.1` needs no quotes.
_STRINGS = ("kernel", "arch", "cmdline")


def preset_names() -> list[str]:
    """Names of the presets, the plain one first."""
    folder = resources.files("memhpfs.machine") / "presets"
    names = sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))
    return sorted(names, key=lambda name: (name != "default", name))


def explanation(text: str) -> str:
    """The first comment line of a machine file."""
    first = text.split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def source_text(name_or_path: str) -> tuple[str, str]:
    """Name and text of a preset or a machine file.

    Raises:
        UserError: neither, or not readable.
    """
    if name_or_path in preset_names():
        return name_or_path, (resources.files("memhpfs.machine") / "presets" / f"{name_or_path}.toml").read_text()
    path = Path(name_or_path)
    try:
        return path.stem, path.read_bytes().decode()
    except FileNotFoundError:
        names = preset_names()
        raise UserError(f"machine {name_or_path!r} is neither a file nor a preset; presets are "
                        f"{', '.join(names)}{did_you_mean(name_or_path, names)}", exit_code=2) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name_or_path}: not UTF-8 at byte {error.start}", exit_code=2) from None
    except OSError as error:
        raise UserError(f"{name_or_path}: {error.strerror}", exit_code=2) from None
    except ValueError:
        raise UserError(f"{name_or_path!r} is no file name", exit_code=2) from None


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Machine:
    """The machine of a preset's name or a file.

    Args:
        overrides: `KEY=VALUE` for top-level keys; VALUE is a TOML value, or a plain string where it is none.

    Raises:
        UserError: exit code 2.
    """
    name, text = source_text(name_or_path)
    where = name_or_path if name_or_path != name else f"preset {name}"
    # cattrs takes a while to import: only whoever loads a machine pays.
    from memhpfs.machine.resolve import resolve

    mistakes = Mistakes(where)
    data = read_toml(text, mistakes)
    if overrides:
        data |= dict(map(_override, overrides))
        mistakes.where = f"{where} with {' '.join(f'--set {override}' for override in overrides)}"
    return resolve(data, name, explanation(text), mistakes)


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"--set {text}: must be KEY=VALUE, e.g. --set slots=4", exit_code=2)
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return key, value
    if parsed.keys() != {"value"} or (key in _STRINGS and not isinstance(parsed["value"], str)):
        return key, value
    return key, parsed["value"]
