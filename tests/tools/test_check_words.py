"""The list of phrases: where they are found, and that each entry works."""

import re
import subprocess
import sys

import pytest

from tools import check_words

TOLD = check_words.Phrase("of (which|whom)", "'whose'", "regardless of which")
BY_HEART = check_words.Phrase("by heart", "'memorized'")


@pytest.mark.parametrize(
    "text",
    [
        "learned by heart.",
        "By Heart",
        "learned by\n    heart",
        "# learned by\n    # heart",
        "    // learned by\n    // heart",
        '"learned by "\n    "heart"',
        '"learned by "\n    f"heart"',
        "def test_learned_by_heart():",
        "BY_HEART = 1",
        "**by** heart",
    ],
)
def test_a_phrase_is_found_in_every_kind_of_text(text):
    assert len(list(BY_HEART.hits(text))) == 1


@pytest.mark.parametrize(
    "text", ["by hearts", "ruby heart", "by the heart", "byheart", "by. heart"]
)
def test_other_words_are_not_found(text):
    assert list(BY_HEART.hits(text)) == []


def test_what_an_entry_allows():
    assert len(list(TOLD.hits("rows of which some, regardless of which, of whom"))) == 2


def test_no_entry_finds_what_another_one_recommends():
    listed = check_words.phrases()
    assert len({phrase.name for phrase in listed}) == len(listed) > 20
    for phrase in listed:
        for other in listed:
            for quoted in re.findall("'([^']*)'", other.write):
                assert list(phrase.hits(quoted)) == [], (phrase.name, quoted)


def run(*arguments):
    command = [sys.executable, check_words.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_names_line_and_remedy(tmp_path):
    (tmp_path / "clean.py").write_text("x = 1\n")
    assert run(tmp_path / "clean.py").returncode == 0
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "bad.md").write_text("Fine.\nKnown by\nheart, and by heart.\n")
    (tmp_path / "folder" / "bad.png").write_bytes(b"\xff by heart")
    done = run(tmp_path)
    assert done.returncode == 1
    name = tmp_path / "folder" / "bad.md"
    assert done.stdout.splitlines() == [
        f"{name}:2: 'by heart': write 'memorized', 'overfit'",
        f"{name}:3: 'by heart': write 'memorized', 'overfit'",
    ]
    assert done.stderr == "2 phrases of tools/words.toml\n"
    assert run("--count", tmp_path).stdout.split() == ["2", "in", "1", "files:", "by", "heart"]


def test_a_place_that_is_not_there_is_refused(tmp_path):
    done = run(tmp_path / "no_such_folder")
    assert done.returncode != 0
    assert "no_such_folder" in done.stderr
