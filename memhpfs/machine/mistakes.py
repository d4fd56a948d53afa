"""The mistakes of one machine file, gathered so that all of them are told at once.

The invariant: whoever uses a value asks first whether its key is `sure`, so that nothing is said that only follows from
another mistake.
"""

from collections.abc import Sequence

from attrs import define, field

from memhpfs.errors import UserError
from memhpfs.words import did_you_mean

__all__ = ["Mistakes"]



@define
class Mistakes:
    """What is wrong with a file.

    Attributes:
        where: the file's name, for errors.
        lines: what was found so far, each with file and key.
    """

    where: str
    lines: list[str] = field(factory=list, init=False)
    _unsure: set[str] = field(factory=set, init=False)

    def add(self, key: str, what: str) -> None:
        """Something is wrong with a key like `ram` or `dimm[0].size`."""
        self.lines.append(f"{self.where}: {key}: {what}")
        self.doubt(key.partition(".")[0].partition("[")[0])

    def doubt(self, key: str) -> None:
        """The value of a top-level key is not what was meant."""
        self._unsure.add(key)

    def sure(self, *keys: str) -> bool:
        """Whether nothing was wrong with these top-level keys so far."""
        return self._unsure.isdisjoint(keys)

    def stop(self) -> None:
        """Go no further if there are mistakes.

        Raises:
            UserError: exit code 2, with all of them.
        """
        if self.lines:
            raise UserError(self.lines, exit_code=2)

    def word(self, key: str, value: str, allowed: Sequence[str]) -> bool:
        """Whether a value is one of these words."""
        if value not in allowed:
            self.add(key, f"{value!r:.60} is not known; allowed are {', '.join(allowed)}{did_you_mean(value, allowed)}")
        return value in allowed

    def between(self, key: str, value: int, low: int, high: int) -> None:
        """A number must lie between two others."""
        if not low <= value <= high:
            self.add(key, f"{value} must be between {low} and {high}")
