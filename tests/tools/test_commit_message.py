"""The commit-msg hook: which messages pass, and the faults that it names in others."""

import pathlib
import re
import subprocess
import sys

import pytest

from tools import check_commit_message

ROOT = pathlib.Path(__file__).parents[2]
GOOD = [
    "Read the student once",
    "x" * 72,
    "ä" * 72,
    "Read the student once\n",
    "Read the student once\n\nIts inputs were read at every door; now they travel.",
    "\n\n# a comment\nRead the student once\n# a comment\n\nA body.",
    "fixup! " + "x" * 72,
    "fixup! squash! " + "x" * 72,
    "Merge branch 'main' into rooms",
    "Fix... what the title says",
    "Short\n# ------------------------ >8 ------------------------\ndiff --git a/a b/a\n+a;",
    "Short\n\n" + "A body's lines may be as long as an address. " * 9,
]
BAD = [
    ("", "empty: say in one line"),
    ("\n# only a comment\n", "empty: say in one line"),
    ("x" * 73, "has 73 characters, at most 72"),
    ("fixup! " + "x" * 73, "has 73 characters, at most 72"),
    ("Read the student once.", "ends with a period: leave it out"),
    ("Read the student once.  ", "ends with a period: leave it out"),
    ("Read once; types", "joins several with ';'"),
    ("Read the student once\nand a second line", "second line is not blank"),
    ("Read the student once\n# a comment\nand more", "second line is not blank"),
]


@pytest.mark.parametrize("text", GOOD)
def test_good_messages(text):
    assert check_commit_message.faults(text) == []


@pytest.mark.parametrize(("text", "fault"), BAD)
def test_bad_messages(text, fault):
    (found,) = check_commit_message.faults(text)
    assert fault in found


def test_all_faults_are_named_at_once():
    assert len(check_commit_message.faults("x;" * 40 + ".\nmore")) == 4


@pytest.mark.parametrize(("text", "code"), [("Good", 0), ("Bad.", 1)])
def test_the_hook_that_is_configured_judges_the_file(tmp_path, text, code):
    entry = re.search(
        r"entry: python3 (\S*commit\S*)", (ROOT / ".pre-commit-config.yaml").read_text()
    )
    (tmp_path / "message").write_text(text)
    done = subprocess.run(
        [sys.executable, entry[1], tmp_path / "message"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert ("Bad.\nThe subject ends with a period" in done.stderr) == bool(code)
