"""Blocks of code in README and the help pages, and somebody who pastes them into a shell.

A fenced block says by its first word what it is:

    console   a session: lines behind a prompt are typed, what follows them is shown; `...` stands for any lines
    sh        lines that are typed one after the other, and succeed
    toml      a machine file, whole
    json      requests to a machine's QMP socket, one after the other
    text      nothing to be run

A second word says that a block of these cannot be run everywhere: see `ELSEWHERE`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pexpect
from attrs import define, frozen

__all__ = ["ELSEWHERE", "PAGES", "Block", "Typist", "blocks_of"]

ROOT = Path(__file__).parent.parent
#: Texts by name.
PAGES = {"README": ROOT / "README.md", **{path.stem: path for path in sorted((ROOT / "memhpfs/help").glob("*.md"))}}
#: Second words of blocks that are not pasted, each with the reason.
ELSEWHERE = {
    "checkout": "done in a checkout: scripts/fresh-machine does it on a fresh system",
    "engine": "needs an engine for containers, and an image",
    "actions": "runs on GitHub's machines",
    "kubernetes": "runs in a cluster",
    "root": "changes what all users of the computer share",
}
_FENCE = re.compile(r"^```(\w*) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"((?:\([\w.-]+\) )?[$#]) (.*)")
#: The prompt tells the exit code, unseen by who reads; the second one that a line goes on.
_PROMPT = re.compile(r"((?:\([\w.-]+\) )?)\x01(\d+)\x02([$#]) ")
_MORE = "\x03"
_BASHRC = "PS1='\x01$?\x02\\$ '; PS2='\x03'; HISTFILE=; set +o emacs; set +o vi\n"


@frozen
class Block:
    """A block of a page.

    Attributes:
        line: where it begins in the page.
        kind, where: first and second word.
        text: its lines.
    """

    line: int
    kind: str
    where: str
    text: str

    def steps(self) -> Iterator[tuple[str, str, list[str]]]:
        """Of a session: each prompt, what is typed there, and the lines that are shown then."""
        step: tuple[str, str, list[str]] | None = None
        for line in self.text.splitlines():
            match = _TYPED.match(line)
            if match:
                if step:
                    yield step
                step = (match[1], match[2], [])
            else:
                assert step, f"line {self.line}: a session begins with a prompt"
                step[2].append(line)
        if step:
            yield step


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(text.count("\n", 0, match.start()) + 1, *match.groups()) for match in _FENCE.finditer(text)]


@define
class Typist:
    """Somebody at an interactive bash.

    Attributes:
        terminal: the bash.
        prompt: the prompt they look at.
        code: the exit code of what they did last.
        said: what that printed.
    """

    terminal: "pexpect.spawn[str]"
    prompt: str = ""
    code: int = 0
    said: str = ""

    @classmethod
    def sit_down(cls, argv: list[str], home: Path, folder: Path) -> "Typist":
        """Start a bash.

        Args:
            argv: what starts it, as the person that it is.
            home: where its start-up file goes.
            folder: the directory to start in.
        """
        (home / ".bashrc").write_text(_BASHRC)
        terminal = pexpect.spawn(argv[0], argv[1:], cwd=str(folder), encoding="utf-8", timeout=60, echo=False,
                                 dimensions=(50, 200))
        typist = cls(terminal)
        typist._read()
        return typist

    def type(self, line: str) -> None:
        """Type a line, and read what it prints, until there is a prompt again."""
        self.terminal.sendline(line)
        self._read()

    def _read(self) -> None:
        found = self.terminal.expect([_PROMPT, re.compile(_MORE), pexpect.EOF])
        self.said = self.terminal.before.replace("\r\n", "\n")
        assert found != 2, f"the shell ended: {self.said}"
        if found == 0:
            self.prompt = self.terminal.match[1] + self.terminal.match[3]
            self.code = int(self.terminal.match[2])
