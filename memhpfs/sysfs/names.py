"""The order in which sysfs lists names: ascending by a hash of the name.

Source: kernfs_name_hash (fs/kernfs/dir.c), checked against real directories.
"""

from functools import lru_cache

__all__ = ["END_OF_DIRECTORY", "FIRST_HASH", "name_hash"]

_U64 = (1 << 64) - 1
_GOLDEN_RATIO_64 = 0x61C8864680B583EB
#: Offset of `.`, and the offset after the last entry.
FIRST_HASH, END_OF_DIRECTORY = 1, 0x7FFFFFFF


@lru_cache(maxsize=1 << 15)
def name_hash(name: str) -> int:
    """The directory offset of a name, between 2 and 0x7ffffffe."""
    value = 0
    for byte in name.encode():
        value = ((value + (byte << 4) + (byte >> 4)) * 11) & _U64
    value = (((value * _GOLDEN_RATIO_64) & _U64) >> 32) & 0x7FFFFFFF
    if value < 2:
        return value + 2
    return END_OF_DIRECTORY - 1 if value == END_OF_DIRECTORY else value
