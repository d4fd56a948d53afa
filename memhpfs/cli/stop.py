"""`memhpfs stop`: end running machines."""

import click

from memhpfs.host import registry

__all__ = ["command"]


@click.command()
@click.argument("machines", nargs=-1, required=True, metavar="MACHINE...")
def command(machines: tuple[str, ...]) -> None:
    """End machines that run: MACHINE is a name or pid in `memhpfs ps`, or the directory of a mount.

    The command inside gets SIGTERM, and five seconds to end.

    \b
    Example:
      memhpfs run --detach -M tiny
      memhpfs stop tiny
    """
    from memhpfs.host.stop import stop

    for name in machines:
        entry = registry.named(name)
        stop(entry)
        registry.wait_until_gone(entry)
        click.echo(f"{entry.name}: ended")
