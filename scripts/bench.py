"""How long clients wait for memhpfs: `make bench`.

Times the same reads on four trees, in turns, round after round: the floor (scripts/floor.c, the least that a FUSE
daemon in C can do), memhpfs, memhpfs with the stock loop of pyfuse3, and the kernel's own sysfs where this computer has
memory blocks.  Sysfs is only read.  A figure is the median of the means of all rounds.

Only ratios within one run say something: how fast two processes wake each other differs by a factor of five between
computers, and with what else they do.  The limit is a ratio: open+read+close through memhpfs takes at most 1.35 times
what it takes through the floor, wherever the scheduler puts client and daemon, and where they share one processor.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
MEMHPFS = Path(sys.executable).parent / "memhpfs"
MEMORY = "sys/devices/system/memory"
LIMIT = 1.35
START_S = 30
BLOCKS = 192
#: What is read of each block, and of how many blocks.
NAMES = ("state", "removable", "phys_index", "valid_zones")
SOME_BLOCKS = 24
#: How often a client reads each file.  Where the scheduler puts a new process, and how it is woken there, differs from
#: one to the next by a factor of four, so each must read for some tenths of a second.
PASSES = 40
#: A machine with 8,192 blocks.
LARGE = 'block-size = "128M"\nram = "1T"\n'
#: A machine of which eight blocks can be neither emptied nor given up: their pages are pinned.
STUCK = """
cmdline = "memhp_default_state=online_movable"
ram = "2G"
dimm = [{id = "d0", size = "1G"}]
workload = [{id = "pins", kind = "pinned", movable = true, size = "1G"}]
"""
WRITERS = READERS = 8
FLOOR, POLL, STOCK, SYSFS = "C floor", "memhpfs", "stock loop", "sysfs"

Trees = dict[str, Path]
Action = Callable[[Path], float]


@contextmanager
def daemon(folder: Path, *command: str | Path) -> Iterator[tuple[Path, int, float]]:
    """A daemon that mounts at DIR: yields the directory, its pid, and the seconds until a state file was there."""
    root = Path(tempfile.mkdtemp(dir=folder))
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(root) if word == "DIR" else word for word in command], stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
    )
    try:
        wait_for(root / MEMORY / "memory0/state", process)
        yield root, process.pid, time.perf_counter() - began
    finally:
        end(process, root)


def wait_for(state: Path, process: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + START_S
    while True:
        try:
            state.read_text()
            return
        except OSError:
            if process.poll() is not None:
                assert process.stderr
                sys.exit(f"bench: {process.args!r} ended: {process.stderr.read().decode().strip()}")
            if time.monotonic() > limit:
                sys.exit(f"bench: {process.args!r} has no {state} after {START_S} s")
            time.sleep(0.0005)


def end(process: "subprocess.Popen[bytes]", root: Path) -> None:
    """End a daemon, kindly first, and whatever it leaves mounted."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if f" {root} " in Path("/proc/self/mounts").read_text():
        subprocess.run(["fusermount3", "-u", "-z", root], check=False)


def build(folder: Path) -> None:
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True
    ).stdout.split()
    for name in ("floor", "client"):
        subprocess.run(["gcc", "-O2", "-o", str(folder / name), str(HERE / f"{name}.c"), *flags], check=True)


def files_of(root: Path) -> list[str]:
    blocks = [path for path in (root / MEMORY).iterdir() if path.name.removeprefix("memory").isdigit()]
    return [str(block / name) for block in sorted(blocks)[:SOME_BLOCKS] for name in NAMES]


def by_client(folder: Path, action: str, rounds: int) -> Action:
    """Microseconds for one action of scripts/client.c."""
    def measure(root: Path) -> float:
        command = [folder / "client", action, str(rounds), *files_of(root)]
        return float(subprocess.run(command, capture_output=True, check=True).stdout)
    return measure


def by_python(root: Path) -> float:
    """Microseconds for open(file).read() in Python.  A first time is not counted."""
    files = files_of(root)
    began = 0.0
    for _ in range(2):
        began = time.perf_counter()
        for file in files:
            with open(file) as opened:
                opened.read()
    return (time.perf_counter() - began) / len(files) * 1e6


