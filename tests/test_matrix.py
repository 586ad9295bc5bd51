"""What the quick matrix takes, and that over all seeds it takes everything."""

import dataclasses
import itertools
import pathlib
import re

import pytest

from tests import matrix
from tests.matrix import Item, Mode
from tools import commit

pytest_plugins = "pytester"

AXES = {"kind": 4, "path": 2, "weighted": 2}
SEEDS = [f"commit {i}" for i in range(100)]


def items(levels=matrix.LEVELS, axes=None, test="test.py::test_a"):
    """The full matrix of a test."""
    axes = AXES if axes is None else axes
    made = []
    for level in levels:
        for places in itertools.product(*map(range, axes.values())):
            case = tuple(zip(axes, places, strict=True))
            name = f"{test}[{level}-{places}]"
            made.append(Item(name, test, level, case, draw=name))
    return made


def taken(of, seed="a"):
    names = matrix.quick(of, seed)
    assert names <= {item.name for item in of}
    return [item for item in of if item.name in names]


@pytest.fixture
def no_tenth(monkeypatch):
    monkeypatch.setattr(matrix, "SHARE", 1 << 70)


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_every_case_runs_eagerly_and_one_in_graph_mode(seed):
    of = items()
    chosen = taken(of, seed)
    assert {item for item in of if item.level == "eager"} <= set(chosen)
    assert any(item.level == "graph" for item in chosen)


def test_every_value_of_every_axis_is_there_with_xla(no_tenth):
    chosen = [item for item in taken(items()) if item.level == "xla"]
    assert {value for item in chosen for value in item.case} == {
        (name, place) for name, places in AXES.items() for place in range(places)
    }
    assert len(chosen) == 4  # as many as the longest axis has values


def test_without_a_cheaper_mode_every_case_runs_in_what_there_is(no_tenth):
    compiled = taken(items(("graph", "xla")))
    assert sum(item.level == "graph" for item in compiled) == 16
    assert sum(item.level == "xla" for item in compiled) == 4
    assert len(taken(items(("xla",)))) == 16
    # A case that no other mode has.
    lone = Item("test.py::test_a[lone]", "test.py::test_a", "xla", (("kind", 9),), "lone")
    assert lone in taken([*items(("eager",)), lone])


def test_a_file_runs_once_in_graph_mode_but_for_tests_without_xla(no_tenth):
    tests = [f"test.py::test_{name}" for name in "abc"]
    with_xla = [item for test in tests for item in items(test=test)]
    chosen = taken(with_xla)
    assert sum(item.level == "graph" for item in chosen) == 1
    assert {item.test for item in chosen if item.level == "xla"} == set(tests)
    without = items(("eager", "graph"), test="test.py::test_d")
    assert sum(item.level == "graph" for item in taken([*with_xla, *without])) == 2


def test_without_other_axes_each_level_runs_once(no_tenth):
    assert len(taken(items(axes={}))) == 3
    levels = ("eager", "graph", "graph", "xla", "xla")
    ways = [Item(f"{k}-{i}", "test", level, (), "") for k in "ab" for i, level in enumerate(levels)]
    assert sorted(item.level for item in taken(ways)) == ["eager", "eager", "graph", "xla"]


def test_all_of_it_runs_over_the_seeds():
    of = items()
    runs = [{item.name for item in taken(of, seed)} for seed in SEEDS]
    assert set.union(*runs) == {item.name for item in of}
    always = set.intersection(*runs)
    others = len(of) - len(always)
    mean = sum(len(run - always) for run in runs) / len(runs)
    assert 0.07 * others < mean < 0.13 * others


def test_what_shares_its_tracing_is_drawn_together():
    of = [dataclasses.replace(item, draw=item.level) for item in items()]
    for level in ("graph", "xla"):
        counts = {sum(i.level == level for i in taken(of, seed)) for seed in SEEDS}
        assert counts == {1 if level == "graph" else 4, 16}


def test_a_seed_decides():
    of = items()
    assert matrix.quick(of, "a") == matrix.quick(items(), "a")
    assert matrix.quick(of, "a") != matrix.quick(of, "b")


def test_a_mode_is_its_name_with_a_level_that_there_is():
    assert {"xla": 1}[Mode("xla")] == 1
    assert Mode("native-dynamic", "graph").level == "graph"
    with pytest.raises(ValueError, match=r"`level` to be one of .* Received: 'dynamic'"):
        Mode("dynamic")


