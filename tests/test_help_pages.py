"""The help pages on a terminal and elsewhere: what they print can be pasted."""

import os
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from importlib import resources

import pytest

from memhpfs.cli.help import TOPICS

ME = [sys.executable, "-E", "-m", "memhpfs"]
#: Both kinds of code blocks, with everything that a terminal might do to a line.
PAGE = f"""\
# A page

Text with `code` in it.

```console
$ cat <<'END' | tr a b \\
    --truncate-set1

# [bold]no title[/bold] *nor* :smile: `markup` <b>&amp;</b>
END
```

    indented \\
        twice, {"and very " * 30}long

```
last
```
"""
PAGE_CODE = [
    "$ cat <<'END' | tr a b \\", "    --truncate-set1", "",
    "# [bold]no title[/bold] *nor* :smile: `markup` <b>&amp;</b>",
    "END", "indented \\", f"    twice, {'and very ' * 30}long", "last",
]
SHOW_IT = [sys.executable, "-E", "-c", f"from memhpfs.cli.help import show; show({PAGE!r})"]


def on_terminal(argv: list[str], columns: int, **environment: str) -> str:
    """What a command writes to a terminal of so many columns."""
    terminal, inside = os.openpty()
    termios.tcsetwinsize(inside, (24, columns))
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "MEMHPFS_TEST_RUN") if name in os.environ}
    with subprocess.Popen(argv, stdin=inside, stdout=inside, stderr=inside,
                          env=inherited | {"TERM": "xterm-256color"} | environment) as process:
        os.close(inside)
        with open(terminal, "rb", buffering=0) as stream:
            said = b"".join(_until_hangup(stream.fileno()))
    assert process.returncode == 0
    return said.decode().replace("\r\n", "\n")


def _until_hangup(terminal: int) -> Iterator[bytes]:
    try:
        while True:
            yield os.read(terminal, 4096)
    except OSError:
        return


def without_colours(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")


def code_of(page: str) -> list[str]:
    """The lines of a page's code blocks, without the empty ones."""
    fenced, found = False, []
    for line in page.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        elif line and (fenced or line.startswith("    ")):
            found.append(line if fenced else line[4:])
    return found


def assert_code(said: list[str], code: list[str]) -> None:
    """All lines of code are there as they are written, in order, indented by four, and no line ends with a blank."""
    assert [line for line in said if line != line.rstrip()] == []
    lines = iter(said)
    assert [line for line in code if line and f"    {line}" not in lines] == []


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("topic", TOPICS)
def test_pages_on_a_terminal(topic, columns):
    """Code is as it is written at any width; other text fits in."""
    page = (resources.files("memhpfs") / "help" / f"{topic}.md").read_text()

    said = without_colours(on_terminal([*ME, "help", topic], columns))

    code = code_of(page)
    assert_code(said, code)
    assert [line for line in said if len(line) > columns and line.removeprefix("    ") not in code] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_pages_elsewhere(topic):
    """They are as they are written, with fenced blocks indented."""
    page = (resources.files("memhpfs") / "help" / f"{topic}.md").read_text()

    done = subprocess.run([*ME, "help", topic], capture_output=True, text=True, check=True)

    said = done.stdout.split("\n")
    assert_code(said, code_of(page))
    assert "```" not in done.stdout
    code = {f"    {line}" for line in code_of(page)}
    assert [line for line in said if line not in code and line not in page.split("\n")] == []


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLORTERM": "truecolor"}], ids=str)
@pytest.mark.parametrize("columns", [20, 80])
def test_all_that_a_line_can_hold(columns, environment):
    """Nothing in a code block is taken for markup, and nothing is lost."""
    said = without_colours(on_terminal(SHOW_IT, columns, **environment))

    assert_code(said, PAGE_CODE)
    assert f"    {PAGE_CODE[1]}\n\n    {PAGE_CODE[3]}" in "\n".join(said)
    assert "```" not in "\n".join(said)


def test_fences_elsewhere():
    """A fenced block becomes an indented one."""
    done = subprocess.run(SHOW_IT, capture_output=True, text=True, check=True)

    assert done.stdout == re.sub("```.*\n", "", PAGE).replace(
        "\n".join(PAGE_CODE[:5]), "\n".join(f"    {line}".rstrip() for line in PAGE_CODE[:5])
    ).replace("\nlast", "\n    last")
