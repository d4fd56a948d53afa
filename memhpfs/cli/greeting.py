"""What a shell inside a machine is greeted with: where one is, what to try, and what does not work."""

from memhpfs.host.ids import has_others
from memhpfs.machine.description import Machine
from memhpfs.units import GIB, format_size

__all__ = ["greeting"]

_COLUMN = 46
_ONLY_OWN_FILES = "sudo and apt do not work in here: root's files are not yours."
_ONLY_ONE_USER = ("sudo, su and apt do not work in here: only your own user id is mapped, as root. With the package\n"
                  "uidmap, and a range of ids for you in /etc/subuid and /etc/subgid, su works.")


def greeting(machine: Machine, name: str, *, root: bool) -> str:
    """The text for people.

    Args:
        name: the running machine's name.
        root: whether its owner is root.
    """
    block = machine.block_size_bytes
    size = max(GIB, 4 * block)
    first, last = machine.hotplug_base // block, (machine.spec.ram[-1].end - 1) // block
    rows = (
        ("lsmem", "the memory that it has"),
        (f"memhpfs plug d0 --size {format_size(size)}", "put a DIMM in"),
        ("lsmem --all -o +ZONES", "its blocks are there, and where they can go"),
        ("cd /sys/devices/system/memory", ""),
        (f"echo online_movable > memory{first}/state", "put a block online, by hand"),
        (f"chmem --enable {format_size(size // 2)}", "or some more, by size"),
        ("memhpfs unplug d0", "take the DIMM out again"),
        (f"echo offline > memory{last}/state", "some memory the kernel keeps"),
        ("memhpfs help", "the help pages"),
    )
    tries = "\n".join(f"  {command:<{_COLUMN}}{f'# {why}' if why else ''}".rstrip() for command, why in rows)
    limits = "" if root else f"{_ONLY_OWN_FILES if has_others() else _ONLY_ONE_USER}\n"
    return (f"\nYou are inside the machine {name}. /sys and /proc show its memory, not this computer's; all else is as "
            f"before.\nTry:\n\n{tries}\n\n{limits}`exit` ends the machine.\n")