def by_lsmem(root: Path) -> float:
    """Microseconds for one lsmem, as a whole command."""
    began = time.perf_counter()
    subprocess.run(["lsmem", "--sysroot", root], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e6


def compare(trees: Trees, measure: Action, rounds: int) -> dict[str, float]:
    """Median over all rounds of each tree.  Each round begins with another tree; a first one is not counted."""
    results: dict[str, list[float]] = {name: [] for name in trees}
    names = list(trees)
    for number in range(rounds + 1):
        for name in names[number % len(names):] + names[:number % len(names)]:
            took = measure(trees[name])
            if number:
                results[name].append(took)
    return {name: statistics.median(values) for name, values in results.items()}


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this process, and all that it starts, on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def all_trees(folder: Path) -> Iterator[Trees]:
    ram = BLOCKS // 8
    machine = ("--set", f"ram={ram}G", "--set", "block-size=128M")
    with ExitStack() as stack:
        floor, _, _ = stack.enter_context(daemon(folder, folder / "floor", "DIR", str(BLOCKS)))
        poll, _, _ = stack.enter_context(daemon(folder, MEMHPFS, "mount", *machine, "DIR"))
        stock, _, _ = stack.enter_context(daemon(folder, MEMHPFS, "mount", *machine, "--loop", "stock", "DIR"))
        trees = {FLOOR: floor, POLL: poll, STOCK: stock}
        if Path("/", MEMORY, "memory0/state").exists():
            trees[SYSFS] = Path("/")
        yield trees


def line(title: str, cells: list[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {title.ljust(24)} | " + " | ".join(cell.rjust(10) for cell in cells) + " |"


def row(title: str, times: dict[str, float], columns: list[str]) -> str:
    """The time on each tree, and what memhpfs takes as a multiple of two of them."""
    unit, width = ("ms", 1000) if times[FLOOR] > 1000 else ("us", 1)
    ratios = [f"{times[POLL] / times[name]:.2f}" if name in times else "-" for name in (FLOOR, SYSFS)]
    return line(f"{title}, {unit}", [f"{times[name] / width:.1f}" for name in columns] + ratios)


def reads(folder: Path, rounds: int) -> float:
    """Print the table of times; the ratio that has a limit, the larger of two."""
    read = by_client(folder, "read", PASSES)
    with all_trees(folder) as trees:
        actions: dict[str, Action] = {
            "open+read+close": read,
            "Python open().read()": by_python,
            "stat": by_client(folder, "stat", 50),
            "lsmem, all of it": by_lsmem,
        }
        print(f"{BLOCKS} blocks, medians of {rounds} rounds\n")
        print(line("", [*trees, "x floor", "x sysfs"]))
        print("|---" + "|--:" * (len(trees) + 2) + "|")
        ratios = []
        for title, measure in actions.items():
            times = compare(trees, measure, rounds)
            print(row(title, times, list(trees)), flush=True)
            ratios.append(times[POLL] / times[FLOOR])
    with one_processor(), all_trees(folder) as trees:
        times = compare(trees, read, rounds)
        print(row("..., one processor", times, list(trees)))
    return max(ratios[0], times[POLL] / times[FLOOR])


def starts(folder: Path, rounds: int) -> None:
    """Print how long a machine takes to start, and how much memory its daemon needs."""
    (folder / "large.toml").write_text(LARGE)
    for title, machine in (("the default machine", "default"), ("8,192 blocks", str(folder / "large.toml"))):
        seconds = []
        for _ in range(rounds):
            with daemon(folder, MEMHPFS, "mount", "--machine", machine, "DIR") as (root, pid, took):
                seconds.append(took)
                by_lsmem(root)
                kib = int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
        print(f"{title}: first state file after {statistics.median(seconds):.2f} s; "
              f"after an lsmem the daemon has {kib / 1024:.0f} MiB")


def runs(folder: Path, rounds: int) -> None:
    """Print how long a machine of one's own takes to start, and to end when it is killed."""
    start_s, end_ms = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with subprocess.Popen(
            [MEMHPFS, "run", "-M", "tiny", "--", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE,
            env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
        ) as process:
            assert process.stdout
            process.stdout.readline()
            start_s.append(time.perf_counter() - began)
            began = time.perf_counter()
            process.kill()
            # All its processes have this pipe.
            process.stdout.read()
            end_ms.append((time.perf_counter() - began) * 1e3)
    print(f"memhpfs run: the command starts after {statistics.median(start_s):.2f} s; "
          f"killed, all of it is gone after {statistics.median(end_ms):.0f} ms, at most {max(end_ms):.0f} ms "
          f"(limit 100)")


@contextmanager
def writers(root: Path, ended_ms: list[float]) -> Iterator[None]:
    """Writers that offline for ever; at the end, the milliseconds from the signal to the end of each."""
    stuck = sorted((root / MEMORY).glob("memory[0-9]*"), key=lambda path: int(path.name[6:]))[-WRITERS:]
    processes = []
    for block in stuck:
        with open(block / "state", "w") as state:
            processes.append(
                subprocess.Popen(["sh", "-c", "echo ready; echo offline >&2"], stdout=subprocess.PIPE, stderr=state)
            )
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    try:
        yield
    finally:
        for process in processes:
            assert process.poll() is None, "an offlining ended by itself"
            began = time.perf_counter()
            process.terminate()
            process.wait()
            ended_ms.append((time.perf_counter() - began) * 1e3)


def by_readers(folder: Path, root: Path) -> float:
    """Microseconds for one open+read+close by each of several readers at once."""
    command = [folder / "client", "read", str(PASSES // READERS), *files_of(root)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(READERS)]
    return statistics.mean(float(reader.communicate()[0]) for reader in readers)


def load(folder: Path, rounds: int) -> None:
    """Print what readers and signals see beside writers that offline for ever."""
    (folder / "stuck.toml").write_text(STUCK)
    alone, beside, ended_ms = [], [], list[float]()
    with daemon(folder, MEMHPFS, "mount", "--machine", folder / "stuck.toml", "DIR") as (root, _, _):
        by_readers(folder, root)
        for _ in range(rounds):
            alone.append(by_readers(folder, root))
            with writers(root, ended_ms):
                beside.append(by_readers(folder, root))
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"{READERS} readers beside {WRITERS} writers that offline for ever: {statistics.median(beside):.0f} us for "
          f"an open+read+close, {ratio:.2f} times what it takes without the writers (limit 2)")
    print(f"from a signal to the end of such a writer: {statistics.median(ended_ms):.1f} ms, at most "
          f"{max(ended_ms):.1f} ms (limit 10)")


def main() -> int:
    """Measure and print; with --check exit code 1 when the limit is not met."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="how many rounds (15)")
    parser.add_argument("--check", action="store_true", help="fail when the limit is not met")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="memhpfs-bench-") as name:
        folder = Path(name)
        build(folder)
        ratio = reads(folder, options.rounds)
        met = "met" if ratio <= LIMIT else "NOT met"
        print(f"\nlimit: open+read+close at most {LIMIT} times the C floor; here {ratio:.2f}: {met}\n")
        starts(folder, min(options.rounds, 5))
        runs(folder, min(options.rounds, 5))
        print()
        load(folder, min(options.rounds, 5))
    return 1 if options.check and ratio > LIMIT else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
