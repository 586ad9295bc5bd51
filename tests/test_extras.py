"""Tests that need a missing extra are skipped, and no others; one line says what installs it."""

import json
import subprocess
import sys

import pytest

from tests import extras, fresh_process, recording

MISSING = "keras_kd_no_such_package"
FILE = f"import {MISSING}\n\n\ndef test_one():\n    pass\n"
TESTS = f"""
import pytest
from tests import extras


@pytest.fixture
def made():
    return extras.require("{MISSING}.part")


def test_in_a_fixture(made):
    pass


def test_in_a_library():
    try:
        import {MISSING}
    except ImportError as error:
        raise ImportError("T needs it: pip install 'keras-kd[it]'") from error


def test_in_a_process():
    extras.require_in_a_process("{MISSING}")


def test_another_package():
    import keras_kd_no_such_package_either


def test_another_error():
    try:
        import {MISSING}
    except ImportError:
        raise ValueError("a fault")


def test_on_another_machine():
    pytest.skip("no GPU is visible to TensorFlow")


def test_skipped_for_another_reason():
    pytest.skip("not today")


@pytest.mark.xfail
def test_expected_to_fail():
    raise AssertionError


def test_passes():
    pass
"""
PLUGIN = f"""
from tests import extras
extras.INSTALLS["{MISSING}"] = "make it"
pytest_plugins = ["tests.extras", "tests.recording"]
"""


@pytest.mark.parametrize("required", [False, True])
def test_what_is_skipped(required, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_file.py").write_text(FILE)
    (tmp_path / "test_tests.py").write_text(TESTS)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    env = fresh_process.environment(
        PYTHONPATH=f"{fresh_process.ROOT}:{tmp_path}",
        KERAS_KD_REQUIRE_EXTRAS="1" if required else None,
    )
    record = tmp_path / "record"
    options = ["-q", "-rsfE", "--continue-on-collection-errors", "-p", "plugin"]
    options.append(f"--record={record}")
    command = [sys.executable, "-m", "pytest", *options, tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path, timeout=60
    )
    reason = f"{MISSING} is not installed: `make it`"
    found = json.loads(record.read_text())
    if required:
        assert found["outcomes"] == {"failed": 7, "passed": 1, "skipped": 1, "xfailed": 1}
        assert found["skips"] == {"no GPU is visible to TensorFlow": 1}
        assert "KERAS_KD_REQUIRE_EXTRAS=1: not today" in done.stdout
        assert "test_on_another_machine" not in done.stdout
    else:
        assert found["outcomes"] == {"failed": 2, "passed": 1, "skipped": 6, "xfailed": 1}
        assert found["skips"].pop(reason) == 4
        assert set(found["skips"]) == {"no GPU is visible to TensorFlow", "not today"}
        for name in ("test_another_package", "test_another_error"):
            assert f"FAILED test_tests.py::{name}" in done.stdout
        line = f"skipped: {MISSING} (4) not installed, `make it` installs it; no GPU"
        assert line in done.stdout


def test_skips_of_all_kinds_are_one_line():
    skips = {
        "a is not installed: `make extras`": 2,
        "b is not installed: `make extras`": 1,
        "c is not installed: `make venv`": 1,
        "this machine has no avx512": 3,
    }
    assert recording.describe_skips(skips) == (
        "skipped: a (2), b (1) not installed, `make extras` installs them; c (1) not installed, "
        "`make venv` installs it; this machine has no avx512 (3)"
    )


def test_targets_of_the_table_are_there():
    makefile = (fresh_process.ROOT / "Makefile").read_text()
    for remedy in extras.INSTALLS.values():
        assert f"\n{remedy.removeprefix('make ')}:" in makefile


def test_ci_requires_the_extras():
    script = (fresh_process.ROOT / ".ci" / "run").read_text()
    assert "\nexport KERAS_KD_REQUIRE_EXTRAS=1\n" in script
    assert " extras test; do\n" in script
