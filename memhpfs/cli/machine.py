"""`memhpfs machine`: presets and machine files."""

import click

from memhpfs.machine.load import explanation, load, preset_names, source_text
from memhpfs.units import format_size

__all__ = ["command"]


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, show and check machines.

    \b
    Example:
      memhpfs machine list
      memhpfs machine show numa2 > mine.toml
      memhpfs machine check mine.toml
    """


@command.command("list")
def list_machines() -> None:
    """List the presets, each with what it is for.

    \b
    Example:
      memhpfs machine list
    """
    names = preset_names()
    width = max(len(name) for name in names)
    for name in names:
        click.echo(f"{name.ljust(width)}  {explanation(source_text(name)[1])}")


@command.command()
@click.argument("machine", metavar="NAME|FILE")
def show(machine: str) -> None:
    """Show a machine: its file, and as comments what it comes to.

    \b
    Example:
      memhpfs machine show default
      memhpfs machine show numa2 > mine.toml
    """
    found = load(machine)
    click.echo(source_text(machine)[1].rstrip())
    click.echo("\n# What this comes to:")
    for item in found.spec.ram:
        size = format_size(item.end - item.start)
        click.echo(f"#   RAM {item.start:#014x}-{item.end - 1:#014x}  {size}, node {item.node}, {item.kind.value}")
    room = format_size(found.maxmem_bytes - found.ram_bytes)
    click.echo(f"#   plugged memory goes to {found.hotplug_base:#x} and up: {room} in {found.slots} slots")
    for dimm in found.dimms:
        click.echo(f"#   DIMM {dimm.id}: {format_size(dimm.size_bytes)}, node {dimm.node_id}")


@command.command()
@click.argument("file")
def check(file: str) -> None:
    """Check a machine file: exit code 0 and one line, or 2 and all that is wrong, a line each.

    Words of `cmdline` that have no effect are told as warnings: Linux takes any words, so the file is still good.

    \b
    Example:
      memhpfs machine check mine.toml
    """
    # What fits together only the machine itself knows.
    from memhpfs.qmp.power_on import power_on

    found = load(file)
    power_on(found)
    for remark in found.remarks:
        click.echo(f"memhpfs: {file}: warning: cmdline: {remark}", err=True)
    click.echo(f"{file}: good; kernel {found.spec.release}, {format_size(found.ram_bytes)} of RAM, "
               f"{len(found.spec.nodes)} node(s), {found.slots} slots")
