"""Machines by name or file: reading TOML, checking what the values mean together, and the presets.

Raises UserError with exit code 2 for every mistake, naming file, key, value and what is allowed.
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from memhpfs.errors import UserError
from memhpfs.machine.description import Dimm, Machine

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
        raise UserError(f"machine {name_or_path!r} is neither a file nor a preset; presets are "
                        f"{', '.join(preset_names())}", exit_code=2) from None
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
    data = _parse(text, where)
    if overrides:
        data |= dict(map(_override, overrides))
        where = f"{where} with {' '.join(f'--set {override}' for override in overrides)}"
    _check_numbers(data, where)
    # cattrs takes a while to import: only whoever loads a machine pays.
    from memhpfs.machine.file import structure
    from memhpfs.machine.resolve import resolve

    return resolve(structure(data, where), name, explanation(text), where)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not TOML: {error}", exit_code=2) from None
    except RecursionError:
        raise UserError(f"{where}: not TOML: nested too deeply", exit_code=2) from None
    except ValueError:
        # Python refuses to convert thousands of digits.
        raise UserError(f"{where}: not TOML: a number has too many digits", exit_code=2) from None


def _check_numbers(data: object, where: str, path: str = "") -> None:
    """No number is beyond what TOML promises to hold."""
    if isinstance(data, dict):
        for key, value in data.items():
            _check_numbers(value, where, f"{path}.{key}" if path else key)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            _check_numbers(value, where, f"{path}[{index}]")
    elif isinstance(data, int) and not -1 << 63 <= data < 1 << 63:
        raise UserError(f"{where}: {path}: a number in TOML has at most 64 bits", exit_code=2)


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
