"""Which of the slow targets `.ci/run` runs: those that recent changes reach.

    python3 tools/native_changes.py

prints their names, and on stderr for every target why it runs or does not. A target runs when a
commit of the last seven days, or a change that is not committed, touches a file that reaches it,
and when the history cannot tell. The days are counted back from the date of HEAD, not from today,
so that a commit gets the same answer whenever it is asked for. KERAS_KD_CI=all runs all of them.

Not listed below is what `make test` reads as well: README.md, which becomes the wheel's
description, and the package's Python, which `smoke-pure` installs beside the oldest TensorFlow
whenever `smoke` does not run.
"""

import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DAYS = 7
HOUR = 3600  # by which the clocks of two machines may differ

GATE = (".ci/run", "Makefile", "pyproject.toml", "tools/native_changes.py")
LIBRARY = ("CMakeLists.txt", "cmake/", "csrc/", "third_party/")
GLUE = ("keras_kd/ops/",)
BUGS = ("tools/seeded_bugs/__init__.py", "tools/seeded_bugs/__main__.py")
BUGS += ("tools/seeded_bugs/planting.py", "tools/commit.py")
WHEEL = (*GATE, *LIBRARY, "LICENSE", "MANIFEST.in", "keras_kd/version.py", "setup.py")
WHEEL += ("tools/build_wheel.py", "tools/pythons.py")
# Target -> the files, and the folders (with a slash), that reach it.
REACHES = {
    "native-test": (
        *(*GATE, *LIBRARY, *BUGS, "tests/cuda/", "tests/logits.py", "tests/ops/module_alone.py"),
        *("tests/reference.py", "tests/tolerances.py", "tools/seeded_bugs/cpu.py"),
    ),
    "test-cuda": (
        *(*GATE, *LIBRARY, *GLUE, *BUGS, "setup.py", "tools/seeded_bugs/cuda.py"),
        *("tests/__init__.py", "tests/conftest.py", "tests/cuda/"),
        *("tests/reference.py", "tests/tolerances.py"),
    ),
    "wheel": WHEEL,
    "check-cuda-library": (*WHEEL, "tests/cuda/"),
    "smoke": (
        *WHEEL,
        *GLUE,
        "keras_kd/__init__.py",
        "tools/smoke_test.py",
        "tools/smoke_test_wheel.sh",
    ),
}
NEED_THE_WHEEL = ("check-cuda-library", "smoke")


class HistoryError(Exception):
    """The history does not show what changed in the last days."""


def run_git(root, *arguments, stdin=None):
    """Returns what git prints; raises `HistoryError` with git's own words where it fails."""
    # A hook's GIT_DIR would name another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-replace-objects", "-C", os.fspath(root), *arguments]
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=True, env=env
        )
    except FileNotFoundError as error:
        raise HistoryError("there is no git") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines() or [f"git ended with {error.returncode}"]
        raise HistoryError(reason[0]) from error
    return done.stdout


def recent_commits(root):
    """The commits of the last days, oldest first."""
    if run_git(root, "rev-parse", "--is-shallow-repository").strip() != "false":
        raise HistoryError("the clone is shallow")
    dates, effective = {}, {}
    listing = run_git(
        *(root, "rev-list", "--topo-order", "--reverse", "--parents", "--timestamp", "HEAD")
    )
    for line in listing.splitlines():
        date, commit, *parents = line.split()
        dates[commit] = int(date)
        # A commit is not older than its parents, whatever its clock said.
        effective[commit] = max(dates[commit], *(effective[parent] for parent in parents), 0)
    head = run_git(root, "rev-parse", "HEAD").strip()
    latest = max(dates, key=dates.get)
    if dates[latest] > dates[head] + HOUR:
        raise HistoryError(f"commit {latest[:8]} is dated after HEAD")
    if dates[head] > time.time() + HOUR:
        raise HistoryError("HEAD is dated in the future")
    first = dates[head] - DAYS * 24 * HOUR
    return [commit for commit in dates if effective[commit] >= first]


def changed_files(root):
    """Where each recently changed file was changed last: `{path: "commit ..."}`."""
    top = run_git(root, "rev-parse", "--show-toplevel").strip()
    if pathlib.Path(top).resolve() != root.resolve():
        raise HistoryError("this folder is not a repository of its own")
    commits = recent_commits(root)
    # A merge counts for what it changes against any of its parents. A moved file counts twice.
    listing = run_git(
        *(root, "diff-tree", "--stdin", "-r", "-m", "--root", "--no-renames", "--name-only", "-z"),
        stdin="".join(f"{commit}\n" for commit in commits),
    )
    changed, known, commit = {}, set(commits), None
    for name in listing.split("\0"):
        if name.strip() in known:
            commit = name.strip()
        elif name:
            changed[name] = f"commit {commit[:8]}"
    status = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    for line in run_git(root, *status).split("\0"):
        if line:
            changed[line[3:]] = "a change that is not committed"
    return changed


def reaches(path, target):
    """Whether a change of the file `path` calls for `target`."""
    return any(
        path.startswith(place) if place.endswith("/") else path == place
        for place in REACHES[target]
    )


def reasons(root, setting=None):
    """Why each target runs: `{target: reason}`, with `None` for one that does not run."""
    if setting not in (None, "", "all"):
        raise SystemExit(f"KERAS_KD_CI may be 'all' or unset. Received: {setting!r}")
    if setting == "all":
        return dict.fromkeys(REACHES, "KERAS_KD_CI=all")
    try:
        changed = changed_files(root)
    except HistoryError as error:
        return dict.fromkeys(REACHES, f"the history cannot tell: {error}")
    found = {}
    for target in REACHES:
        hits = [path for path in changed if reaches(path, target)]
        found[target] = f"{changed[hits[-1]]} touches {hits[-1]}" if hits else None
    for target in NEED_THE_WHEEL:
        if found[target] and not found["wheel"]:
            found["wheel"] = f"{target} needs it"
    return found


def main():
    """Prints the targets to run."""
    found = reasons(ROOT, os.environ.get("KERAS_KD_CI"))
    for target, reason in found.items():
        if reason:
            print(target)
            print(f"{target} runs: {reason}", file=sys.stderr)
        else:
            print(
                f"{target} does not run: nothing that reaches it changed in the {DAYS} days before "
                "HEAD (KERAS_KD_CI=all runs it)",
                file=sys.stderr,
            )
    if not found["smoke"]:
        print("smoke-pure")


if __name__ == "__main__":
    main()
