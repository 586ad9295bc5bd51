"""Which targets `.ci/run` leaves out, in small repositories whose commits have chosen dates."""

import ast
import os
import pathlib
import subprocess
import time

import pytest

from tools import native_changes

ROOT = pathlib.Path(__file__).parents[2]
DAY = 24 * 3600
TODAY = 1_700_000_000
ALL = set(native_changes.REACHES)
NATIVE = "csrc/cpu/simd.h"


class Repository:
    """A repository whose commits have the dates that a test gives, in days from `TODAY`."""

    def __init__(self, root):
        self.root = root
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A")
        self.git("config", "user.email", "a@example.com")

    def git(self, *arguments, day=0):
        date = f"{TODAY + int(day * DAY)} +0000"
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={**os.environ, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def commit(self, path, day):
        self.write(path, f"{path} {day}")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", path, day=day)

    def merge(self, branch, day):
        self.git("merge", "--quiet", "--no-ff", "--message", "merge", branch, day=day)

    def runs(self, setting=None):
        found = native_changes.reasons(self.root, setting)
        return {target for target, reason in found.items() if reason}

    def reason(self, target="wheel"):
        return native_changes.reasons(self.root)[target]


@pytest.fixture
def repository(tmp_path):
    """One with native code of a hundred days ago."""
    made = Repository(tmp_path / "repository")
    made.commit(NATIVE, -100)
    return made


def test_a_change_of_long_ago_runs_nothing(repository):
    repository.commit("keras_kd/step.py", 0)
    assert repository.runs() == set()


@pytest.mark.parametrize(("day", "runs"), [(-1, ALL), (-7, ALL), (-7.01, set()), (0, ALL)])
def test_native_code_runs_all_for_seven_days(repository, day, runs):
    repository.commit(NATIVE, day)
    if day:
        repository.commit("README.md", 0)
    assert repository.runs() == runs


def test_the_days_are_counted_from_head_not_from_the_clock(repository):
    assert time.time() > TODAY + 8 * DAY
    repository.commit(NATIVE, -1)
    repository.commit("README.md", 0)
    assert repository.runs() == ALL


@pytest.mark.parametrize(
    ("path", "runs"),
    [
        ("keras_kd/ops/dispatch.py", {"test-cuda", "wheel", "smoke"}),
        ("keras_kd/operations.py", set()),
        ("tools/seeded_bugs/cpu.py", {"native-test"}),
        ("tools/seeded_bugs/python.py", set()),
        ("tests/cuda/counting.py", {"native-test", "test-cuda", "wheel", "check-cuda-library"}),
        ("tools/smoke_test.py", {"wheel", "smoke"}),
        ("setup.py", ALL - {"native-test"}),
        ("pyproject.toml", ALL),
        ("docs/csrc/page.md", set()),
    ],
)
def test_a_file_runs_what_it_reaches(repository, path, runs):
    repository.commit(path, -1)
    repository.commit("README.md", 0)
    assert repository.runs() == runs


def test_the_reason_names_the_commit_and_the_file(repository):
    repository.commit(NATIVE, -1)
    commit = repository.git("rev-parse", "HEAD")[:8]
    repository.commit("README.md", 0)
    assert repository.reason() == f"commit {commit} touches {NATIVE}"


@pytest.mark.parametrize("change", [("mv", NATIVE, "kernels.h"), ("rm", "--quiet", NATIVE)])
def test_moved_and_removed_files_count(repository, change):
    repository.git(*change)
    repository.git("commit", "--quiet", "--message", "change", day=0)
    assert repository.runs() == ALL


def test_names_that_git_quotes_count(repository):
    repository.commit("csrc/é \n.h", 0)
    assert repository.runs() == ALL


@pytest.mark.parametrize("day", [-50, -1])
@pytest.mark.parametrize("into", ["main", "branch"])
def test_a_merge_brings_old_commits_when_it_is_made(repository, day, into):
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.commit(NATIVE, -60)
    repository.git("checkout", "--quiet", "main")
    repository.commit("README.md", -59)
    # The other way round main's next commit, which fast-forwards, has the branch as first parent.
    repository.git("checkout", "--quiet", into)
    repository.merge("main" if into == "branch" else "branch", day)
    repository.commit("keras_kd/step.py", 0)
    assert repository.runs() == (ALL if day == -1 else set())


def test_what_a_merge_itself_changes_counts(repository):
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.commit("docs/page.md", -60)
    repository.git("checkout", "--quiet", "main")
    repository.commit("README.md", -59)
    repository.git("merge", "--quiet", "--no-commit", "--no-ff", "branch")
    repository.commit(NATIVE, 0)
    assert len(repository.git("show", "--no-patch", "--format=%P").split()) == 2
    assert repository.runs() == ALL


def test_a_commit_is_not_older_than_its_parent(repository):
    repository.commit("README.md", -1)
    repository.commit(NATIVE, -50)  # by a clock that was wrong
    repository.commit("README.md", 0)
    assert repository.runs() == ALL


def test_a_clock_that_is_minutes_ahead_does_not_matter(repository):
    repository.commit("docs/page.md", 0.01)
    repository.commit("README.md", 0)
    assert repository.runs() == set()


def test_a_commit_dated_after_head_cannot_tell(repository):
    repository.commit("docs/page.md", 1)
    commit = repository.git("rev-parse", "HEAD")[:8]
    repository.commit("README.md", 0)
    assert repository.runs() == ALL
    assert repository.reason() == f"the history cannot tell: commit {commit} is dated after HEAD"


def test_a_head_dated_in_the_future_cannot_tell(repository):
    repository.commit("README.md", (time.time() - TODAY) / DAY + 1)
    assert repository.reason() == "the history cannot tell: HEAD is dated in the future"


def test_a_young_repository_runs_all(tmp_path):
    repository = Repository(tmp_path / "young")
    repository.commit(NATIVE, -3)
    repository.commit("README.md", 0)
    assert repository.runs() == ALL


@pytest.mark.parametrize(
    ("path", "runs"), [(NATIVE, ALL), ("csrc/new.h", ALL), ("keras_kd/step.py", set())]
)
@pytest.mark.parametrize("staged", [False, True])
def test_changes_that_are_not_committed_count(repository, path, runs, staged):
    repository.commit("keras_kd/step.py", 0)
    repository.write(path, "changed")
    if staged:
        repository.git("add", path)
    assert repository.runs() == runs
    if runs:
        assert repository.reason() == f"a change that is not committed touches {path}"


def test_a_shallow_clone_cannot_tell(repository):
    repository.commit("README.md", 0)
    clone = repository.root.parent / "clone"
    url = repository.root.as_uri()
    repository.git("clone", "--quiet", "--depth=1", url, os.fspath(clone))
    found = native_changes.reasons(clone)
    assert set(found.values()) == {"the history cannot tell: the clone is shallow"}
    repository.git("-C", os.fspath(clone), "fetch", "--quiet", "--unshallow")
    assert not any(native_changes.reasons(clone).values())


def test_no_repository_cannot_tell(tmp_path):
    reasons = set(native_changes.reasons(tmp_path).values())
    assert len(reasons) == 1
    assert "not a git repository" in reasons.pop()


def test_a_folder_inside_of_another_repository_cannot_tell(repository):
    (repository.root / "unpacked").mkdir()
    found = native_changes.reasons(repository.root / "unpacked")
    reason = "the history cannot tell: this folder is not a repository of its own"
    assert set(found.values()) == {reason}


def test_no_commit_cannot_tell(tmp_path):
    assert Repository(tmp_path / "empty").runs() == ALL


def test_no_git_cannot_tell(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert repository.reason() == "the history cannot tell: there is no git"


def test_the_repository_of_a_hook_is_not_asked(repository, tmp_path, monkeypatch):
    other = Repository(tmp_path / "other")
    other.commit(NATIVE, 0)
    repository.commit("README.md", 0)
    monkeypatch.setenv("GIT_DIR", os.fspath(other.root / ".git"))
    assert native_changes.reasons(repository.root) == dict.fromkeys(ALL)


def test_all_can_be_asked_for(repository):
    repository.commit("README.md", 0)
    assert repository.runs(setting="") == set()
    assert repository.runs(setting="all") == ALL
    with pytest.raises(SystemExit, match="'all' or unset. Received: 'none'"):
        repository.runs(setting="none")


def test_what_is_printed(repository, monkeypatch, capsys):
    repository.commit("tools/seeded_bugs/cpu.py", 0)
    monkeypatch.setattr(native_changes, "ROOT", repository.root)
    monkeypatch.delenv("KERAS_KD_CI", raising=False)
    native_changes.main()
    out, err = capsys.readouterr()
    # The package is tried beside the oldest TensorFlow in any case.
    assert out.split() == ["native-test", "smoke-pure"]
    assert "smoke does not run: nothing that reaches it changed in the 7 days before HEAD" in err
    assert "native-test runs: commit" in err


def test_every_listed_file_is_there():
    for places in native_changes.REACHES.values():
        for place in places:
            path = ROOT / place
            assert path.is_dir() if place.endswith("/") else path.is_file(), place


def test_what_the_programs_of_test_cuda_import_reaches_it():
    for path in sorted((ROOT / "tests/cuda").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                file = f"{name.replace('.', '/')}.py"
                if (ROOT / file).is_file():
                    assert native_changes.reaches(file, "test-cuda"), f"{path}: {file}"


@pytest.fixture
def gate(repository, tmp_path):
    """Runs `.ci/run` of a repository in which nothing native changed, with a `make` that prints."""
    for path in (".ci/run", "tools/native_changes.py"):
        repository.write(path, (ROOT / path).read_text())
    repository.commit(".gitattributes", -90)
    repository.commit("README.md", 0)
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text('#!/bin/sh\necho "made $1"\n[ "$1" != "$FAILS" ]\n')
    make.chmod(0o755)

    def run(**changes):
        path = f"{make.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", repository.root / ".ci/run"],
            env={**os.environ, "PATH": path, "KERAS_KD_CI": "", "FAILS": "", **changes},
            check=False,
            capture_output=True,
            text=True,
        )
        made = [line[5:] for line in done.stdout.splitlines() if line.startswith("made ")]
        return done.returncode, made, done.stdout + done.stderr

    return run


def test_the_gate_leaves_out_what_is_not_reached_and_says_so(gate):
    code, made, printed = gate()
    assert (code, made) == (0, ["lint", "smoke-pure", "extras", "test"])
    assert "native-test does not run: nothing that reaches it changed" in printed
    assert "make native-test: not run\n" in printed


def test_the_gate_runs_all_when_asked(gate):
    code, made, _ = gate(KERAS_KD_CI="all")
    natives = ["native-test", "test-cuda", "wheel", "check-cuda-library", "smoke"]
    assert (code, made) == (0, ["lint", *natives, "extras", "test"])


@pytest.mark.parametrize("target", ["lint", "smoke-pure", "extras", "test"])
def test_the_gate_ends_with_the_first_failure(gate, target):
    code, made, printed = gate(FAILS=target)
    assert code == 1
    assert made[-1] == target
    assert f"make {target}: FAILED" in printed


def test_the_gate_fails_where_its_setting_is_wrong(gate):
    code, made, printed = gate(KERAS_KD_CI="al")
    assert code == 1
    assert made == []
    assert "'all' or unset" in printed
