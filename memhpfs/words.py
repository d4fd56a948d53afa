"""Words that somebody meant: the nearest one among those that are allowed, for every "did you mean" of ours."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The word that is most like this one, whatever the case of its letters; None where none is.

    Args:
        cutoff: how alike they must be: 1 is the same, 0 is anything.
    """
    lower = {known.lower(): known for known in words}
    near = difflib.get_close_matches(word.lower(), lower, 1, cutoff)
    return lower[near[0]] if near else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of an error about a word that is not known: `; did you mean 'online'?`, or nothing."""
    near = nearest(word, words)
    return f"; did you mean {near!r}?" if near else ""
