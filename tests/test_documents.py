"""README and the help pages, pasted line by line by an ordinary user in a fresh directory."""

import json
import re

import needs
import pytest
from documents import ELSEWHERE, PAGES, Block, Typist, blocks_of
from host_kit import wait_until
from run_kit import Person

from memhpfs.client import Client

user = pytest.mark.parametrize("person", ["user"], indirect=True)
pages = pytest.mark.parametrize("name", PAGES)
#: Programs that the pages use, and their packages.
PROGRAMS = {"udevadm": "udev"}


@pages
def test_every_block_says_what_it_is(name):
    """A block is fenced and of a known kind, so that none is left out by mistake."""
    text = PAGES[name].read_text()
    blocks = blocks_of(text)

    assert {block.kind for block in blocks} <= {"console", "sh", "toml", "json", "yaml", "text"}
    assert {block.where for block in blocks} <= {"", *ELSEWHERE}
    assert text.count("\n```") == 2 * len(blocks)
    assert not re.search(r"^ {4}\S", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


@user
@pages
def test_page_can_be_pasted(person, name):
    """Each block of a page, in order: what is typed succeeds or is shown to fail, and prints what is shown."""
    for program, package in PROGRAMS.items():
        needs.program(program, package)
    folder = person.home / "folder"
    person.do("mkdir", str(folder))
    shell = person.argv("env", f"HOME={person.home}", "TERM=dumb", "SHELL=/bin/bash", "bash")
    typist = Typist.sit_down(shell, person.home, folder)
    try:
        for block in blocks_of(PAGES[name].read_text()):
            if not block.where:
                _do(person, typist, block)
    finally:
        typist.terminal.close(force=True)
        running = [json.loads(line)["pid"] for line in person.do("memhpfs", "ps", "--json").stdout.splitlines()]
        person.do("memhpfs", "stop", *map(str, running))
        wait_until(lambda: not person.processes())


def _do(person: Person, typist: Typist, block: Block) -> None:
    match block.kind:
        case "console":
            _do_session(typist, block)
        case "sh":
            _do_lines(typist, block)
        case "toml":
            _check_machine(person, block)
        case "json":
            _send_requests(person, block)


def _do_session(typist: Typist, block: Block) -> None:
    for prompt, line, shown in block.steps():
        assert typist.prompt == prompt, f"line {block.line}: before {line!r}"
        typist.type(line)
        if shown:
            assert _alike(typist.said, shown), f"line {block.line}: {line!r} prints\n{typist.said}\nnot\n{shown}"
        assert typist.code == 0 or any("rror" in text for text in shown), f"{line!r}: {typist.said}"


def _do_lines(typist: Typist, block: Block) -> None:
    for line in block.text.splitlines():
        typist.type(line)
        assert typist.code == 0, f"line {block.line}: {line!r} ends with {typist.code}: {typist.said}"


def _alike(said: str, shown: list[str]) -> bool:
    """Whether a command said what is shown.  Programs of other releases have other widths."""
    pattern = "".join(r"(.*\n)*" if line == "..." else rf"{re.escape(' '.join(line.split()))}\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{' '.join(line.split())}\n" for line in said.splitlines())) is not None


def _check_machine(person: Person, block: Block) -> None:
    file = person.home / "folder/checked.toml"
    file.write_text(block.text)
    done = person.do("memhpfs", "machine", "check", str(file))
    assert (done.returncode, done.stderr) == (0, ""), f"line {block.line}"


def _send_requests(person: Person, block: Block) -> None:
    (entry,) = [json.loads(line) for line in person.do("memhpfs", "ps", "--json").stdout.splitlines()]
    decoder, text = json.JSONDecoder(), block.text.strip()
    with Client.connect(entry["qmp"]) as client:
        while text:
            request, end = decoder.raw_decode(text)
            text = text[end:].strip()
            # Whoever connects has negotiated already.
            if request["execute"] != "qmp_capabilities":
                client.execute(request["execute"], **request.get("arguments", {}))
