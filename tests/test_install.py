"""What `make` says where something cannot be installed."""

import os
import re
import subprocess
import sys

import pytest

from tests import fresh_process
from tools import install

OFFLINE = (
    "ERROR: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution"
)


def python(code):
    return [sys.executable, "-c", code]


def counted(folder, code):
    """A command that runs `code` with `count`, the number of its run from 1."""
    file = folder / "count"
    return python(
        f"import pathlib, sys; file = pathlib.Path({os.fspath(file)!r});"
        f"count = int(file.read_text() or 0) + 1 if file.exists() else 1;"
        f"file.write_text(str(count));\n{code}"
    ), lambda: int(file.read_text())


def test_success_prints_what_the_command_prints(capsys):
    assert install.install("it", python("print('done')"), 60)
    assert capsys.readouterr() == ("done\n", "")


def test_no_network_is_tried_three_times(tmp_path, capsys):
    command, count = counted(tmp_path, f"print({OFFLINE!r}); sys.exit(1)")
    assert not install.install("TensorFlow", command, 60, pause=0)
    assert count() == 3
    printed = capsys.readouterr().err
    assert printed.count("TensorFlow: the package registry did not answer. Trying again") == 2
    assert "could not install TensorFlow: the package registry did not answer" in printed
    assert "the same `make` command goes on from there" in printed


def test_a_network_that_comes_back(tmp_path, capsys):
    code = "print('npm error code ETIMEDOUT'); sys.exit(count < 2)"
    command, count = counted(tmp_path, code)
    assert install.install("a browser", command, 60, pause=0)
    assert count() == 2
    assert "could not" not in capsys.readouterr().err


def test_another_failure_is_final(tmp_path, capsys):
    command, count = counted(tmp_path, "print('No matching distribution'); sys.exit(3)")
    assert not install.install("it", command, 60, pause=0)
    assert count() == 1
    assert "could not install it: exit status 3; its messages are above" in capsys.readouterr().err


def test_what_hangs_is_killed_with_what_it_started(tmp_path, capsys):
    child = "import time; time.sleep(600)"
    code = f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}])"
    command, count = counted(tmp_path, code)
    # The child holds the pipe open: this returns only where it was killed too.
    assert not install.install("it", command, 2, pause=0)
    assert count() == 3
    assert "could not install it: it did not end within 0.0333 minutes" in capsys.readouterr().err


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(
        SystemExit, match=r"needs Python 3\.10 or newer; .* is 3\.9\. .*make PYTHON="
    ):
        install.check_python()


@pytest.mark.parametrize("is_link", [True, False])
def test_a_half_made_environment_is_named(tmp_path, is_link):
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    if is_link:
        program.symlink_to(tmp_path / "gone")
    script = fresh_process.ROOT / "tools" / "install.py"
    done = subprocess.run(
        [sys.executable, script, "--minutes", "1", "it", program, "-m", "pip"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    why = "its Python is gone" if is_link else "it was not made to the end"
    assert re.search(f"is missing: {why}. `make clean` removes .venv", done.stderr)
