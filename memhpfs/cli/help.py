"""`memhpfs help`: the help pages, which are the files help/*.md."""

import difflib
import sys
from importlib import resources

import click

from memhpfs.errors import UserError

__all__ = ["TOPICS", "command"]

#: The pages, in the order in which one reads them.
TOPICS = (
    "start", "mount", "run", "machines", "hardware", "events", "udev", "ci", "containers", "fidelity", "replay",
)


@click.command(name="help", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("topic", required=False)
def command(topic: str | None) -> None:
    """Show a help page, or list them all.

    \b
    Example:
      memhpfs help
      memhpfs help hardware
    """
    if topic is None:
        _list_pages()
    else:
        _show(page(topic))


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


def _show(text: str) -> None:
    """As Markdown is meant to look on a terminal; as it is written elsewhere."""
    if not sys.stdout.isatty():
        click.echo(text.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
