"""Writers that wait: signals, locks, readers beside them, bugs, and the end of the daemon.

What shall end at once would last longer than the kit waits for an end.  How fast it is, the benchmark tells.
"""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import needs
import pytest
from host_kit import PATIENCE_S, Daemon, Writer, serving, wait_until, waits_for_fuse

#: Signals that a Python program does not catch.
DEADLY = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    needs.fuse()
    with serving(tmp_path / "m") as daemon:
        yield daemon


def _file(daemon: Daemon, number: int = 0) -> Path:
    return daemon.memory / f"memory{number}" / "state"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1])
def test_signal_interrupts_a_writer(daemon, number):
    """Any signal ends an interruptible wait at once: the writer dies, or sees EINTR where it has a handler."""
    writers = [Writer(_file(daemon, i), "!sleep 60") for i in range(5)]

    wanted = errno.EINTR if number == signal.SIGUSR1 else -number
    assert [writer.signal(number) for writer in writers] == [wanted] * 5


def test_signal_interrupts_what_costs_nothing(daemon):
    """An Op that tries again and again without cost ends with a signal, and readers go on meanwhile."""
    writer = Writer(_file(daemon), "!spin")
    assert _file(daemon, 1).read_text() == "online\n"

    assert writer.signal(signal.SIGTERM) == -signal.SIGTERM


def test_signal_to_another_process_of_the_descriptor(daemon):
    """It is the writer's signal that counts, not that of whoever opened the file."""
    script = f"exec 3>{_file(daemon)}; sh -c 'echo x; echo \"!sleep 60\" >&3'"
    writer = Writer(_file(daemon), "", ["sh", "-c", script])
    children = Path(f"/proc/{writer.process.pid}/task/{writer.process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)

    assert writer.end() == 128 + signal.SIGTERM


def test_deaf_pause_is_not_interrupted(daemon, tmp_path):
    """Where Linux does not look at signals the write goes on to its end."""
    writer = Writer(_file(daemon), f"!until {tmp_path}/end")
    writer.process.send_signal(signal.SIGUSR1)
    with pytest.raises(subprocess.TimeoutExpired):
        writer.process.wait(0.3)
    (tmp_path / "end").touch()

    assert writer.end() == 0


def test_dying_waiter_leaves_the_lock_queue(daemon):
    """A writer that waits for the hotplug lock can be killed; whoever holds it goes on."""
    holder = Writer(_file(daemon, 0), "!hold 1")
    waiter, other = Writer(_file(daemon, 1), "!hold 60"), Writer(_file(daemon, 2), "!hold 0")

    assert waiter.signal(signal.SIGTERM) == -signal.SIGTERM
    assert (holder.end(), other.end()) == (0, 0)


def test_handled_signal_does_not_end_the_wait_for_the_lock(daemon):
    """Linux starts the system call over after the handler, so the write succeeds in the end."""
    holder = Writer(_file(daemon, 0), "!hold 0.5")
    waiter = Writer(_file(daemon, 1), "!hold 0.2")
    waiter.process.send_signal(signal.SIGUSR1)

    assert (holder.end(), waiter.end()) == (0, 0)


def test_second_signal_after_the_wait_for_the_lock(daemon):
    """FUSE tells of one signal for each request; a later one interrupts the writer all the same."""
    holder = Writer(_file(daemon, 0), "!hold 0.3")
    waiter = Writer(_file(daemon, 1), "!hold 60")
    waiter.process.send_signal(signal.SIGUSR1)
    assert holder.end() == 0
    time.sleep(0.2)

    assert waiter.signal(signal.SIGTERM) == -signal.SIGTERM


def test_many_waiters_get_the_lock(daemon):
    """Each of many waiters gets its turn."""
    writers = [Writer(_file(daemon, i), "!hold 0.05") for i in range(20)]

    assert [writer.end() for writer in writers] == [0] * 20


def test_readers_beside_many_waiting_writers(daemon, tmp_path):
    """Beside 24 writers that wait one can read, as often as one likes, and all end well."""
    script = f'exec 3>"$0"; echo x; echo "!until {tmp_path}/end" >&3'
    writers = [Writer(_file(daemon, i), "", ["sh", "-c", script, str(_file(daemon, i))]) for i in range(24)]
    for _ in range(200):
        assert _file(daemon, 23).read_text() == "online\n"

    assert all(writer.process.poll() is None for writer in writers)
    (tmp_path / "end").touch()
    assert [writer.end() for writer in writers] == [0] * 24


def test_bug_answers_eio_and_taints(daemon):
    """An exception that is no refusal becomes EIO and a traceback in the log; the mount goes on."""
    writer = Writer(_file(daemon), "!nonsense")

    assert writer.end() == errno.EIO
    assert _file(daemon).read_text() == "online\n"
    assert daemon.stop() == 0
    assert "AssertionError: a bug on purpose: nonsense" in daemon.said
    assert "Traceback" in daemon.said
    assert "the machine was tainted: write: AssertionError" in daemon.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_end_with_everything_busy(daemon, number):
    """A signal ends the daemon at once and cleanly, whoever waits, reads, or holds files open."""
    words = ["sleep", "deaf", "hold", "hold", "spin"]
    writers = [Writer(_file(daemon, i), f"!{word} 60") for i, word in enumerate(words)]
    script = f"while read -r x < {_file(daemon, 9)}; do :; done"
    reader = subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL)
    inside = subprocess.Popen(["sleep", "60"], cwd=daemon.memory)
    held = os.open(_file(daemon, 7), os.O_RDONLY)
    try:
        assert daemon.stop(number) == 0
        assert all(writer.end() > 0 for writer in writers)
        reader.wait(PATIENCE_S)
    finally:
        os.close(held)
        inside.kill()
        inside.wait()
        reader.kill()
        reader.wait()
    assert "Traceback" not in daemon.said


