"""What counts as alike: a step's answer, its uevents, and the followed files after it.

Totals are compared as they moved, not absolutely: what a kernel reserves at boot is its own.  That is `MemTotal_kB` and
the managed pages of a zone, the last of the four numbers of `zone/NODE/NAME` (start_pfn, spanned, present, managed).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from memhpfs.replay.transcript import Outcome, Step

__all__ = ["Files", "after_boot", "after_step", "answer", "followed", "uevents"]

#: Followed files: key to contents.
Files = Mapping[str, Any]

_TOTAL = "MemTotal_kB"
_ZONE = "zone/"
_EMPTY_ZONE = [0, 0, 0, 0]
#: Of what stat tells: mode, size, links and owner; blocks and their size are the mount's own.
_STAT_FIELDS = 5


def answer(step: Step, got: Outcome) -> str:
    """What differs between the recorded answer and this one; empty if nothing does."""
    want, have = step.outcome, got
    if step.do == "stat" and isinstance(want.ok, list) and isinstance(have.ok, list):
        want, have = Outcome(want.ok[:_STAT_FIELDS]), Outcome(have.ok[:_STAT_FIELDS])
    return "" if want == have else _told("answer", want, have)


def uevents(step: Step, got: Sequence[Mapping[str, str]]) -> str:
    """What differs between the recorded uevents and these; empty if nothing does."""
    want, have = [dict(item) for item in step.uevents], [dict(item) for item in got]
    if want == have:
        return ""
    return _told("uevents", *(" ".join(_uevent(item) for item in items) or "none" for items in (want, have)))


def after_boot(want: Files, got: Files) -> list[str]:
    """Differences in the followed files right after boot; totals cannot have moved yet, so they do not count."""
    differences = []
    for key in sorted(set(want) | set(got)):
        left, right = want.get(key), got.get(key)
        if key.startswith(_ZONE):
            left, right = (left or _EMPTY_ZONE)[:3], (right or _EMPTY_ZONE)[:3]
        if left != right and key != _TOTAL:
            differences.append(_told(key, repr(left), repr(right)))
    return differences


def followed(step: Step, before: Files) -> dict[str, Any]:
    """The recorded files after a step: those before it, and what it changed."""
    return {key: value for key, value in {**before, **(step.changed or {})}.items() if value is not None}


def after_step(step: Step, want: tuple[Files, Files], got: tuple[Files, Files]) -> list[str]:
    """Differences in the followed files after a step.

    A file that was different before and did not change on either side is not told again.

    Args:
        want, got: recorded and own files, before and after.
    """
    changed, (want_old, want_new), (got_old, got_new) = step.changed or {}, want, got
    differences = []
    for key in sorted(set(want_new) | set(got_new)):
        left, right = want_new.get(key), got_new.get(key)
        moved = key in changed or right != got_old.get(key)
        if moved and not _same(key, (want_old.get(key), left), (got_old.get(key), right)):
            differences.append(_told(key, repr(left), repr(right)))
    return differences


def _same(key: str, want: tuple[Any, Any], got: tuple[Any, Any]) -> bool:
    """Whether one followed file is alike; each pair is before and after."""
    if key == _TOTAL:
        return bool(_moved(*want) == _moved(*got))
    if key.startswith(_ZONE) and want[1] and got[1]:
        return _zone(*want) == _zone(*got)
    return bool(want[1] == got[1])


def _moved(old: Any, new: Any) -> Any:
    """How a number moved; what was not there before, or is gone, is told as it is."""
    return new - old if isinstance(old, int) and isinstance(new, int) else new


def _zone(old: list[int] | None, new: list[int]) -> tuple[list[int], int]:
    """A zone as it is compared: where it lies and what is present, and how its managed pages moved."""
    return new[:3], new[3] - (old or _EMPTY_ZONE)[3]


def _uevent(item: Mapping[str, str]) -> str:
    more = ",".join(f"{key}={value}" for key, value in item.items() if key not in ("ACTION", "DEVPATH", "SUBSYSTEM"))
    return f"{item.get('ACTION')}@{item.get('DEVPATH')}" + (f"({more})" if more else "")


def _told(what: str, want: object, got: object) -> str:
    return f"{what}: Linux {want!s:.200} | memhpfs {got!s:.200}"
