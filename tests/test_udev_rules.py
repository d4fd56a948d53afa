"""Rules as distributions publish them, run by the real udevd inside a machine, for root and for an ordinary user."""

from pathlib import Path

import needs
import pytest
from run_kit import BLOCK, ME, MEMORY, Person

RULES = Path(__file__).parent / "rules"
#: The memory blocks of d0, which is plugged while udevd runs.
BLOCKS = 4
PLUG = f"memhpfs plug d0 --size {BLOCKS * 128}M >&2 || exit 9"
SETTLE = "udevadm settle --timeout=20 || exit 9"
#: A line for each block of d0: its state and its zones.
SHOW = f"cd {MEMORY}; for b in memory3[2-5]; do echo $(cat $b/state $b/valid_zones); done"
#: A block of d0 comes and goes.
CHANGE = f"echo online_movable > {BLOCK}/state && echo offline > {BLOCK}/state && {SETTLE}"
#: The computer says that it is a virtual machine of Hyper-V, by a device as the kernel has it.
HYPER_V = """
mount -t tmpfs none /sys/devices/virtual && mkdir -p /sys/devices/virtual/dmi/id || exit 8
mount -t tmpfs none /sys/class && mkdir /sys/class/dmi && cd /sys/class/dmi || exit 8
ln -s ../../devices/virtual/dmi/id id && cd id && ln -s ../../../../class/dmi subsystem || exit 8
touch uevent; echo "Microsoft Corporation" > sys_vendor; echo "Virtual Machine" > product_name
"""
#: The computer says that it is a container.
CONTAINER = "mkdir /run/host; echo docker > /run/host/container-manager"
#: What a rule calls is not installed everywhere, and must not run; what is in its place writes down how it is called.
STAND_IN = """
stand_in() {
    place=$(realpath "$1"); shift
    mkdir /run/kept /run/new
    mount --rbind "$place" /run/kept && mount -t tmpfs none /run/new || exit 8
    ln -s /run/kept/* /run/new
    for name in "$@"; do
        rm -f "/run/new/$name"
        printf '#!/bin/sh\\necho "$0 $*" >> /run/called\\n' > "/run/new/$name"
        chmod 755 "/run/new/$name"
    done
    touch /run/called
    mount --move /run/new "$place" || exit 8
}
"""
THROTTLER = "/usr/lib/udev/kdump-udev-throttler"

#: A rule, what must be so for it to act, and the zone that it asks for.
RULES_FOR_MEMORY = [
    pytest.param("40-redhat", "", "Normal", id="redhat"),
    pytest.param("80-hotplug-cpu-mem", CONTAINER, "Normal", id="suse-virtual"),
    pytest.param("80-hotplug-cpu-mem-bare", "", "Movable", id="suse-bare"),
    pytest.param("40-vm-hotadd", HYPER_V, "Normal", id="ubuntu"),
]
me = pytest.mark.parametrize("person", [ME], indirect=True)


def rules_for(person: Person, name: str) -> str:
    """A rules file that the person can read."""
    needs.program("udevadm", "udev")
    bare = name.endswith("-bare")
    text = (RULES / f"{name.removesuffix('-bare')}.rules").read_text()
    if bare:
        # As if no hypervisor were there, wherever the test runs.
        assert 'CONST{virt}=="none"' in text
        text = text.replace('CONST{virt}=="none"', 'CONST{virt}=="*"')
    path = person.home / f"{name}.rules"
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def outcome(person: Person, script: str, *options: str) -> tuple[list[str], str]:
    """Run a script in a machine whose requests are logged: the lines it says, and the log."""
    done = person.run(script, "-vv", *options)
    assert done.returncode == 0, done.stderr[-400:]
    return done.stdout.splitlines(), done.stderr


def writes(log: str) -> int:
    """How many times something was written to the machine's files."""
    return log.count("opcode: WRITE ")


