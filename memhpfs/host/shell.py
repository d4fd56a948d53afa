"""The environment of a command in a machine, and the shell of those who name none: their own, with a telling prompt."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["set_environment", "shell_command"]

#: A file that only the machine has.
_BASHRC = Path("/run/memhpfs/bashrc")
#: An ordinary user's PATH lacks these; inside everybody is root.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def set_environment(machine: str, socket: str) -> None:
    """Tell the command of its machine, and let it find what an administrator finds.

    Args:
        machine: the machine's name.
        socket: path of its socket, as it is seen inside.
    """
    os.environ |= {"MEMHPFS_MACHINE": machine, "MEMHPFS_QMP": socket, "SYSTEMD_DEVICE_VERIFY_SYSFS": "0"}
    path = os.environ.get("PATH", os.defpath).split(":")
    path += [place for place in _SBIN if place not in path]
    if shutil.which("memhpfs", path=":".join(path)) is None:
        path.append(str(Path(sys.executable).parent))
    os.environ["PATH"] = ":".join(path)


def shell_command(machine: str) -> Sequence[str]:
    """The user's shell.  On a terminal its prompt begins with the machine's name, as far as the shell lets others
    set its prompt: bash, fish, and those that take PS1 from the environment.

    Args:
        machine: the machine's name.
    """
    shell = os.environ.get("SHELL") or "/bin/sh"
    if not (os.isatty(0) and os.isatty(1)):
        return [shell]
    # What a shell would expand in its prompt is no part of it.
    mark = "(" + re.sub(r"[^\w.+-]", "_", machine) + ") "
    kind = os.path.basename(shell)
    if kind == "bash":
        # Its own start-up file sets PS1, so the mark must come after it.
        _BASHRC.write_text(f'if [ -r ~/.bashrc ]; then . ~/.bashrc; fi\nPS1={shlex.quote(mark)}"$PS1"\n')
        return [shell, "--rcfile", str(_BASHRC)]
    if kind == "fish":
        return [shell, "--init-command", "functions --copy fish_prompt memhpfs_prompt; "
                f"function fish_prompt; echo -n {shlex.quote(mark)}; memhpfs_prompt; end"]
    os.environ["PS1"] = f"{mark}# "
    return [shell]
