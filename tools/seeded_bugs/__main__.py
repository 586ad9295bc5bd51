"""Plants one bug at a time and runs a test that must fail: of C++, emulated CUDA, or Python.

The unchanged sources must pass first, so that a failure means the bug.

    python -m tools.seeded_bugs cpu
    python -m tools.seeded_bugs cuda
    python -m tools.seeded_bugs python [WORD of a bug's description ...]
"""

import concurrent.futures
import pathlib
import sys
import tempfile

from tools.seeded_bugs import cpu, cuda, planting, python


def survives(suite, bug, folder, unchanged):
    source = folder / "source"
    planting.plant(bug, suite.FOLDERS, source)
    test = suite.build(source, folder / "build", bug.sanitizer, kept=unchanged[bug.sanitizer])
    return planting.passes(test, suite.ARGUMENTS[bug.sanitizer])


def main():
    if sys.argv[1:2] == ["python"]:
        python.main(sys.argv[2:])
    suites = {"cpu": cpu, "cuda": cuda}
    if len(sys.argv) != 2 or sys.argv[1] not in suites:
        sys.exit("usage: python -m tools.seeded_bugs {cpu,cuda,python}")
    suite = suites[sys.argv[1]]
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(2) as pool:
        scratch = pathlib.Path(name)
        unchanged = {kind: scratch / kind for kind in {bug.sanitizer for bug in suite.BUGS}}
        tests = pool.map(lambda kind: suite.build(planting.ROOT, unchanged[kind], kind), unchanged)
        for kind, test in zip(unchanged, tests, strict=True):
            if not planting.passes(test, suite.ARGUMENTS[kind]):
                sys.exit(f"The test fails without a bug ({kind}).")
        found = pool.map(
            lambda item: survives(suite, item[1], scratch / str(item[0]), unchanged),
            enumerate(suite.BUGS),
        )
        survivors = 0
        for bug, alive in zip(suite.BUGS, found, strict=True):
            print(f"{'SURVIVES' if alive else 'caught':10}{bug.what}", flush=True)
            survivors += alive
    print(f"{len(suite.BUGS) - survivors} of {len(suite.BUGS)} seeded bugs caught")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
