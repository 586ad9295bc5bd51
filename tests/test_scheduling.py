"""The parts of `make test`: complete, of one length, in order; a crash fails by name."""

import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

from tests import fresh_process, scheduling
from tools import run_tests

CRASH = "import os\n\n\ndef test_crash():\n    os.abort()\n"
HANGS = "import time\n\n\ndef test_hangs():\n    time.sleep(600)\n"
PASSES = "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"


def run_pytest(folder, *options):
    """What `pytest` prints in a folder of its own, that has `tests/scheduling.py`."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    env = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    env["PYTHONPATH"] = os.fspath(fresh_process.ROOT)
    command = [sys.executable, "-m", "pytest", "-p", "tests.scheduling", *options, folder]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=env, cwd=folder
    )


def test_make_test_ends_after_a_crash(tmp_path):
    # The worker dies while it holds a file that is done and one that is not.
    for i in range(4):
        (tmp_path / f"test_{i}.py").write_text(PASSES + CRASH * (i == 2))
    done = run_pytest(tmp_path, *run_tests.OPTIONS)
    assert done.returncode == 1, done.stdout
    assert re.search(r"FAILED test_2.py::test_crash - worker 'gw\d' crashed", done.stdout)
    assert re.search(r"gw\d: \d\.\d GB of memory at its peak", done.stdout)


def test_a_test_that_hangs_ends_the_run_by_its_name(tmp_path):
    for i in range(3):
        (tmp_path / f"test_{i}.py").write_text(PASSES + HANGS * (i == 2))
    settings = ["-o", "faulthandler_timeout=3", "-o", "faulthandler_exit_on_timeout=true"]
    done = run_pytest(tmp_path, *run_tests.OPTIONS, *settings)
    assert done.returncode == 1, done.stdout
    assert re.search(r"FAILED test_2.py::test_hangs - worker 'gw\d' crashed", done.stdout)


class TestRunTests:
    """What `make test` prints of all parts, from made-up parts."""

    @pytest.fixture
    def run(self, monkeypatch, capsys):
        def run(*parts):
            left = iter(parts)

            def run_part(part, arguments, record):
                status, found = next(left)
                if found:
                    record.write_text(json.dumps(found))
                return status

            monkeypatch.setattr(run_tests, "run_part", run_part)
            monkeypatch.setattr(run_tests, "PARTS", len(parts))
            return run_tests.main([]), capsys.readouterr().out.splitlines()

        return run

    @staticmethod
    def record(skips=(), **outcomes):
        return {"outcomes": outcomes, "skips": dict(skips)}

    def test_all_pass(self, run):
        skips = {"a is not installed: `make extras`": 2}
        status, lines = run(
            (0, self.record(skips, passed=3, skipped=2)),
            (0, self.record(skips, passed=4, skipped=2)),
        )
        assert status == 0
        assert lines[-1] == "7 passed, 0 failed, 4 skipped"
        assert lines[-3] == "skipped: a (4) not installed, `make extras` installs it"

    def test_one_part_fails(self, run):
        status, lines = run((0, self.record(passed=3)), (1, self.record(passed=1, failed=2)))
        assert status == 1
        assert lines[-2:] == ["failed in the parts 2/2", "4 passed, 2 failed, 0 skipped"]

    def test_a_part_dies_before_it_reports(self, run):
        status, lines = run((-9, None), (0, self.record(passed=1)))
        assert status == 1
        assert lines[-2] == "failed in the parts 1/2"

    def test_nothing_ran(self, run):
        assert run((5, self.record()), (5, self.record()))[0] == 1


def test_a_part_that_never_ends_is_killed(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(run_tests, "PART_LIMIT", 2)
    monkeypatch.setattr(run_tests, "OPTIONS", ["-p", "tests.scheduling", "-p", "tests.recording"])
    (tmp_path / "test_it.py").write_text(HANGS)
    assert run_tests.run_part("1/1", [str(tmp_path / "test_it.py")], tmp_path / "record") == 1
    assert "part 1/1 did not end within" in capfd.readouterr().out


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_parts_cover_every_file_once(count):
    files = sorted(scheduling.TESTS.rglob("test_*.py"))
    durations = scheduling.read_durations()
    parts = [scheduling.choose_part(files, durations, f"{i + 1}/{count}") for i in range(count)]
    assert [file for part in parts for file in part] == files


def test_parts_take_about_equally_long():
    files = [pathlib.Path(f"test_{i:02}.py") for i in range(30)]
    durations = {file: float(i) for i, file in enumerate(files)}
    del durations[files[3]]  # a new file counts as the mean, 15
    parts = [scheduling.choose_part(files, durations, f"{i}/3") for i in (1, 2, 3)]
    lengths = [sum(durations.get(file, 15) for file in part) for part in parts]
    assert sum(lengths) == 447
    assert max(lengths) - min(lengths) < 30


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5"])
def test_invalid_part_raises(part):
    with pytest.raises(pytest.UsageError, match=f"--part expects I/N.* Received: {part}"):
        scheduling.choose_part([], {}, part)


def test_durations_are_updated(tmp_path):
    table = tmp_path / "durations.txt"
    here, other = pathlib.Path(__file__), scheduling.TESTS / "test_data.py"
    scheduling.write_durations({here: 1.26, scheduling.TESTS / "gone.py": 3.0}, table)
    assert scheduling.read_durations(table) == {here: 1.3}
    scheduling.write_durations({other: 100.0}, table)
    assert scheduling.read_durations(table) == {other: 100.0, here: 1.3}
    assert table.read_text() == "   100.0 test_data.py\n     1.3 test_scheduling.py\n"


def test_other_parts_are_not_imported():
    part = scheduling.Part([pathlib.Path("tests/test_mine.py")])
    ignored = [
        part.pytest_ignore_collect(pathlib.Path("tests") / name)
        for name in ("test_mine.py", "test_theirs.py", "conftest.py", "ops")
    ]
    assert ignored == [None, True, None, None]


@pytest.mark.parametrize(
    ("used", "fails"), [(scheduling.MEMORY_LIMIT, False), (scheduling.MEMORY_LIMIT + 1, True)]
)
def test_a_part_fails_above_the_memory_limit(used, fails):
    options = types.SimpleNamespace(store_durations=None, part="1/2")
    controller = scheduling.Controller(types.SimpleNamespace(option=options))
    node = types.SimpleNamespace(
        workeroutput={"memory": used}, gateway=types.SimpleNamespace(id="gw0")
    )
    session, lines = types.SimpleNamespace(exitstatus=0), []
    controller.pytest_testnodedown(node)
    controller.pytest_sessionfinish(session)
    controller.pytest_terminal_summary(types.SimpleNamespace(write_line=lines.append))
    assert session.exitstatus == int(fails)
    assert [("needs more parts" in line) for line in lines] == [fails]


def test_longest_files_come_first():
    class Item:
        def __init__(self, path, name):
            self.path, self.name = path, name

    (short, _), (long, _) = sorted(
        ((file, seconds) for file, seconds in scheduling.read_durations().items()),
        key=lambda row: row[1],
    )[:: len(scheduling.read_durations()) - 1]
    items = [Item(short, "a"), Item(long, "b"), Item(pathlib.Path("new.py"), "c"), Item(long, "d")]
    scheduling.Worker(None).pytest_collection_modifyitems(items)
    assert [item.name for item in items] == ["c", "b", "d", "a"]