def test_unmount_from_outside(daemon):
    """umount ends the daemon."""
    needs.root()
    subprocess.run(["umount", str(daemon.root)], check=True)

    assert daemon.process.wait(PATIENCE_S) == 0


def test_forced_unmount_with_a_waiting_writer(daemon):
    """umount -f ends the connection under a writer: it gets an error, and the daemon ends and cleans up."""
    needs.root()
    writer = Writer(_file(daemon), "!deaf 60")
    subprocess.run(["umount", "-f", str(daemon.root)], stderr=subprocess.DEVNULL, check=False)

    assert writer.end() == errno.ECONNABORTED
    assert daemon.process.wait(PATIENCE_S) == 0


def test_second_writer_of_the_same_file_can_be_killed(daemon):
    """A writer that waits keeps other writers of its file only as long as they want to wait."""
    first = Writer(_file(daemon), "!hold 60")
    others = [Writer(_file(daemon), "!hold 0") for _ in DEADLY]

    for other, number in zip(others, DEADLY, strict=True):
        assert other.signal(number) == -number
    assert first.process.poll() is None
    assert first.signal(signal.SIGTERM) == -signal.SIGTERM


def test_writers_that_opened_the_file_before_anybody_waited(daemon):
    """Each has a lock of its own; what has no name to look up again opens all the same."""
    with ExitStack() as stack:
        first = stack.enter_context(open(_file(daemon), "w"))
        files = [stack.enter_context(open(_file(daemon), mode)) for mode in ("w", "r+")]
        with open(f"/proc/self/fd/{first.fileno()}", "w"), open(f"/proc/self/fd/{files[0].fileno()}", "w"):
            pass
        hold, *others = [subprocess.Popen(["sh", "-c", "echo '!hold 60'"], stdout=file) for file in (first, *files)]
        wait_until(lambda: all(waits_for_fuse(process.pid) for process in (hold, *others)))

        for other in others:
            other.terminate()
            assert other.wait(PATIENCE_S) == -signal.SIGTERM
        assert hold.poll() is None
        hold.kill()
        hold.wait()


def test_file_is_itself_again_after_the_wait(daemon):
    """While a writer waits and afterwards the file has its inode number, and what chmod did to it."""
    file = _file(daemon)
    number = file.stat().st_ino
    writer = Writer(file, "!hold 0.5")
    file.chmod(0o600)

    assert [path.stat().st_ino for path in file.parent.iterdir() if path.name == "state"] == [number]
    assert file.read_text() == "online\n"
    assert writer.end() == 0
    assert (file.stat().st_ino, file.stat().st_mode) == (number, 0o100600)
