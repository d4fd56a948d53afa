"""The command line: one group, whose commands are loaded only when they are called.

Loading lazily keeps `memhpfs plug` from paying for FUSE, and lets `memhpfs --help` work where libfuse is missing.
"""

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from memhpfs import __version__
from memhpfs.errors import UserError

__all__ = ["cli", "main"]

#: Command name -> module that holds it as `command`, and its line in `memhpfs --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "mount": ("memhpfs.cli.mount", "Serve a machine at a directory."),
    "run": ("memhpfs.cli.run", "Run a command inside a private machine."),
    "exec": ("memhpfs.cli.exec", "Run another command in a running machine."),
    "stop": ("memhpfs.cli.stop", "End running machines."),
    "machine": ("memhpfs.cli.machine", "List, show and check machines."),
    "plug": ("memhpfs.cli.hardware", "Plug a DIMM into a running machine."),
    "unplug": ("memhpfs.cli.hardware", "Ask a running machine to give a DIMM back."),
    "fill": ("memhpfs.cli.guest", "Let something in a machine use memory."),
    "free": ("memhpfs.cli.guest", "End what `fill` started."),
    "fault": ("memhpfs.cli.guest", "Make operations of a machine fail."),
    "ps": ("memhpfs.cli.ps", "List running machines."),
    "events": ("memhpfs.cli.events", "Follow what a machine's hardware, or its kernel, reports."),
    "replay": ("memhpfs.cli.replay", "Do a recorded run of a real kernel again."),
    "help": ("memhpfs.cli.help", "Show the help pages."),
}


class LazyGroup(click.Group):
    """A click group that knows its commands by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        found = getattr(module, "commands", {}).get(cmd_name) or module.command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            # click knows only commands that are imported.
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="memhpfs")
def cli() -> None:
    """A Linux memory-hotplug machine that you can mount.

    \b
    Try:
      memhpfs run -- lsmem                 run a command inside a private machine
      memhpfs mount /tmp/m                 serve a machine at /tmp/m, as a sysroot
      memhpfs help                         the help pages
    """


def main() -> NoReturn:
    """Run the command line and exit with the code of the public interface: 0, 1, 2, 125 or CMD's own."""
    _prepare_streams()
    try:
        code, told = _outcome()
        for line in told:
            click.echo(line, err=True)
    finally:
        _let_go()
    sys.exit(code)


def _outcome() -> tuple[int, Sequence[str]]:
    """Exit code of a command, and lines for stderr."""
    try:
        code = cli.main(prog_name="memhpfs", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        return error.exit_code, [_line("memhpfs", line) for line in error.lines]
    except click.exceptions.Abort:
        return 130, ()
    except click.exceptions.NoArgsIsHelpError as error:
        return 2, [error.format_message()]
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "memhpfs"
        return 2, [_line(where, f"{error.format_message()} (see {where} --help)")]
    except BrokenPipeError:
        return 1, ()
    except OSError as error:
        return 1, [_line("memhpfs", f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))]
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        what = " ".join(traceback.format_exception_only(error))
        return 1, [_line("memhpfs", f"this is a bug: {what} (python -X dev -m memhpfs shows where)")]
    return code if isinstance(code, int) else 0, ()


def _line(where: str, what: str) -> str:
    """What is wrong, in one line whatever names it has in it."""
    return f"{where}: {' '.join(what.split())}"


class _Errors(io.FileIO):
    """Where errors and logs go.  Where nobody can read them the exit code still says it, and a daemon goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _prepare_streams() -> None:
    """Make standard streams that are closed lead nowhere, and stderr one that never fails.

    Else a socket or /dev/fuse has the number of a stream, and libraries write there.  What is opened here is not handed
    on, so for a command that is started the stream stays closed.
    """
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Errors(2, "w", closefd=False)), errors="backslashreplace",
                                  line_buffering=True)
    # File names are bytes, and a terminal may not have all characters.
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_go() -> None:
    """Lose what stdout could not take: Python would try again as it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
