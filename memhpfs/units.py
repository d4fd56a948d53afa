"""Sizes: bytes, pages, and the text people write them in.

Lives here: conversions between bytes and pages, and parsing and printing of sizes as people write them.
Must not: anything of the machine.  Everything is a plain int; the name says the unit (`start_pfn`, `size_bytes`).
"""

import re

__all__ = ["GIB", "KIB", "MIB", "TIB", "align_down", "align_up", "format_size", "parse_size"]

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_SUFFIX = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:([KMGT])(?:iB)?)?", re.IGNORECASE)
_HEX = re.compile(r"0x[0-9a-f]+", re.IGNORECASE)
#: Python refuses to convert thousands of digits.
_MAX_LENGTH = 100


def parse_size(text: str | int) -> int:
    """Bytes from `4096`, `"512M"`, `"1.5G"`, `"1GiB"` or `"0x1c0000000"` (powers of 1024).

    Raises:
        ValueError: with what is wrong and what is allowed.
    """
    size = _bytes_of(text)
    if size is None:
        raise ValueError(f"{text!r:.60} is not a size; allowed are an integer, a number with K, M, G or T, or 0x-hex, "
                         "e.g. 512M or 1.5G")
    if size < 0:
        raise ValueError(f"{text} is negative; sizes are bytes, or a number with K, M, G or T")
    if size >= 1 << 64:
        raise ValueError(f"{text!r:.60} is too large; sizes are below 2^64")
    return size


def _bytes_of(text: str | int) -> int | None:
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    word = text.strip() if isinstance(text, str) else ""
    if len(word) > _MAX_LENGTH:
        return None
    if _HEX.fullmatch(word):
        return int(word, 16)
    if match := _NUMBER.fullmatch(word):
        whole, part, unit = match.groups(default="")
        size, rest = divmod(int(whole + part) * _SUFFIX[unit.upper()], int(10 ** len(part)))
        if rest:
            raise ValueError(f"{text!r:.60} does not come to whole bytes; K, M, G and T are powers of 1024")
        return size
    return None


def format_size(size_bytes: int) -> str:
    """The shortest exact spelling that people use: 134217728 is `128M`, 1610612736 is `1.5G`."""
    for suffix in "TGMK":
        unit = _SUFFIX[suffix]
        if size_bytes >= unit and size_bytes * 4 % unit == 0:
            return f"{size_bytes / unit:.2f}".rstrip("0").rstrip(".") + suffix
    return str(size_bytes)


def align_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def align_down(value: int, step: int) -> int:
    """The largest multiple of `step` that is not above `value`."""
    return value // step * step
