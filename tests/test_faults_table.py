"""Each fault of `faults.md` has tests that are there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split(" | ")]
    for line in (ROOT / "tests" / "faults.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| id ")
]


def test_no_id_is_there_twice():
    ids = [name for row in ROWS for name in row[0].split(", ")]
    assert len(ids) == len(set(ids)) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_tests_of_a_fault_are_there(row):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
    assert named
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), (path, test)
