"""`memhpfs replay`: do recorded runs of real kernels again."""

import os

import click

from memhpfs.errors import UserError
from memhpfs.replay.transcript import read

__all__ = ["command"]


@click.command(name="replay", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("transcripts", nargs=-1, required=True, metavar="TRANSCRIPT...")
@click.option("--show", default=5, show_default=True, metavar="N", help="Print at most N differences of a transcript.")
@click.option("--mount", "mounted", is_flag=True,
              help="Use real system calls on a mount, not a model in this process. Needs root and /dev/fuse.")
def command(transcripts: tuple[str, ...], show: int, mounted: bool) -> int:
    """Do recorded runs of real kernels again, and print what differs.

    A transcript says which machine a kernel ran on, what was done to it, and what it answered: results, errnos,
    uevents and the contents of all files about memory.  Each step is done again on a machine like that one.

    \b
    Examples:
      memhpfs replay tests/transcripts/*.jsonl            the model alone: seconds
      memhpfs replay --mount --show 20 params.plain.jsonl  the same through a mount

    Exit code: 0 all steps are alike, 1 something differs, 2 a transcript cannot be read.
    """
    if mounted and os.geteuid() != 0:
        raise UserError("replay --mount needs root, to make a network namespace for uevents; run it with sudo")
    differing = [result for result in map(_one(mounted, show), [read(path) for path in transcripts]) if result]
    return 1 if differing else 0
