"""Sizes: bytes, pages, and the text people write them in.

Lives here: conversions between bytes and pages, and parsing and printing of sizes as people write them.
Must not: anything of the machine.  Everything is a plain int; the name says the unit (`start_pfn`, `size_bytes`).
"""

import re

__all__ = ["GIB", "KIB", "MIB", "TIB", "align_down", "align_up", "format_size", "parse_size"]

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_SUFFIX = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_NUMBER = re.compile(r"([0-9]+)([KMGT]?)", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes from `4096`, `"512M"`, `"1G"` or `"0x1c0000000"` (powers of 1024).

    Raises:
        ValueError: with what is wrong and what is allowed.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text} is negative; sizes are bytes, or a number with K, M, G or T")
        return text
    if isinstance(text, str):
        word = text.strip()
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", word):
            return int(word, 16)
        if match := _NUMBER.fullmatch(word):
            return int(match[1]) * _SUFFIX[match[2].upper()]
    raise ValueError(f"{text!r} is not a size; allowed are an integer, a number with K, M, G or T, or 0x-hex")


def format_size(size_bytes: int) -> str:
    """The shortest exact spelling: 134217728 is `128M`."""
    for suffix in "TGMK":
        unit = _SUFFIX[suffix]
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{suffix}"
    return str(size_bytes)


def align_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def align_down(value: int, step: int) -> int:
    """The largest multiple of `step` that is not above `value`."""
    return value // step * step
