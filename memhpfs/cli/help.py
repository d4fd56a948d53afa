"""`memhpfs help`: the help pages, which are the files help/*.md."""

import difflib
import sys
from collections.abc import Iterator
from importlib import resources

import click

from memhpfs.errors import UserError

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
    elif topic not in TOPICS and (other := _command(ctx, topic)) is not None:
        click.echo(other)
    else:
        show(page(topic))


def _command(ctx: click.Context, name: str) -> str | None:
    """The help of a command of memhpfs, if there is one of this name."""
    group = ctx.parent.command if ctx.parent is not None else None
    found = group.get_command(ctx, name) if isinstance(group, click.Group) else None
    return found.get_help(click.Context(found, ctx.parent, name)) if found is not None else None


def page(topic: str) -> str:
    """The text of a page, in Markdown.

    Raises:
        UserError: exit code 2; there is no such page, and which there are.
    """
    if topic not in TOPICS:
        near = difflib.get_close_matches(topic.lower(), TOPICS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"no help on {topic!r}; {hint}The topics are {', '.join(TOPICS)}", exit_code=2)
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
