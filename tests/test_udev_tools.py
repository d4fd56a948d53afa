"""A machine with a udevd of its own: what it finds there, and that its tools see the model and only the model."""

import os
import re
import stat
import subprocess
from pathlib import Path

import needs
import pytest
from run_kit import BLOCK, LISTENER, ME, MEMORY, PEOPLE

#: Where udevd reads rules, but for the machine's own /run.
HOST_RULES = ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/usr/local/lib/udev/rules.d", "/lib/udev/rules.d")
ONLINE = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online"\n'
NAMES = f"cd {MEMORY} && printf '%s\\n' memory[0-9]*"
#: Plugs a DIMM of a block, and tells what two monitors of pyudev hear, and which devices there are.
PYUDEV = """
import pyudev, subprocess
context = pyudev.Context()
monitors = {source: pyudev.Monitor.from_netlink(context, source) for source in ("kernel", "udev")}
for monitor in monitors.values():
    monitor.start()
before = {device.sys_path for device in context.list_devices(subsystem="memory")}
subprocess.run(["memhpfs", "plug", "d0", "--size", "128M"], check=True, stdout=subprocess.DEVNULL)
for source, monitor in monitors.items():
    for _ in range(2):
        device = monitor.poll(timeout=10)
        print(source, device.action, device.sys_path, device.subsystem)
    assert monitor.poll(timeout=0) is None
for device in context.list_devices(subsystem="memory"):
    if device.sys_path not in before:
        print("new", device.sys_name, device.attributes.asstring("state"), device.parent.attributes.asstring(
            "auto_online_blocks"))
"""
me = pytest.mark.parametrize("person", [ME], indirect=True)


@pytest.fixture(autouse=True)
def udev():
    needs.program("udevadm", "udev")


@pytest.fixture
def rules(person):
    """A file with the rule that puts blocks online, as the person names it."""
    path = person.home / "online.rules"
    path.write_text(ONLINE)
    path.chmod(0o644)
    return "--rules", str(path)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a command says; it must succeed and complain of nothing."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_ready_before_the_command(person):
    """udevd answers at the first try, and the command has the variable without which libudev refuses the tree."""
    done = person.do(
        "memhpfs", "run", "-M", "tiny", "--udev", "--", "udevadm", "control", "--ping", "--timeout=1"
    )
    variable = person.run("echo $SYSTEMD_DEVICE_VERIFY_SYSFS", "--udev")

    assert lines(done) == []
    assert lines(variable) == ["0"]


def test_recent_enough(person):
    """The udevd that runs is the distribution's, of systemd 252 or newer."""
    name, version = lines(person.run("grep -h udevd /proc/[0-9]*/comm; udevadm --version", "--udev"))

    assert name == "systemd-udevd"
    assert int(re.match(r"\d+", version)[0]) >= 252


def test_devices_of_the_host_stay_as_they_are(person):
    """/dev is the host's but cannot be changed, so udevd changes no modes and owners there; /run is another."""
    def nodes():
        found = [(path, path.lstat()) for path in Path("/dev").rglob("*") if not path.is_relative_to("/dev/pts")]
        return {path: (at.st_mode, at.st_uid, at.st_gid) for path, at in found if stat.S_ISCHR(at.st_mode)}

    before = nodes()
    said = lines(person.run("touch /dev/new 2>/dev/null; echo $?; test -c /dev/null && ls /run", "--udev"))

    # libmount may keep a directory there, for whoever mounts.
    assert [name for name in said if name != "mount"] == ["1", "lock", "memhpfs", "udev"]
    assert nodes() == before


def test_only_the_rules_that_are_named(person, rules):
    """udevd finds the rules of the command line and no others; --host-rules leaves the host's in their places."""
    count = f"ls /run/udev/rules.d; ls {' '.join(HOST_RULES)} 2>/dev/null | grep -c 'rules$' || :"
    on_host = sum(len(os.listdir(place)) for place in HOST_RULES if os.path.isdir(place))

    assert lines(person.run(count, *rules)) == ["online.rules", "0"]
    assert lines(person.run(count, *rules, "--host-rules")) == ["online.rules", str(on_host)]


@me
def test_rules_of_many_places(person):
    """Files and directories of rules come together; of two with a name the last counts; the host's /run has none."""
    texts = {"first/a.rules": "# 1", "first/b.rules": "# 2", "first/c": "# 3", "last/b.rules": "# 4", "d.rules": "# 5"}
    for name, text in texts.items():
        (person.home / name).parent.mkdir(exist_ok=True)
        (person.home / name).write_text(text)
    options = [word for name in ("first", "last", "d.rules") for word in ("--rules", name)]

    said = lines(person.run("cd /run/udev/rules.d; for f in *; do echo $f $(cat $f); done", *options))

    assert said == ["a.rules # 1", "b.rules # 4", "d.rules # 5"]
    assert not Path("/run/udev/rules.d/d.rules").exists()


