"""Runs the tests in parts, each in fresh processes, and adds up what came of them.

    python -m tools.run_tests [options of pytest]

`tests/scheduling.py` says why the suite is run in parts. Every part runs, whatever fails. A test
that hangs ends its worker (`faulthandler_timeout` in pyproject.toml), a worker that dies ends its
part, and both fail by the name of the test.
"""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = 6
# Crashed workers are not replaced: under loadfile pytest-xdist hands the files of a dead worker to
# the next one, also those that are done. A worker that gets one of them has nothing to run, never
# asks for more, and the run never ends.
OPTIONS = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart=0"]
# The longest part takes 6 minutes on two cores. What still runs then does not end by itself.
PART_LIMIT = 60 * 60


def parts():
    """`["1/6", "2/6", ...]`."""
    return [f"{i + 1}/{PARTS}" for i in range(PARTS)]


def run_part(part, arguments, record):
    """Runs one part. Returns its exit status; kills what does not end by itself."""
    command = [sys.executable, "-m", "pytest", *OPTIONS, f"--part={part}", f"--record={record}"]
    command += arguments
    print("$ python", *command[1:], flush=True)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(PART_LIMIT)
    except subprocess.TimeoutExpired:
        print(f"part {part} did not end within {PART_LIMIT // 60} minutes", flush=True)
        return process.returncode or 1
    finally:  # also at Ctrl-C: the workers are in its group
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(arguments):
    """Runs all parts and prints the sums. Returns the exit status."""
    from tests.recording import describe_skips

    start, failed = time.monotonic(), []
    outcomes, skips = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for part in parts():
            record = pathlib.Path(folder) / part.replace("/", "-")
            status = run_part(part, arguments, record)
            if status not in (0, 5):  # 5: nothing to run, with -k for instance
                failed.append(part)
            if record.exists():
                found = json.loads(record.read_text())
                outcomes.update(found["outcomes"])
                skips.update(found["skips"])
    print()
    if skips:
        print(describe_skips(skips))
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if failed:
        print(f"failed in the parts {' '.join(failed)}")
    print(", ".join(f"{outcomes[name]} {name}" for name in ("passed", "failed", "skipped")))
    return 1 if failed or not outcomes["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
