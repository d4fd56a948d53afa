"""Ordinary users, and systems that do not allow everything: what works, and what is said where it does not."""

import select
import signal
import subprocess
from pathlib import Path

import needs
import pytest
import run_kit
from host_kit import PATIENCE_S
from run_kit import BLOCK, MEMORY

user = pytest.mark.parametrize("person", ["user"], indirect=True)
root = pytest.mark.parametrize("person", ["root"], indirect=True)
#: A script of the checkout.
CHECK = "scripts/container-check"
#: A shell that may make no user namespaces, as the root of one, or as whoever calls it.
FORBIDDEN = ["sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh"]
AS_NOBODY = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]


@user
def test_user_is_root_inside(person):
    """Inside an ordinary user is root of the machine, and nobody else outside: files are theirs."""
    done = person.run(f"id -u; memhpfs plug d0 --size 128M; echo online > {BLOCK}/state; cat {BLOCK}/state; touch file")

    assert done.stdout.splitlines() == ["0", "d0: 128M at 0x100000000, node 0", "online"], done.stderr
    assert (person.home / "file").stat().st_uid == person.home.stat().st_uid
    person.wait_until_gone()


def with_ranges(person, place, script: str, **first: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a machine of an ordinary user whom files like /etc/subuid give a thousand ids."""
    binds = "\n".join(f"echo {person.home.stat().st_uid}:{number}:1000 > {place}/{name}; touch /etc/{name}; "
                      f"mount --bind {place}/{name} /etc/{name}" for name, number in first.items())
    words = person.argv("memhpfs", "run", "-M", "tiny", "--", "sh", "-c", script)
    return subprocess.run(["unshare", "--mount", "sh", "-c", f'{binds}\nexec "$@"', "sh", *words], cwd=person.home,
                          capture_output=True, text=True, check=False)


@user
def test_user_with_ranges_of_ids(person, tmp_path):
    """Where /etc/subuid and /etc/subgid give a user ids, these are the other users inside."""
    needs.root()
    needs.program("newuidmap", "uidmap")
    script = "id -u; cat /proc/self/uid_map; touch f; chown 33:33 f; setpriv --reuid=33 --regid=33 --clear-groups id -u"
    done = with_ranges(person, tmp_path, script, subuid="400000", subgid="400000")

    uid = str(person.home.stat().st_uid)
    assert done.stdout.split() == ["0", "0", uid, "1", "1", "400000", "1000", "33"], done.stderr
    assert (person.home / "f").stat().st_uid == 400000 + 32


@user
@pytest.mark.parametrize("wrong", ["subuid", "subgid"])
def test_user_with_a_range_that_cannot_be_mapped(person, tmp_path, wrong):
    """Where a range is unusable, as it has the user's own id in it, the machine does without."""
    needs.root()
    needs.program("newuidmap", "uidmap")
    first = {"subuid": "400000", "subgid": "400000", wrong: str(person.home.stat().st_uid)}
    done = with_ranges(person, tmp_path, f"id -u; wc -l < /proc/self/{wrong[3:]}_map", **first)

    assert done.stdout.split() == ["0", "1"], done.stderr


@user
def test_user_runs_udev(person):
    """An ordinary user's machine has a udevd that acts by their rules."""
    needs.program("udevadm", "udev")
    rule = person.home / "80-online.rules"
    rule.write_text('SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online"\n')
    rule.chmod(0o644)
    done = person.run(f"memhpfs plug d0 --size 128M && udevadm settle && cat {BLOCK}/state", "--rules", str(rule))

    assert done.stdout.splitlines()[1:] == ["online"], done.stderr


@user
def test_user_mounts(person):
    """An ordinary user mounts a machine, works its hardware, and sees it in `ps`; it ends with nothing left."""
    directory = person.home / "m"
    script = f"mkdir {directory} && exec memhpfs mount -M tiny {directory} 2>&1"
    with person.background("sh", "-c", script) as mount:
        assert mount.stdout is not None
        assert mount.stdout.readline() == f"memhpfs: machine tiny is at {directory}\n"
        state = f"{directory}{BLOCK}/state"
        plugged = person.do("sh", "-c", f"memhpfs plug d0 --size 128M && echo online > {state} && cat {state}")
        listed = person.do("sh", "-c", f"memhpfs ps; lsmem --sysroot {directory}")
        mount.send_signal(signal.SIGTERM)
        assert mount.wait(PATIENCE_S) == 0

    assert plugged.stdout.splitlines()[1:] == ["online"], plugged.stderr
    assert "Total online memory: 1.1G" in " ".join(listed.stdout.split())
    assert listed.stdout.splitlines()[1].split()[1:3] == ["mount", "tiny"]
    assert str(directory) not in Path("/proc/self/mounts").read_text()
    person.wait_until_gone()


@user
def test_user_follows_events(person):
    """An ordinary user follows what the hardware of their machine reports."""
    with person.machine("echo ready; read go") as machine, person.background("memhpfs", "events") as follower:
        for number in range(100):
            # The first ones may come before it listens.
            with machine.qmp() as qmp:
                qmp.execute("object-add", qom_type="memory-backend-ram", id=f"m{number}", size=1 << 27)
                qmp.execute("device_add", driver="pc-dimm", id="d0", memdev=f"m{number}")
                qmp.execute("device_del", id="d0")
            if select.select([follower.stdout], [], [], 0.1)[0]:
                break
        assert follower.stdout is not None
        assert "device=d0" in follower.stdout.readline()


@user
def test_machines_of_others_are_not_for_a_user(person):
    """Users do not see the machines of others, nor enter them."""
    with run_kit.person("root") as other, other.machine("echo ready; read go") as machine:
        pid = str(machine.parts["init"])

        assert person.do("memhpfs", "ps", "--json").stdout == ""
        assert "no running machine is called" in person.do("memhpfs", "exec", pid, "--", "true").stderr
        peeked = person.do("env", f"XDG_RUNTIME_DIR={other.home}", "memhpfs", "ps")
        assert (peeked.returncode, peeked.stdout) == (1, "")
        assert peeked.stderr.endswith(" set XDG_RUNTIME_DIR to a directory of yours\n")


@user
def test_user_without_user_namespaces(person):
    """Where user namespaces are forbidden one line says by which setting, and what works instead."""
    outer = ["unshare", "--user", "--map-current-user", "--keep-caps"]
    done = person.do(*outer, *FORBIDDEN, *AS_NOBODY, "memhpfs", "run", "--", "true")

    assert done.returncode == 125
    assert done.stderr == (
        "memhpfs: the machine cannot be built: unshare: No space left on device: "
        "the setting user.max_user_namespaces=0 forbids it; "
        "run it as root, or use 'memhpfs mount DIR' and --sysroot DIR instead\n"
    )


@user
def test_root_of_a_user_namespace(person):
    """Root of a user namespace, as in rootless containers, runs machines: by another one, or without."""
    command = ["memhpfs", "run", "-M", "tiny", "--", "id", "-u"]
    for more in ([], FORBIDDEN):
        done = person.do("unshare", "--user", "--map-root-user", *more, *command)

        assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@root
@pytest.mark.parametrize(("allowed", "failed"), [
    (["env"], []),
    (["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /proc/version; exec "$@"', "sh"],
     ["with a user namespace"]),
    (["unshare", "--user", "--map-root-user", *FORBIDDEN],
     ["with a user namespace", "with a user namespace inside a process namespace"]),
], ids=["all", "masked proc", "no user namespaces"])
def test_root_has_other_ways(person, allowed, failed):
    """Where /proc is masked or user namespaces are forbidden, root's machine is built another way; -v says why."""
    done = person.do(*allowed, "memhpfs", "run", "-v", "-M", "tiny", "--", "stat", "-f", "-c", "%t", MEMORY)
    said = [line.split(": ")[1] for line in done.stderr.splitlines() if "a user namespace" in line]

    assert (done.returncode, done.stdout) == (0, "65735546\n"), done.stderr
    assert said == failed


@root
def test_root_without_rights(person):
    """Where root may do nothing one line says what each way met, and where to read on."""
    outer = ["unshare", "--user", "--map-root-user"]
    done = person.do(*outer, *FORBIDDEN, *AS_NOBODY, "memhpfs", "run", "--", "true")

    assert done.returncode == 125
    assert done.stderr == (
        "memhpfs: the machine cannot be built: "
        "unshare: No space left on device, then unshare: Operation not permitted: "
        "the setting user.max_user_namespaces=0 forbids it; "
        "'memhpfs help containers' tells what a container must be allowed\n"
    )


def test_container_check(person):
    """The check of a container tells line by line what works; its exit code is 0 if `run` does."""
    done = person.do(str(person.checkout / CHECK))
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines())

    assert done.returncode == 0, done.stdout
    assert {lines[name].strip() for name in ("/dev/fuse", "memhpfs mount", "memhpfs run", "uevents")} == {"yes"}


def test_container_check_with_nothing_but_python(person):
    """The standard library is all that it takes; where memhpfs is not there the lines about it say so."""
    with (Path(__file__).parent.parent / CHECK).open() as script:
        bare = "python=$(command -v python3); PATH=/usr/bin:/bin exec $python -I -S -"
        done = person.do("sh", "-c", bare, stdin=script)
    lines = [[word.strip() for word in line.split("  ", 1)] for line in done.stdout.splitlines()]

    assert (done.returncode, done.stderr) == (1, "")
    missing = "no: memhpfs is not installed: it is neither on the PATH nor beside this script; run make setup"
    assert lines[-3:] == [[name, missing] for name in ("memhpfs mount", "memhpfs run", "memhpfs run --udev")]
    assert {name: told for name, told in lines[:-3] if name in ("/dev/fuse", "user namespaces", "uevents")} == {
        "/dev/fuse": "yes", "user namespaces": "yes", "uevents": "yes"}


@root
def test_container_check_without_fuse(person):
    """Without /dev/fuse the check says which option is missing."""
    hide = 'mkdir dev && touch dev/null && mount --bind /dev/null dev/null && mount --rbind dev /dev && exec "$@"'
    done = person.do("unshare", "--mount", "sh", "-c", hide, "sh", str(person.checkout / CHECK))
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines())

    assert done.returncode == 1
    assert lines["/dev/fuse"].strip() == "no: No such file or directory (/dev/fuse); in docker --device /dev/fuse"
    assert "no /dev/fuse" in lines["memhpfs run"]