@pytest.mark.parametrize(("name", "before", "zone"), RULES_FOR_MEMORY)
def test_rule_puts_each_block_online(person, name, before, zone):
    """Each block that is plugged goes online by the rule, with one write, in the zone that the rule asks for."""
    said, log = outcome(person, f"{before}\n{PLUG}\n{SETTLE}\n{SHOW}", "--rules", rules_for(person, name))

    assert said == [f"online {zone}"] * BLOCKS
    assert writes(log) == BLOCKS


@pytest.mark.parametrize("options", [["--udev"], ["--rules", "40-vm-hotadd"], ["--rules", "98-kexec"]])
def test_without_such_a_rule_blocks_stay_offline(person, options):
    """Where no rule applies, udevd writes nothing, and the blocks stay offline."""
    words = [word if word.startswith("--") else rules_for(person, word) for word in options]
    no_dmi = "mount -t tmpfs none /sys/class || exit 8"

    said, log = outcome(person, f"{no_dmi}\n{PLUG}\n{SETTLE}\n{SHOW}", *words)

    assert said == ["offline Normal Movable"] * BLOCKS
    assert writes(log) == 0


@pytest.mark.parametrize(("name", "before", "zone"), RULES_FOR_MEMORY)
def test_rule_finds_nothing_to_do(person, name, before, zone):
    """Where the kernel puts blocks online itself, the rule writes nothing, and the kernel's zone stays."""
    # udevd may well be faster than the kernel with so little memory; then the rule has the same effect sooner.
    stop, start = (f"udevadm control --{word}-exec-queue" for word in ("stop", "start"))
    script = f"{before}\n{stop}\ncat {MEMORY}/auto_online_blocks\n{PLUG}\n{start}\n{SETTLE}\n{SHOW}"
    rules = ("--rules", rules_for(person, name))
    said, log = outcome(person, script, *rules, "--set", "cmdline=memhp_default_state=online")

    assert said == ["online"] + ["online Normal"] * BLOCKS
    assert writes(log) == 0


@me
def test_rule_on_add_alone(person):
    """A block that is taken offline by hand stays offline: the rule is for blocks that are added."""
    script = f"{PLUG}\n{SETTLE}\necho offline > {BLOCK}/state && {SETTLE}\n{SHOW}"
    said, log = outcome(person, script, "--rules", rules_for(person, "80-hotplug-cpu-mem-bare"))

    assert said == ["offline Normal Movable"] + ["online Movable"] * (BLOCKS - 1)
    assert writes(log) == BLOCKS + 1


def test_kdump_of_debian(person):
    """Debian's rule has the crash kernel loaded anew for each block that goes online or offline."""
    script = f"{STAND_IN}\nstand_in /usr/sbin kdump-config\n{PLUG}\n{SETTLE}\n{CHANGE}\ncat /run/called"
    said, _ = outcome(person, script, "--rules", rules_for(person, "50-kdump-tools"))

    assert said == ["/usr/sbin/kdump-config try-reload"] * 2


@pytest.mark.parametrize(("kernel", "crash_hotplug", "calls"), [("6.12", "0", 2), ("6.12", "1", 0), ("6.1", None, 2)])
def test_kexec_honours_crash_hotplug(person, kernel, crash_hotplug, calls):
    """Red Hat's rule loads the crash kernel anew, but not where Linux keeps it up to date, as crash_hotplug tells."""
    is_kept = f"echo 1 > /run/one; mount --bind /run/one {MEMORY}/crash_hotplug || exit 8"
    script = f"""{STAND_IN}
    stand_in /usr/bin systemctl systemd-run
    {is_kept if crash_hotplug == "1" else ""}
    cat {MEMORY}/crash_hotplug
    {PLUG}
    {SETTLE}
    {CHANGE}
    cat /run/called"""
    said, _ = outcome(person, script, "--rules", rules_for(person, "98-kexec"), "--set", f'kernel="{kernel}"')

    reloads = ["/usr/bin/systemctl is-active kdump.service", f"/usr/bin/systemd-run --quiet --no-block {THROTTLER}"]
    assert said == [crash_hotplug] * (crash_hotplug is not None) + reloads * calls
