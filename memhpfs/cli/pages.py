"""How a help page looks: Markdown set for a terminal, or plain text; code can be pasted from both."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

__all__ = ["print_page"]

_INDENT = "    "


class _Code(CodeBlock):
    """A code block as it is written: neither wrapped nor filled up to the width."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in str(self.text).rstrip().split("\n"):
            yield Segment(_INDENT + line, Style(color="cyan"))
            yield Segment.line()


class _Page(Markdown):
    elements = Markdown.elements | {"fence": _Code, "code_block": _Code}


def print_page(text: str) -> None:
    """Print Markdown on a terminal, without the blanks to the right that rich fills lines with."""
    console = Console()
    for line in Segment.split_lines(console.render(_Page(text))):
        shown = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        shown.rstrip()
        console.print(shown, soft_wrap=True)