@me
@pytest.mark.parametrize(("name", "complaint"), [
    ("none.rules", "No such file or directory"),
    ("empty", "the directory has no *.rules in it"),
    ("text", "a rules file must be called *.rules, or udev ignores it"),
])
def test_bad_rules(person, name, complaint):
    """What holds no rules is refused in one line before anything starts."""
    (person.home / "empty").mkdir()
    (person.home / "text").write_text(ONLINE)
    done = person.run("echo started", "--rules", name)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"memhpfs: --rules {name}: {complaint}\n")


@me
@pytest.mark.parametrize(("rule", "line"), [
    ('SUBSYSTEM=="memory", ATTR{state}="online', "wrong.rules:2 Invalid key/value pair, ignoring."),
    ('SUBSYSTEM=="memory", COLOUR="red"', "wrong.rules:2 Invalid key 'COLOUR'"),
    ('SUBSYSTEM=="memory", GOTO="nowhere"', 'wrong.rules:2: GOTO="nowhere" has no matching label, ignoring'),
])
@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["run", "detached"])
def test_rules_that_udev_cannot_read(person, rule, line, detach):
    """A mistake in a rules file is told by line, and ends `run` with 2 before anything is started."""
    needs.program("udevadm", "udev")
    (person.home / "wrong.rules").write_text(f"# a comment\n{rule}\n")
    done = person.do("memhpfs", "run", "-M", "tiny", *detach, "--rules", "wrong.rules", "--", "echo", "started")

    assert (done.returncode, done.stdout) == (2, "")
    first, last = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    # The words differ from one release of systemd to the next.
    assert first.replace(":2: ", ":2 ").rstrip(".") == f"memhpfs: udevd: {line}".replace(":2: ", ":2 ").rstrip(".")
    assert last == "memhpfs: --rules: udev cannot read wrong.rules:2"
    person.wait_until_gone()


@me
def test_without_udev(person):
    """Where udev is not installed `run` works, and only --rules tells what is missing."""
    (person.home / "my.rules").write_text("# none\n")
    hide = "for p in /usr/bin/udevadm /bin/udevadm /usr/sbin/udevadm; do [ ! -e $p ] || mount --bind /dev/null $p; done"
    plain, ruled = (
        person.do("unshare", "-Urm", "sh", "-c", f'{hide}; exec "$@"', "sh", "memhpfs", "run", "-M", "tiny", *words,
                  "--", "true")
        for words in ([], ["--rules", "my.rules"])
    )

    assert (plain.returncode, plain.stderr) == (0, "")
    assert (ruled.returncode, ruled.stderr.count("\n")) == (125, 1)
    assert "install the package udev" in ruled.stderr


@me
def test_complaints_of_udevd(person):
    """What udevd complains of while it acts by the given rules is told on stderr; that stands in its log too."""
    rule = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{no_such_file}="1", RUN+="/bin/false", OWNER="no-such-user"'
    (person.home / "80-odd.rules").write_text(f"{rule}\n")
    script = "memhpfs plug d0 --size 128M >&2; udevadm settle; cat /run/memhpfs/udevd.log"
    done = person.run(script, "--rules", "80-odd.rules")

    told = [line.removeprefix("memhpfs: udevd: ") for line in done.stderr.splitlines() if " udevd: " in line]
    assert done.returncode == 0
    assert [line for line in told if "Unknown user 'no-such-user'" in line]
    assert [line for line in told if line.startswith("memory32: 80-odd.rules:1 Failed to write ATTR")]
    assert [line for line in told if line.startswith("memory32: Process '/bin/false' failed")]
    assert [line for line in told if line.replace("80-odd", "/run/udev/rules.d/80-odd") not in done.stdout] == []


@me
def test_rules_in_run(person, rules):
    """A rules file may lie where the machine has a directory of its own."""
    hidden = "mount -t tmpfs none /run && cp online.rules /run && memhpfs run -M tiny --rules /run/online.rules"
    script = f"{hidden} -- cat /run/udev/rules.d/online.rules"
    done = person.do("unshare", "-Urm", "env", "XDG_RUNTIME_DIR=/run", "sh", "-c", script)

    assert (done.stdout, done.stderr) == (ONLINE, "")


