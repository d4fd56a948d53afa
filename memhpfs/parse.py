"""The kernel's parsers for words and numbers, used by sysfs files and by the kernel command line.

Each takes the C string (text already cut at the first NUL) and raises `BadText` or `TooLarge`.
Source: lib/string_helpers.c, lib/kstrtox.c; transcripts `params.*`.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from memhpfs.errors import BadText, TooLarge

__all__ = ["c_string", "counted_string", "kstrtobool", "kstrtoull", "match_word", "memparse"]

T = TypeVar("T")

_U64 = (1 << 64) - 1
_DIGITS = r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)"
_NUMBER = re.compile(rf"\+?{_DIGITS}")
_DECIMAL = re.compile(r"\+?([0-9]+)")
_MEMPARSE = re.compile(rf"{_DIGITS}([kKmMgGtTpPeE]?)")
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


def c_string(data: bytes) -> str:
    """What a C parser sees of a write: everything before the first NUL."""
    return data.split(b"\0", 1)[0].decode("latin1")


def counted_string(data: bytes) -> str:
    """What a parser sees of a write that goes by the count: everything."""
    return data.decode("latin1")


def match_word(text: str, words: Mapping[str, T]) -> T:
    """The value of a word of the table; one trailing newline is allowed.  Linux: sysfs_match_string.

    Raises:
        BadText: no such word.
    """
    word = text.removesuffix("\n")
    if word not in words:
        raise BadText(f"{word!r} is none of {', '.join(words)}")
    return words[word]


def kstrtobool(text: str, *, enable_words: bool = False) -> bool:
    """Linux: kstrtobool, which looks at one or two characters only.

    Args:
        enable_words: whether `e` and `d` are known (6.18 and newer).

    Raises:
        BadText: any other first character.
    """
    first, second = text[:1].lower(), text[1:2].lower()
    if first in ("y", "t", "1") or (enable_words and first == "e"):
        return True
    if first in ("n", "f", "0") or (enable_words and first == "d"):
        return False
    if first == "o" and second in ("n", "f"):
        return second == "n"
    raise BadText(f"{text!r} is not a truth value")


def kstrtoull(text: str, base: int = 0, limit: int = _U64) -> int:
    """Linux: kstrtoull; base 0 tells hex, octal and decimal apart by the prefix.

    Args:
        limit: the largest value the target type holds.

    Raises:
        BadText: not a number.
        TooLarge: larger than `limit`.
    """
    match = (_NUMBER if base == 0 else _DECIMAL).match(text)
    if not match:
        raise BadText(f"{text!r} is not a number")
    value = int(match[1], base or _base_of(match[1]))
    if value > _U64:
        raise TooLarge(f"{text!r} is larger than {_U64}")
    if text[match.end():] not in ("", "\n"):
        raise BadText(f"{text!r} is not a number")
    if value > limit:
        raise TooLarge(f"{text!r} is larger than {limit}")
    return value


def memparse(text: str) -> tuple[int, str]:
    """A size modulo 2^64, with an optional suffix, and the rest of the text.  Linux: memparse; it never fails."""
    match = _MEMPARSE.match(text)
    if not match:
        return 0, text
    value = int(match[1], _base_of(match[1])) << _SHIFT[match[2].lower()]
    return value & _U64, text[match.end():]


def _base_of(digits: str) -> int:
    """Linux: _parse_integer_fixup_radix."""
    return 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
