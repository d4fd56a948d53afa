"""A transcript done again: each step through a door, and whatever differs from what Linux answered.

A step is alike only if all of it is: the answer, the uevents, and all followed files.
"""

import errno
import os

from attrs import define, field, frozen

from memhpfs.replay import compare, snapshot
from memhpfs.replay.doors import Door
from memhpfs.replay.steps import Actor
from memhpfs.replay.transcript import Step, Transcript

__all__ = ["Difference", "Result", "replay"]

#: Steps after which everything is looked at, whether or not the recording says that something changed.
_ACTS = ("put", "plug", "unplug", "virtio", "inject")


@frozen
class Difference:
    """One step that is not alike, and in what."""

    what: str
    lines: tuple[str, ...]


@define
class Result:
    """What came of a transcript.

    Attributes:
        total, good: steps that were compared, and those that are alike; what the machine shows after boot is one.
        differences: the others.
        beyond_fuse: steps that were left out because FUSE cannot answer as sysfs does.
    """

    name: str
    total: int = 0
    good: int = 0
    differences: list[Difference] = field(factory=list)
    beyond_fuse: list[str] = field(factory=list)

    def count(self, what: str, lines: list[str]) -> None:
        """Count one comparison and what it found."""
        self.total += 1
        if lines:
            self.differences.append(Difference(what, tuple(lines)))
        else:
            self.good += 1


def replay(transcript: Transcript, door: Door) -> Result:
    """Do a transcript on the machine behind a door, which has just booted."""
    result, actor = Result(transcript.name), Actor(door, transcript.header.arch)
    want, got = dict(transcript.header.boot), snapshot.take(door.calls)
    result.count("boot", compare.after_boot(want, got))
    for step in transcript.steps:
        if step.do == "sh":
            continue
        if door.behind_fuse and _beyond_fuse(step):
            result.beyond_fuse.append(str(step))
            continue
        outcome = actor.do(step)
        lines = [line for line in [compare.answer(step, outcome)] if line]
        if _looks(step):
            want_new, got_new = compare.followed(step, want), snapshot.take(door.calls)
            lines += compare.after_step(step, (want, want_new), (got, got_new))
            lines += [line for line in [compare.uevents(step, door.uevents())] if line]
            want, got = want_new, got_new
        result.count(str(step), lines)
    return result


def _looks(step: Step) -> bool:
    """Whether the files and uevents are compared after a step."""
    writes = step.do == "sys" and step.fields["args"][0] == "write"
    return step.changed is not None or step.do in _ACTS or writes


def _beyond_fuse(step: Step) -> bool:
    """Whether the VFS or FUSE itself answers, without asking who serves the mount.

    That is the type of the file system, private mappings, pwrite for readers, and where a descriptor may be set to.
    """
    refused = step.outcome.errno
    match step.fields["args"] if step.do == "sys" else []:
        case ["statfs", *_]:
            return True
        case ["mmap", _, _, shared]:
            return not shared
        case ["write", *_]:
            return refused == errno.ESPIPE
        case ["lseek", _, offset, os.SEEK_SET]:
            return bool(refused) and offset >= 0
    return False
