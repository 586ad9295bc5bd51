"""The bugs that `make test-bugs` plants fit the package, and the tests they name exist."""

import pytest

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
