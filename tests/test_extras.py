"""Tests that need a missing extra are skipped, and no others; they say what installs it."""

import subprocess
import sys

import pytest

from tests import extras, fresh_process

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


def test_passes():
    pass
"""
PLUGIN = f"""
from tests import extras
extras.INSTALLS["{MISSING}"] = "pip install it"
from tests.extras import *
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
    options = ["-q", "-rsfE", "--continue-on-collection-errors", "-p", "plugin"]
    command = [sys.executable, "-m", "pytest", *options, tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path, timeout=60
    )
    reason = f"{MISSING} is not installed: `pip install it`, or `make test`"
    if required:
        assert "4 failed, 1 passed, 2 errors" in done.stdout
        assert reason not in done.stdout
    else:
        assert "2 failed, 1 passed, 4 skipped" in done.stdout
        assert done.stdout.count(reason) >= 2
        for name in ("test_another_package", "test_another_error"):
            assert f"FAILED test_tests.py::{name}" in done.stdout


def test_extras_of_the_table_are_there():
    project = (fresh_process.ROOT / "pyproject.toml").read_text()
    for remedy in extras.INSTALLS.values():
        if "keras-kd[" in remedy:
            name = remedy.partition("[")[2].partition("]")[0]
            assert f"\n{name} = [" in project


def test_make_test_requires_the_extras():
    makefile = (fresh_process.ROOT / "Makefile").read_text()
    assert "KERAS_KD_REQUIRE_EXTRAS=1 $(BIN)/python -m pytest $(TEST_OPTIONS)" in makefile
