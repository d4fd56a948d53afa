"""Mistakes of whoever mounts: one clear line, the exit code of the interface, and nothing half built."""

import os
import socket
import subprocess
from pathlib import Path

import needs
import pytest
from host_kit import PATIENCE_S, wait_until
from mount_kit import mounted
from run_kit import ME, PEOPLE, Person

from memhpfs.host.mountpoint import mounts_at

pytestmark = [pytest.mark.mount]
me = pytest.mark.parametrize("person", [ME], indirect=True)
root_only = pytest.mark.parametrize("person", PEOPLE[:1], indirect=True)
user_only = pytest.mark.parametrize("person", PEOPLE[1:], indirect=True)


def mistake(person: Person, *argv: str, code: int = 1, command: tuple[str, ...] = ("memhpfs", "mount")) -> str:
    """The one line of a refused mount; it left nothing behind, and ends without a signal."""
    before = _there(person)
    done = person.do(*command, *argv)

    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("memhpfs")
    assert _there(person) == before
    return done.stderr.partition(": ")[2].rstrip("\n")


def _there(person: Person) -> tuple[list[str], str]:
    """All files of the person, and all mounts at them."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return person.do("find", ".", "-path", "./memhpfs", "-prune", "-o", "-print").stdout.splitlines(), "\n".join(
        line for line in mounts if str(person.home) in line
    )


@me
@pytest.mark.parametrize("options", [(), ("--background",)])
@pytest.mark.parametrize(("make", "directory", "code", "told"), [
    ("", "", 2, ": no such directory"),
    ("", "gone/m", 2, "gone/m: no directory gone to make it in"),
    ("", "/gone/m/", 2, "/gone/m/: no directory /gone to make it in"),
    ("touch file", "file", 1, "file: not a directory"),
    ("touch file", "file/x", 1, "file/x: not a directory"),
    ("mkdir -p d/b d/a", "d", 1, "d: not empty (it has 'a'); an empty directory is needed"),
    ("ln -s link link", "link", 1, "link: too many levels of symbolic links"),
    ("ln -s gone link", "link", 1, "link: no such directory"),
    ("", "x" * 300, 1, f"{'x' * 300}: file name too long"),
])
def test_mount_point(person, make, directory, code, told, options):
    """What is wrong with the mount point is told, with its name as it was given."""
    person.do("sh", "-c", make)

    assert mistake(person, *options, directory, code=code) == told


@user_only
def test_mount_point_without_permission(person):
    """An ordinary user needs write permission on the directory, as fusermount3 does."""
    person.do("mkdir", "-m", "500", "d")
    person.do("mkdir", "-m", "0", "closed")

    assert mistake(person, "d") == "d: no write permission, which mounting needs"
    assert mistake(person, "d/m") == "d/m: permission denied"
    assert mistake(person, "closed") == "closed: permission denied"


@pytest.mark.parametrize("person", PEOPLE, indirect=True)
def test_mounted_already(person):
    """A machine that runs is not disturbed, and the exact reason is told."""
    with mounted(person, "-M", "tiny") as machine:
        assert mistake(person, "m") == "m: a memhpfs is mounted there already"
        assert mistake(person, "m/sys").startswith("m/sys: not empty")
        assert machine.do("cat", str(machine.state(0))) == "online\n"


@me
def test_many_at_once(person):
    """Of those that want one mount point at the same time one gets it, also where a dead mount is to be repaired."""
    with mounted(person, "-M", "tiny") as machine:
        machine.process.kill()
        machine.process.wait(PATIENCE_S)
        others = [subprocess.Popen(person.argv("memhpfs", "mount", "-M", "tiny", "m"), cwd=person.home,
                                   stderr=subprocess.PIPE, text=True) for _ in range(4)]
        try:
            wait_until(lambda: sum(process.poll() is not None for process in others) == 3)
            (winner,) = [process for process in others if process.poll() is None]
            wait_until(lambda: person.do("cat", str(machine.state(0))).stdout == "online\n")
            assert [mount.source for mount in mounts_at(str(machine.root))] == ["memhpfs"]
        finally:
            for process in others:
                process.terminate()
            said = {process: process.communicate()[1] for process in others}

        assert said.pop(winner) == "memhpfs: machine tiny is at m\n"
        assert list(said.values()) == ["memhpfs: m: a memhpfs is mounted there already\n"] * 3
        assert winner.returncode == 0


@me
@pytest.mark.parametrize(("argv", "told"), [
    ((), "Missing argument 'DIR'."),
    (("a", "b"), "Got unexpected extra argument (b)"),
    (("--loop", "fast", "d"), "Invalid value for '--loop': 'fast' is not one of 'poll', 'stock'."),
    (("--bogus", "d"), "No such option '--bogus'."),
    (("--qmp",), "Option '--qmp' requires an argument."),
    (("-M", "nonsense", "d"), "machine 'nonsense' is neither a file nor a preset; presets are default, "),
    (("--set", "slots=many", "d"), "preset default with --set slots=many: slots: must be an integer, not 'many'"),
    (("--set", "slots", "d"), "--set slots: "),
])
def test_bad_usage(person, argv, told):
    """What is wrong with the command line is told with exit code 2."""
    person.do("mkdir", "d")

    assert mistake(person, *argv, code=2).startswith(told)


@me
@pytest.mark.parametrize(("qmp", "code", "told"), [
    ("gone/q", 1, "{home}/gone/q: No such file or directory"),
    ("file", 1, "{home}/file exists and is no socket"),
    ("e", 1, "{home}/e exists and is no socket"),
    ("", 1, "{home} exists and is no socket"),
    ("q" * 200, 2, "{home}/" + "q" * 200 + ": a socket's path may have 107 bytes"),
    ("d/q", 2, "{home}/d/q lies in d, where the machine is to be mounted; choose another place"),
    ("used", 1, "{home}/used: another machine listens there"),
])
@pytest.mark.parametrize("make", ["mkdir e; touch file", "mkdir d e; touch file"])
def test_qmp_socket(person, make, qmp, code, told):
    """A path where no socket can be made, or where somebody listens, is refused before the mount.

    Where the directory was not there it is not there afterwards.
    """
    person.do("sh", "-c", make)
    with socket.socket(socket.AF_UNIX) as used:
        used.bind(str(person.home / "used"))
        used.listen()

        assert mistake(person, "--qmp", qmp, "d", code=code) == told.format(home=person.home)


@user_only
def test_qmp_socket_without_permission(person):
    """A directory that one may not write to."""
    person.do("sh", "-c", "mkdir d; mkdir -m 500 closed")

    assert mistake(person, "--qmp", "closed/q", "d") == f"{person.home}/closed/q: Permission denied"


@me
@pytest.mark.parametrize("options", [(), ("--qmp", "q")])
@pytest.mark.parametrize("runtime", ["file", "/proc"])
def test_runtime_directory(person, runtime, options):
    """Where word of the machine cannot be left, nothing is mounted."""
    person.do("sh", "-c", "mkdir d; touch file")
    path = person.home / runtime

    line = mistake(person, *options, "d", command=("env", f"XDG_RUNTIME_DIR={path}", "memhpfs", "mount"))

    assert line.startswith(f"{path}/memhpfs: ")
    assert line.endswith("; set XDG_RUNTIME_DIR to a directory of yours")


@me
@pytest.mark.parametrize("options", [(), ("--qmp", "q")])
def test_mount_over_the_runtime_directory(person, options):
    """A machine does not hide its own files."""
    person.do("mkdir", "-m", "700", "memhpfs")

    assert "/memhpfs" in (line := mistake(person, *options, "memhpfs", code=2))
    assert line.endswith(" lies in memhpfs, where the machine is to be mounted; choose another place")


# -- what FUSE needs --------------------------------------------------------------------------------------------------


def without(person: Person, devices: str, *become: str) -> str:
    """The line of a mount where /dev is empty but for some devices."""
    person.do("mkdir", "d")
    script = f'mount -t tmpfs none /dev && cd /dev && {devices} && cd {person.home} && exec "$@"'

    return mistake(person, "d", command=("unshare", "-m", "sh", "-c", script, "sh", *become, "memhpfs", "mount"))


@root_only
def test_no_device(person):
    """Without /dev/fuse it is told how to get it."""
    assert without(person, "true").startswith("no /dev/fuse: load the module (modprobe fuse), or start the container ")


@root_only
def test_a_device_without_module(person):
    """A /dev/fuse that leads nowhere: libfuse's reason is told."""
    assert without(person, "mknod fuse c 10 0").startswith(f"{person.home}/d: cannot mount: ")


