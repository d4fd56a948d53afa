"""Reading TOML that people write: values that lack their quotes are told with what to write, and read all the same.

Must not: which keys there are (file.py).
"""

import re
import tomllib
from typing import Any

from memhpfs.errors import UserError
from memhpfs.machine.mistakes import Mistakes

__all__ = ["read_toml"]

_PLACE = re.compile(r"at line ([0-9]+), column ([0-9]+)")
_STATEMENT = re.compile(r"\s*([\w-]+)\s*=\s*([^\s\"'\[{=#](?:[^'#]*[^'#\s])?)\s*(?:#.*)?")
_KEY_BEFORE = re.compile(r"([\w-]+)\s*=\s*$")
_WORD = re.compile(r"[A-Za-z0-9][\w.%+-]*")
#: Keys whose values are never strings, so that quotes would not help.
_UNQUOTED = ("slots", "node", "distances", "movable", "reserved")
_TRUTH = {"True": "true", "False": "false"}


class _Written(float):
    """A number with a point as it stands in the file: 6.10 is not 6.1 to whoever meant a release."""

    def __new__(cls, text: str) -> "_Written":
        self = super().__new__(cls, text)
        self.text = text
        return self

    text: str

    def __repr__(self) -> str:
        return self.text


def read_toml(text: str, mistakes: Mistakes) -> dict[str, Any]:
    """The tables of a TOML text; values without the quotes that they need become strings and `mistakes`.

    Raises:
        UserError: exit code 2, the text is not TOML in another way.
    """
    try:
        while (error := _error_of(text)) is not None:
            text = _repaired(text, error, mistakes)
        return tomllib.loads(text, parse_float=_Written)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
    except RecursionError:
        what = "nested too deeply"
    except ValueError:
        # Python refuses to convert thousands of digits.
        what = "a number has too many digits"
    raise UserError([*mistakes.lines, f"{mistakes.where}: not TOML: {what}"], exit_code=2)


def _error_of(text: str) -> tomllib.TOMLDecodeError | None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return error
    return None


def _place(error: tomllib.TOMLDecodeError | None, text: str) -> tuple[int, int]:
    """Line and column of an error, from 0; the end of the text where there is none."""
    match = _PLACE.search(str(error))
    lines = text.split("\n")
    return (int(match[1]) - 1, int(match[2]) - 1) if match else (len(lines) - 1, len(lines[-1]))


def _repaired(text: str, error: tomllib.TOMLDecodeError, mistakes: Mistakes) -> str:
    """The text with quotes where the parser stumbled.

    Raises:
        TOMLDecodeError: quotes are not what it lacks there.
    """
    text = text.replace("\r\n", "\n")
    number, column = _place(error, text)
    lines = text.split("\n")
    found = _unquoted(lines[number], column)
    if found is None:
        raise error
    start, end, key = found
    value = lines[number][start:end]
    quoted = _TRUTH.get(value) or (f"'{value}'" if '"' in value else f'"{value}"')
    lines[number] = lines[number][:start] + quoted + lines[number][end:]
    repaired = "\n".join(lines)
    after = _error_of(repaired)
    if after is not None and _place(after, repaired) <= (number, end):
        raise error
    advice = "write it small" if value in _TRUTH else "put it in quotes"
    before = f"{key} = " if key else ""
    mistakes.lines.append(f"{mistakes.where}: line {number + 1}: {before}{value}: {advice}: {before}{quoted}")
    return repaired


def _unquoted(line: str, column: int) -> tuple[int, int, str] | None:
    """Start and end of what should have quotes, and its key, "" in an array: all that follows a key, or one word."""
    if match := _STATEMENT.fullmatch(line):
        start, end, key = *match.span(2), match[1]
    else:
        word = next((word for word in _WORD.finditer(line) if word.start() <= column <= word.end()), None)
        if word is None:
            return None
        before = _KEY_BEFORE.search(line[:word.start()])
        start, end, key = *word.span(), before[1] if before else ""
    value = line[start:end]
    hopeless = value.count('"') % 2 or (key in _UNQUOTED and value not in _TRUTH)
    return None if hopeless else (start, end, key)
