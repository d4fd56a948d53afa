"""The picture of a session at the top of README: it is what the session looks like now."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).parent.parent
PICTURE = (ROOT / "scripts/session.svg").read_text()


@pytest.fixture
def checkout(tmp_path):
    """A directory with the script, the picture and the Python of the checkout, and nothing else."""
    needs.fuse()
    needs.user_namespaces()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/picture", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def check(checkout: Path, picture: str | None) -> "subprocess.CompletedProcess[str]":
    if picture is not None:
        (checkout / "scripts/session.svg").write_text(picture)
    return subprocess.run([checkout / "scripts/picture", "--check"], capture_output=True, text=True, check=False,
                          timeout=120)


def test_it_is_what_would_be_made_now(checkout):
    """Typing the session again gives the same picture, byte for byte."""
    done = check(checkout, PICTURE)

    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_made_when_asked_for(checkout):
    """Without --check the script makes the picture, which then is what would be made now."""
    subprocess.run([checkout / "scripts/picture"], check=True, timeout=120)

    done = check(checkout, None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_differs_is_told(checkout):
    """A picture of something else, or none, ends the check with 1; one made with other versions is not compared."""
    subprocess.run([checkout / "scripts/picture"], check=True, timeout=120)
    made = (checkout / "scripts/session.svg").read_text()
    (checkout / "scripts/session.svg").unlink()

    assert check(checkout, None).returncode == 1
    other = check(checkout, made.replace("plug", "plugs"))
    assert (other.returncode, other.stderr) == (
        1, "picture: scripts/session.svg is not what would be made now; make picture\n")
    old = check(checkout, re.sub("with util-linux [0-9.]+", "with util-linux 2.1", made))
    assert old.returncode == 0
    assert old.stdout.startswith("picture: not compared: it was made with util-linux 2.1 and rich ")


def test_it_loads_nothing():
    """No font, style sheet or image comes from elsewhere: README shows it as a file."""
    assert re.findall("https?://[^\"']*", PICTURE) == ["http://www.w3.org/2000/svg"]
    assert re.findall("@import|@font-face|<image|<script|href", PICTURE) == []