@root_only
def test_no_permission_on_the_device(person):
    """Whoever may not open /dev/fuse is told the mode it needs."""
    os.chmod(person.home, 0o777)
    needs.program("setpriv", "util-linux")
    become = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")

    line = without(person, "mknod fuse c 10 229 && chmod 000 fuse", *become)

    assert line == "no permission to open /dev/fuse: it needs mode 0666, or memhpfs root"


@me
@pytest.mark.parametrize(("command", "code"), [("mount", 1), ("run", 125)])
def test_no_libfuse(person, command, code):
    """Where pyfuse3 cannot be imported, its reason and the package are told, and commands without FUSE still work."""
    person.do("mkdir", "d")
    (person.home / "shim").mkdir()
    (person.home / "shim" / "pyfuse3.py").write_text("raise ImportError('libfuse3.so.3: cannot open')\n")
    shim = ("sh", "-c", 'PYTHONPATH="$0:$PYTHONPATH" PYTHONDONTWRITEBYTECODE=1 exec memhpfs "$@"',
            f"{person.home}/shim")

    line = mistake(person, "d", code=code, command=(*shim, command))

    assert line.startswith("pyfuse3 cannot be used: libfuse3.so.3: cannot open; install libfuse3 (package fuse3")
    assert person.do(*shim, "ps").returncode == 0


