"""`memhpfs help`: the help pages, which are the files help/*.md."""

import sys
from collections.abc import Iterator
from importlib import resources

import click

from memhpfs.errors import UserError
from memhpfs.words import did_you_mean

__all__ = ["TOPICS", "command", "show"]

#: The pages, in the order in which one reads them.
TOPICS = (
    "start", "mount", "run", "machines", "hardware", "events", "udev", "ci", "containers", "fidelity", "replay",
)


@click.command(name="help", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("topic", required=False)
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Show a help page or the help of a command, or list all pages.

    \b
    Example:
      memhpfs help
      memhpfs help hardware
      memhpfs help plug
    """
    if topic is None:
        _list_pages()
    elif topic in TOPICS:
        show(page(topic))
    else:
        click.echo(_command_help(ctx, topic))


def _command_help(ctx: click.Context, name: str) -> str:
    """The help of a command of memhpfs.

    Raises:
        UserError: exit code 2; there is neither a command nor a page of this name, and which pages there are.
    """
    group = ctx.parent.command if ctx.parent is not None else None
    names = group.list_commands(ctx) if isinstance(group, click.Group) else []
    found = group.get_command(ctx, name) if isinstance(group, click.Group) else None
    if found is None:
        raise UserError(f"no help on {name!r}; topics are {', '.join(TOPICS)}{did_you_mean(name, [*TOPICS, *names])}",
                        exit_code=2)
    return found.get_help(click.Context(found, ctx.parent, name))


def page(topic: str) -> str:
    """The text of a page, in Markdown."""
    return (resources.files("memhpfs") / "help" / f"{topic}.md").read_text()


def _list_pages() -> None:
    width = max(map(len, TOPICS))
    for topic in TOPICS:
        title = page(topic).splitlines()[0].removeprefix("# ")
        click.echo(f"  {topic.ljust(width)}  {title}")
    click.echo("\nRead one with: memhpfs help TOPIC.  The options of a command: memhpfs COMMAND --help")


def show(text: str) -> None:
    """As Markdown is meant to look on a terminal; as it is written elsewhere."""
    if sys.stdout.isatty():
        from memhpfs.cli.pages import print_page

        print_page(text)
    else:
        click.echo("\n".join(_without_fences(text)))


def _without_fences(text: str) -> Iterator[str]:
    """The lines of a page, whose fenced blocks are indented instead, for people and scripts that know no Markdown."""
    fenced = False
    for line in text.rstrip().split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        else:
            yield f"    {line}".rstrip() if fenced else line