def test_monitor(person, rules):
    """`udevadm monitor` shows the events of the model, first as the kernel's, then as udev's, and no others."""
    script = f"""
    : > /run/heard
    udevadm monitor --kernel --udev > /run/heard &
    until grep -q KERNEL /run/heard; do echo change > {MEMORY}/memory0/uevent; done; udevadm settle
    memhpfs plug d0 --size 128M > /dev/null; udevadm settle
    echo remove > {MEMORY}/memory0/uevent
    until grep -q "UDEV.* remove " /run/heard; do :; done
    grep '[][]' /run/heard | grep -v change
    """
    said = [re.sub(r" *\[[\d.]+\] +(\w+) +(\S+) .*", r" \1 \2", line) for line in lines(person.run(script, *rules))]
    path, other = (f"/devices/system/memory/memory{number}" for number in (32, 0))

    assert [line for line in said if line.startswith("K")] == [
        f"KERNEL {action} {path}" for action in ("add", "online")
    ] + [f"KERNEL remove {other}"]
    assert [line for line in said if line.startswith("U")] == [
        f"UDEV {action} {path}" for action in ("add", "online")
    ] + [f"UDEV remove {other}"]


def test_trigger(person, rules):
    """`udevadm trigger` knows all memory blocks of the model and no other, and rules act on what it triggers.

    The first block that is online in ZONE_NORMAL gets slab pages and stays online, so memory32 is plugged before the
    others, which udevd puts online in any order.
    """
    script = f"""
    memhpfs plug d0 --size 128M >/dev/null; udevadm settle; memhpfs plug d1 --size 384M >/dev/null; udevadm settle
    echo offline > {MEMORY}/memory35/state
    udevadm trigger --verbose --dry-run --subsystem-match=memory
    udevadm trigger --subsystem-match=memory --action=add --settle; cat {MEMORY}/memory35/state
    {NAMES}
    """
    said = lines(person.run(script, *rules))
    blocks = [f"{MEMORY}/memory{number}" for number in (*range(8), *range(32, 36))]
    triggered, state, names = said[:len(blocks)], said[len(blocks)], said[len(blocks) + 1:]

    assert sorted(triggered) == sorted(blocks)
    assert state == "online"
    assert sorted(names) == sorted(Path(block).name for block in blocks)


def test_info(person):
    """`udevadm info -a` shows the attributes of a block and of its parent; the data base has the model's blocks."""
    script = f"udevadm info --attribute-walk {MEMORY}/memory1; udevadm info --export-db"
    said = lines(person.run(script, "--udev"))

    assert '    ATTR{state}=="online"' in said
    assert '    ATTR{valid_zones}=="DMA32"' in said
    assert '    ATTRS{auto_online_blocks}=="offline"' in said
    assert '    ATTRS{block_size_bytes}=="8000000"' in said
    assert sorted(line for line in said if line.startswith("P: /devices/system/memory/")) == [
        f"P: /devices/system/memory/memory{number}" for number in range(8)
    ]


def test_test(person, rules):
    """`udevadm test` tells which rule it would apply."""
    script = f"memhpfs plug d0 --size 128M >/dev/null; udevadm settle; udevadm test -a add {BLOCK} 2>&1"
    done = person.run(script, *rules)

    assert done.returncode == 0
    assert "Reading rules file: /run/udev/rules.d/online.rules" in done.stdout
    assert "DEVPATH=/devices/system/memory/memory32" in done.stdout


def test_pyudev(person, rules):
    """pyudev hears of a new block from the kernel and from udev, and finds it; there is nothing but the model."""
    pytest.importorskip("pyudev")
    done = person.do("memhpfs", "run", "-M", "tiny", *rules, "--", "python3", "-c", PYUDEV)

    assert lines(done) == [
        *(f"{source} {action} {BLOCK} memory" for source in ("kernel", "udev") for action in ("add", "online")),
        "new memory32 online offline",
    ]


@me
def test_never_without_a_user_namespace(person):
    """Where user namespaces are forbidden udevd would hear the host: a machine with it is refused, with the setting."""
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces"
    done = person.do("unshare", "-Urm", "sh", "-c", f"{forbid}; memhpfs run --udev -- echo started")

    assert (done.returncode, done.stdout) == (125, "")
    assert "user.max_user_namespaces=0" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("person", PEOPLE[:1], indirect=True)
def test_no_event_of_the_host_gets_in(person):
    """Uevents of the host, which reach every network that root makes otherwise, do not reach root's machine."""
    with person.machine(f"exec python3 -c '{LISTENER}'", "--udev") as machine, subprocess.Popen(
        ["unshare", "-n", "python3", "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert (machine.said, other.stdout.readline()) == ("ready", "ready\n")
        # A file system that is mounted makes a device, for example.
        assert person.run("true").returncode == 0
        machine.tell("go")
        heard = machine.line()
        heard_elsewhere = other.communicate("go\n")[0]

    assert heard == "end"
    assert "add@/devices/virtual/bdi/" in heard_elsewhere