@user_only
def test_no_fusermount(person):
    """An ordinary user without fusermount3 is told the package."""
    person.do("mkdir", "d")
    script = 'PATH=$(dirname "$(command -v memhpfs)") && export PATH && exec memhpfs mount d'

    line = mistake(person, command=("/bin/sh", "-c", script))

    assert line.startswith("no fusermount3, which mounts for ordinary users: install the package fuse3")


@user_only
def test_allow_other_is_not_permitted(person):
    """--allow-other of an ordinary user needs the administrator's word."""
    if "\nuser_allow_other" in Path("/etc/fuse.conf").read_text():
        pytest.skip("missing: a /etc/fuse.conf without user_allow_other; to get it: remove the line")
    person.do("mkdir", "d")

    line = mistake(person, "--allow-other", "d")

    assert line == "--allow-other is for root, unless /etc/fuse.conf has the line user_allow_other"


@root_only
def test_no_right_to_mount(person):
    """What the kernel refuses is told with the reason."""
    person.do("mkdir", "d")
    needs.program("setpriv", "util-linux")
    command = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", "memhpfs", "mount")

    assert mistake(person, "d", command=command).endswith("mount failed: Operation not permitted")


# -- uevents ----------------------------------------------------------------------------------------------------------


@me
def test_uevents_on_the_host(person):
    """Uevents that the host's udev would hear are refused."""
    person.do("mkdir", "d")

    line = mistake(person, "--uevents", "d")

    assert line.startswith("--uevents would reach the udev of the host: start memhpfs in a network namespace of its ")


@root_only
def test_uevents_without_the_right_to_send(person):
    """In a network namespace of somebody else's they need a capability."""
    person.do("mkdir", "d")
    needs.program("setpriv", "util-linux")
    become = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", "memhpfs", "mount")

    line = mistake(person, "--uevents", "d", command=("unshare", "-n", *become))

    assert line.startswith("--uevents needs CAP_SYS_ADMIN over the network namespace: start memhpfs as root")