PROGRAM = """
import pytest
from tests import matrix

@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("kind", range(6))
@pytest.mark.parametrize("path", range(5))
def test_a(kind, path, mode): ...

@pytest.mark.every_mode
@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("kind", range(6))
def test_b(kind, mode): ...

@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_c(mode): ...
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs `PROGRAM` in a pytest of its own; gives its lines and the names that passed."""
    hooks = [name for name in vars(matrix) if name.startswith("pytest_")]
    pytester.makeconftest(f"from tests.matrix import {', '.join(hooks)}")
    pytester.makeini("[pytest]\nmarkers = every_mode")
    pytester.makepyfile(test_it=PROGRAM)
    for name in ("KERAS_KD_MATRIX", "KERAS_KD_MATRIX_SEED"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        result = pytester.runpytest_inprocess("-v", "-p", "no:cacheprovider", *arguments)
        names = {name for line in result.outlines for name in re.findall(r"test_it\S+", line)}
        result.assert_outcomes(passed=len(names))
        return result.outlines, names

    return run


def test_a_run_prints_its_seed_and_what_it_left_out(run):
    lines, names = run("--matrix-seed=abc")
    header, summary = (line for line in lines if line.startswith("matrix of modes"))
    assert "this again: --matrix-seed=abc; everything: --matrix=full" in header
    quick = {name for name in names if "test_a" in name}
    assert summary == f"{header}: {len(quick)} of 90 items"
    assert f"{90 - len(quick)} deselected" in lines[-1]
    assert sum("eager" in name for name in quick) == 30
    assert 30 + 1 + 6 < len(quick) < 50
    assert sum("test_b" in name for name in names) == 18
    assert sum("test_c" in name for name in names) == 2
    # -k chooses from the same items.
    assert run("--matrix-seed=abc", "-k", "xla and test_a")[1] == {x for x in quick if "xla" in x}


def test_the_full_matrix_and_items_by_name(run, monkeypatch):
    everything = run("--matrix=full")[1]
    assert len(everything) == 90 + 18 + 2
    left_out = sorted(everything - run("--matrix-seed=abc")[1])[:2]
    assert run("--matrix-seed=abc", *left_out)[1] == set(left_out)
    monkeypatch.setenv("KERAS_KD_MATRIX", "full")
    assert run()[1] == everything
    assert run("--matrix=quick")[1] < everything


def test_another_matrix_is_refused(pytester, run, monkeypatch):
    monkeypatch.setenv("KERAS_KD_MATRIX", "whole")
    result = pytester.runpytest_inprocess()
    result.stderr.fnmatch_lines(["*to be quick or full. Received: KERAS_KD_MATRIX=whole*"])


def test_the_seed_is_the_commit_and_the_same_for_all_workers(run, monkeypatch):
    commits = iter(["first", "second"])
    monkeypatch.setattr(matrix, "seed_of_commit", lambda: next(commits))
    lines, names = run("-n2")
    header, summary = (line for line in lines if line.startswith("matrix of modes"))
    assert "--matrix-seed=first" in header
    assert re.search(r": \d+ of 90 items", summary)
    assert names == run("--matrix-seed=first")[1]
    assert names != run("--matrix-seed=second")[1]
    monkeypatch.setenv("KERAS_KD_MATRIX_SEED", "second")
    assert run()[1] == run("--matrix-seed=second")[1]


def test_no_repository_and_no_git_have_a_seed_too(monkeypatch, tmp_path):
    monkeypatch.setattr(commit, "__file__", str(tmp_path / "commit.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit.seed_of_commit() == commit.NO_COMMIT
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit.seed_of_commit() == commit.NO_COMMIT


def test_tests_take_their_modes_from_the_matrix():
    """Else all of their items would run each time, and the suite would grow slow again."""
    by_hand = re.compile(r'parametrize\("\w+", \[("eager", )?"graph", "xla"\]')
    paths = pathlib.Path(__file__).parent.rglob("test_*.py")
    assert [path.name for path in paths if by_hand.search(path.read_text())] == []


WAITING = """
import pytest
pytestmark = pytest.mark.in_turn(3)
def test_one(): pass
"""


def test_files_take_turns_and_run_where_they_are_named(pytester, monkeypatch):
    pytester.makeini("[pytest]\nmarkers =\n    in_turn(n): takes turns\n")
    pytester.makeconftest("from tests.matrix import *")
    files = [f"test_{i}.py" for i in range(3)]
    for file in files:
        (pytester.path / file).write_text(WAITING)
    (pytester.path / "test_always.py").write_text("def test_one(): pass")
    ran = set()
    for seed in map(str, range(20)):
        waiting = [file for file in files if matrix.waits(file, 3, seed)]
        result = pytester.runpytest_inprocess(f"--matrix-seed={seed}")
        result.assert_outcomes(passed=4 - len(waiting), deselected=len(waiting))
        if waiting:
            result.stdout.fnmatch_lines([f"not their turn: {', '.join(waiting)}"])
        ran.update(set(files) - set(waiting))
    assert ran == set(files)
    waiting = next(str(i) for i in range(100) if matrix.waits(files[0], 3, str(i)))
    for named in (files[0], f"{files[0]}::test_one"):
        pytester.runpytest_inprocess(f"--matrix-seed={waiting}", named).assert_outcomes(passed=1)
    pytester.runpytest_inprocess("--matrix=full").assert_outcomes(passed=4)
