"""4,096 memory blocks at once: no uevent is lost, their order is the kernel's, and nobody waits for somebody else."""

import needs
import pytest
from run_kit import ME, Person

BLOCKS = 4096
#: The rule, and room for the blocks and their memory map.
RULE = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online"\n'
MACHINE = ("-M", "tiny", "--set", "ram=16G", "--set", "maxmem=1T")
#: Listens with a buffer of the usual size, which has room for 250 uevents, and reads no faster than a busy program.
#: Tells how many blocks came and went online, and whether that was in order.
SCRIPT = """
import glob, os, socket, subprocess, sys, time

hears = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
hears.bind((0, 1))
hears.settimeout(20)
blocks = int(sys.argv[1])
subprocess.run(["udevadm", "control", "--children-max=20"], check=True)
plug = subprocess.Popen(["memhpfs", "plug", "d0", "--size", f"{blocks * 128}M"], stdout=subprocess.DEVNULL)
heard = {"add": [], "online": []}
numbers = []
while min(map(len, heard.values())) < blocks:
    text = hears.recv(4096).decode()
    if len(numbers) % 100 == 0:
        time.sleep(0.005)
    action, _, path = text.split("\\0")[0].partition("@")
    heard[action].append(int(path.removeprefix("/devices/system/memory/memory")))
    numbers.append(int(text.rpartition("SEQNUM=")[2].rstrip("\\0")))
print("plugged", plug.wait())
print("settled", subprocess.run(["udevadm", "settle", "--timeout=30"]).returncode)
print("in order", heard["add"] == sorted(set(heard["add"])), numbers == sorted(set(numbers)))
print("events", *map(len, heard.values()), set(heard["online"]) == set(heard["add"]))
states = [open(name).read() for name in glob.glob("/sys/devices/system/memory/memory*/state")]
print("states", len(states), *{state.strip() for state in states})
"""
#: Listens, but does not read.
DEAF = """
import socket, subprocess, sys, time

deaf = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
deaf.bind((0, 1))
subprocess.run(["memhpfs", "plug", "d0", "--size", f"{int(sys.argv[1]) * 128}M"], check=True, stdout=subprocess.DEVNULL)
print("settled", subprocess.run(["udevadm", "settle", "--timeout=30"]).returncode)
print("online", subprocess.getoutput("grep -l online /sys/devices/system/memory/memory*/state | wc -l"))
"""


def burst(person: Person, script: str) -> list[str]:
    """What a script says in a machine where udevd puts blocks online."""
    needs.program("udevadm", "udev")
    path = person.home / "online.rules"
    path.write_text(RULE)
    path.chmod(0o644)
    command = ("python3", "-c", script, str(BLOCKS))
    done = person.do("memhpfs", "run", *MACHINE, "--rules", "online.rules", "--", *command, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_no_uevent_is_lost(person):
    """20 workers of udevd put 4,096 blocks online while uevents go on; a slow listener hears of every one in order."""
    assert burst(person, SCRIPT) == [
        "plugged 0", "settled 0", "in order True True", f"events {BLOCKS} {BLOCKS} True",
        f"states {BLOCKS + 128} online",
    ]


@pytest.mark.parametrize("person", [ME], indirect=True)
def test_listener_that_does_not_read(person):
    """Somebody who listens and never reads loses uevents, as on Linux; udevd does not, and the machine goes on."""
    assert burst(person, DEAF) == ["settled 0", f"online {BLOCKS + 128}"]
