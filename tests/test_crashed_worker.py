"""A test that kills its process fails by name, and `make test` ends."""

import os
import re
import subprocess
import sys

from tests import fresh_process

CRASH = "import os\n\n\ndef test_crash():\n    os.abort()\n"
PASSES = "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"


def test_make_test_ends_after_a_crash(tmp_path):
    makefile = (fresh_process.ROOT / "Makefile").read_text()
    (options,) = re.findall(r"-m pytest (-n 2 --dist loadfile.*)", makefile)
    # The worker dies while it holds a file that is done and one that is not.
    for i in range(4):
        (tmp_path / f"test_{i}.py").write_text(PASSES + CRASH * (i == 2))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    env = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", *options.split(), tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=env, cwd=tmp_path
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"FAILED test_2.py::test_crash - worker 'gw\d' crashed", done.stdout)
