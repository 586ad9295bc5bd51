"""The bugs that `make test-bugs` plants fit the package, and the tests they name exist."""

import pytest

from tools.seeded_bugs import __main__ as seeded_bugs
from tools.seeded_bugs import planting, python


@pytest.mark.parametrize("bug", python.BUGS, ids=lambda bug: bug.what)
def test_a_bug_fits_the_package_and_its_tests_are_there(bug):
    path = python.find_one(planting.ROOT / python.PACKAGE, bug.code)
    compile(path.read_text().replace(bug.code, bug.replacement), path, "exec")
    assert bug.code != bug.replacement
    assert bug.tests
    for test in bug.tests:
        python.find_one(planting.ROOT / python.TESTS, f"def {test.partition('[')[0]}(")


def test_text_that_is_not_there_once_is_refused(tmp_path):
    (tmp_path / "one.py").write_text("a\nb\n")
    (tmp_path / "two.py").write_text("a\n")
    assert python.find_one(tmp_path, "b") == tmp_path / "one.py"
    for text, times in (("a", 2), ("c", 0)):
        with pytest.raises(SystemExit, match=f"holds '{text}' {times} times, expected once"):
            python.find_one(tmp_path, text)


BUGS = [
    planting.Bug(f"bug {i}", "file", "old", "new", planting.THREAD if i < 2 else planting.PLAIN)
    for i in range(20)
]


@pytest.mark.parametrize("share", [1, 3, 20, 100])
def test_a_share_of_the_bugs_is_drawn_by_the_commit(share):
    drawn = seeded_bugs.draw(BUGS, share, "a commit")
    assert len(drawn) == max(2, -(-len(BUGS) // share))
    assert {bug.sanitizer for bug in drawn} == {planting.PLAIN, planting.THREAD}
    assert drawn == [bug for bug in BUGS if bug in drawn]
    assert drawn == seeded_bugs.draw(BUGS, share, "a commit")
    over_commits = {bug for seed in range(200) for bug in seeded_bugs.draw(BUGS, share, seed)}
    assert over_commits == set(BUGS)


@pytest.mark.parametrize("given", ["0", "-1", "a third"])
def test_a_wrong_share_is_refused(given, monkeypatch):
    monkeypatch.setenv("KERAS_KD_BUG_SHARE", given)
    with pytest.raises(SystemExit, match=f"Received: KERAS_KD_BUG_SHARE={given}"):
        seeded_bugs.read_share()


def test_tests_run_in_the_copy_that_bugs_are_planted_in(tmp_path):
    python.copy_tree(tmp_path)
    code, printed = python.run_tests(tmp_path, ["test_text_that_is_not_there_once_is_refused"])
    assert code == 0, printed
