"""Plants one bug at a time and runs a test that must fail: of C++, emulated CUDA, or Python.

The unchanged sources must pass first, so that a failure means the bug.

    python -m tools.seeded_bugs cpu
    python -m tools.seeded_bugs cuda
    python -m tools.seeded_bugs python [WORD of a bug's description ...]

KERAS_KD_BUG_SHARE=3 takes a third of those of C++ and CUDA, drawn with the hash of the commit: over
commits, all of them.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import sys
import tempfile

from tools.commit import seed_of_commit
from tools.seeded_bugs import cpu, cuda, planting, python

VARIABLE = "KERAS_KD_BUG_SHARE"


def survives(suite, bug, folder, unchanged):
    source = folder / "source"
    planting.plant(bug, suite.FOLDERS, source)
    test = suite.build(source, folder / "build", bug.sanitizer, kept=unchanged[bug.sanitizer])
    return planting.passes(test, suite.ARGUMENTS[bug.sanitizer])


def draw(bugs, share, seed):
    """One in `share` of the bugs, at least one of each sanitizer.

    Args:
        bugs: A list of `planting.Bug`.
        share: A number from 1, which takes all.
        seed: The hash of the commit.
    """
    order = sorted(bugs, key=lambda bug: hashlib.sha256(f"{seed} {bug.what}".encode()).digest())
    first = {bug.sanitizer: bug for bug in reversed(order)}.values()
    rest = [bug for bug in order if bug not in first]
    wanted = -(-len(bugs) // share)
    drawn = [*first, *rest[: max(0, wanted - len(first))]]
    return [bug for bug in bugs if bug in drawn]


def read_share():
    """KERAS_KD_BUG_SHARE as a number."""
    given = os.environ.get(VARIABLE) or "1"
    if not given.isdecimal() or given == "0":
        sys.exit(f"{VARIABLE} expects a whole number from 1. Received: {VARIABLE}={given}")
    return int(given)


def main():
    if sys.argv[1:2] == ["python"]:
        python.main(sys.argv[2:])
    suites = {"cpu": cpu, "cuda": cuda}
    if len(sys.argv) != 2 or sys.argv[1] not in suites:
        sys.exit("usage: python -m tools.seeded_bugs {cpu,cuda,python}")
    suite = suites[sys.argv[1]]
    for bug in suite.BUGS:  # those that are not drawn too
        planting.check(bug)
    bugs = draw(suite.BUGS, read_share(), seed_of_commit())
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(2) as pool:
        scratch = pathlib.Path(name)
        unchanged = {kind: scratch / kind for kind in {bug.sanitizer for bug in bugs}}
        tests = pool.map(lambda kind: suite.build(planting.ROOT, unchanged[kind], kind), unchanged)
        for kind, test in zip(unchanged, tests, strict=True):
            if not planting.passes(test, suite.ARGUMENTS[kind]):
                sys.exit(f"The test fails without a bug ({kind}).")
        found = pool.map(
            lambda item: survives(suite, item[1], scratch / str(item[0]), unchanged),
            enumerate(bugs),
        )
        survivors = 0
        for bug, alive in zip(bugs, found, strict=True):
            print(f"{'SURVIVES' if alive else 'caught':10}{bug.what}", flush=True)
            survivors += alive
    left_out = len(suite.BUGS) - len(bugs)
    more = f", {left_out} not drawn ({VARIABLE}={read_share()})" if left_out else ""
    print(f"{len(bugs) - survivors} of {len(bugs)} seeded bugs caught{more}")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
