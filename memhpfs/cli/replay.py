"""`memhpfs replay`: do recorded runs of real kernels again."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from memhpfs.client import Client
from memhpfs.errors import UserError
from memhpfs.replay.doors import InProcess, Mounted
from memhpfs.replay.network import private_network, uevent_socket
from memhpfs.replay.recorded import machine_text, recorded_machine
from memhpfs.replay.replayer import Result, replay
from memhpfs.replay.transcript import Transcript, read

__all__ = ["command"]

_READY_S, _STOP_S = 30.0, 10.0
_READY_FILE = "sys/devices/system/memory/block_size_bytes"


@click.command(name="replay", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("transcripts", nargs=-1, required=True, metavar="TRANSCRIPT...")
@click.option("--show", default=5, show_default=True, metavar="N", help="Print at most N differing steps of each.")
@click.option("--mount", "mounted", is_flag=True,
              help="Use real system calls on a mount, not a model in this process.  Needs root and /dev/fuse.")
def command(transcripts: tuple[str, ...], show: int, mounted: bool) -> int:
    """Do recorded runs of real kernels again, and print what differs.

    A transcript says which machine a kernel ran on, what was done to it, and what it answered: results, errnos, uevents
    and the contents of all files about memory.  Every step is done again on a machine like that one.

    \b
    Example:
      memhpfs replay tests/transcripts/*.jsonl             in this process: seconds
      memhpfs replay --mount --show 20 params.plain.jsonl  through a mount, as root

    Exit code: 0 everything is alike, 1 something differs, 2 a transcript or its machine cannot be used.
    """
    if mounted and os.geteuid() != 0:
        raise UserError("replay --mount needs root, to make a network namespace for uevents; run it with sudo")
    code = 0
    for transcript in [read(path) for path in transcripts]:
        try:
            result = _through_mount(transcript) if mounted else _in_process(transcript)
        except UserError as error:
            if error.exit_code != 2:
                raise
            click.echo(f"memhpfs: {transcript.path}: {error}", err=True)
            code = 2
            continue
        _tell(result, show)
        code = code or int(bool(result.differences))
    return code


def _in_process(transcript: Transcript) -> Result:
    return replay(transcript, InProcess(recorded_machine(transcript.header)))


def _through_mount(transcript: Transcript) -> Result:
    recorded_machine(transcript.header)
    with _mounted(machine_text(transcript.header)) as door:
        return replay(transcript, door)


def _tell(result: Result, show: int) -> None:
    """One line of what came of it; then what differs, and what was done in a special way."""
    click.echo(f"{result.name}: {result.good}/{result.total}")
    for difference in result.differences[:show]:
        click.echo(f"  {difference.what}")
        for line in difference.lines:
            click.echo(f"    {line}")
    if len(result.differences) > show:
        click.echo(f"  and {len(result.differences) - show} more; --show says how many are printed")
    if result.beyond_fuse:
        click.echo(f"  {len(result.beyond_fuse)} steps left out that FUSE cannot answer as sysfs does")


@contextmanager
def _mounted(machine: str) -> Iterator[Mounted]:
    """A machine served by a process of its own, in a network namespace that only it and the uevent socket are in."""
    folder = Path(tempfile.mkdtemp(prefix="memhpfs-replay-"))
    # Other users walk through it to the mount.
    folder.chmod(0o755)
    root, qmp = folder / "root", folder / "qmp"
    root.mkdir()
    (folder / "machine.toml").write_text(machine)
    line = [sys.executable, "-m", "memhpfs", "mount", str(root), "--machine", str(folder / "machine.toml"),
            "--qmp", str(qmp), "--uevents"]
    try:
        with open(folder / "log", "wb") as log, private_network():
            sock = uevent_socket()
            daemon = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_ready(daemon, root, folder / "log")
            with closing(sock), Client.connect(str(qmp)) as client:
                yield Mounted(str(root), client, sock)
        finally:
            _stop(daemon, root)
    finally:
        shutil.rmtree(folder)


def _wait_until_ready(daemon: "subprocess.Popen[bytes]", root: Path, log: Path) -> None:
    """Wait until the tree can be used.

    Raises:
        UserError: the daemon ended, or the time is over.
    """
    deadline = time.monotonic() + _READY_S
    while not (root / _READY_FILE).exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip() or "it did not say why"
            raise UserError(f"the machine could not be mounted: {said.removeprefix('memhpfs: ')}")
        time.sleep(0.01)


def _stop(daemon: "subprocess.Popen[bytes]", root: Path) -> None:
    """End the daemon, which unmounts; if it does not in time, do it instead."""
    daemon.terminate()
    try:
        daemon.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    if os.path.ismount(root):
        subprocess.run(["umount", "-l", str(root)], check=False)
