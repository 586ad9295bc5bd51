"""Wrong command lines: status 2, one message on stderr, nothing on stdout, no work."""

import os
import shutil
import sys

import pytest

from keras_kd import __main__
from keras_kd.measurement.subjects import KerasSubject
from tests import extras
from tests.contract import tool_worlds as worlds

MODULE = """
import numpy as np
import tensorflow as tf
from tests.contract import tool_worlds as worlds

X, Y = worlds.arrays()
NUMBER = 3

def test(): return X, Y
def nothing(): return None
def fails(): raise RuntimeError("the user's own")
def ends(): raise SystemExit(5)
def takes(argument): return X, Y
def wide(): return X[:, :3], Y
def empty(): return X[:0], Y[:0]
def endless(): return worlds.batches().repeat()
def large(): return X, Y + 10
def ink(x, y): raise RuntimeError("the user's own")
def dark(x): return x
"""
DATA = ["--data", "own_data:test"]
MEASURE = ["measure", "whole.keras", "--runs", "0"]
REPORT = ["report", "--student", "whole.keras", "--no-latency", *DATA]
USERS = "the user's own"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with models and a module of data, in which nothing else may appear."""
    holder, path = worlds.folder()
    del holder
    for name in ("whole.keras", "cut.keras", "empty.keras", "text.txt", "cut.onnx"):
        shutil.copy(path / name, tmp_path / name)
    shutil.copy(path / "whole.keras", tmp_path / "other.keras")
    (tmp_path / "folder").mkdir()
    (tmp_path / "own_data.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("def (:\n", encoding="utf-8")
    (tmp_path / "needy.py").write_text("import not_installed_at_all\n", encoding="utf-8")
    (tmp_path / "quits.py").write_text("raise SystemExit(5)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("own_data", "broken", "needy", "quits"):
        sys.modules.pop(name, None)


CALLS = {
    "no command": ([], "arguments are required: command"),
    "another command": (["train"], "invalid choice: 'train'"),
    "another option": (["doctor", "--fast"], "unrecognized arguments: --fast"),
    "doctor of a file": (["doctor", "whole.keras"], "unrecognized arguments: whole.keras"),
    "measure of nothing": (["measure"], "arguments are required: file, --data"),
    "measure without data": (["measure", "whole.keras"], "are required: --data"),
    "half an option": ([*MEASURE, *DATA, "--out", "x"], "unrecognized arguments: --out x"),
    "report of nothing": (["report"], "are required: --student, --data"),
    "runs below 0": (["measure", "a.keras", *DATA, "--runs", "-1"], "at least 0, received '-1'"),
    "half a run": (["measure", "a.keras", *DATA, "--runs", "1.5"], "whole number.*received '1.5'"),
    "no threads": ([*MEASURE, *DATA, "--threads", "0"], "--threads: expected .* at least 1"),
    "threads in words": ([*REPORT, "--threads", "two"], "--threads: .*received 'two'"),
    "data without a function": ([*MEASURE, "--data", "own_data"], "--data must be MODULE:FUNCTION"),
    "data of a path": (
        [*MEASURE, "--data", "own_data.py:test"],
        "and no path: 'own_data:test' for",
    ),
    "no such module": ([*MEASURE, "--data", "absent:test"], "There is no function 'absent:test'"),
    "no such function": ([*MEASURE, "--data", "own_data:no"], "module 'own_data' has no 'no'"),
    "data that is a number": (
        [*MEASURE, "--data", "own_data:NUMBER"],
        "'own_data:NUMBER' is a int. Write one that returns",
    ),
    "data that takes an argument": (
        [*MEASURE, "--data", "own_data:takes"],
        r"--data must name a function without arguments; 'own_data:takes' is one that takes \(arg",
    ),
    "a module that is broken": ([*MEASURE, "--data", "broken:test"], "importing 'broken' failed"),
    "a module that needs another": (
        [*MEASURE, "--data", "needy:test"],
        "No module named 'not_installed_at_all'",
    ),
    "a module that ends the program": (
        [*MEASURE, "--data", "quits:test"],
        r"importing 'quits' ended the program: SystemExit\(5\)",
    ),
    "data that fails": ([*MEASURE, "--data", "own_data:fails"], f"own_data:fails failed.*{USERS}"),
    "data that ends the program": (
        [*MEASURE, "--data", "own_data:ends"],
        r"--data own_data:ends ended the program: SystemExit\(5\)",
    ),
    "data that is none": ([*MEASURE, "--data", "own_data:nothing"], "Received: NoneType"),
    "data of no rows": ([*MEASURE, "--data", "own_data:empty"], "one length, above 0"),
    "data without end": ([*MEASURE, "--data", "own_data:endless"], "`data` never ends"),
    "data of other inputs": (
        [*MEASURE, "--data", "own_data:wide"],
        "cannot take the inputs of `data`",
    ),
    "labels that are not a class": ([*MEASURE, "--data", "own_data:large"], "has the label 13"),
    "no such file": (["measure", "no.keras", *DATA], "FILE: there is no file 'no.keras'"),
    "a folder": (["measure", "folder", *DATA], "FILE: there is no file 'folder'"),
    "another format": (["measure", "text.txt", *DATA], "Expected a .tflite, .onnx or .keras file"),
    "half a file": (["measure", "cut.keras", *DATA], "only a part of one. Save the model again"),
    "an empty file": (["measure", "empty.keras", *DATA], "empty.keras is no .keras file"),
    "a bucket": (["measure", "gs://b/a.keras", *DATA], "addresses of buckets are none"),
    "no file name": (["measure", "", *DATA], "the path of a file. Received: FILE=''"),
    "another task": ([*MEASURE, *DATA, "--task", "no"], r"'auto' or one of.*`task` is --task"),
    "another output": ([*MEASURE, *DATA, "--output", "no"], "outputs.*`output` is --output"),
    "a teacher that is not there": (
        [*MEASURE, *DATA, "--teacher", "no.keras"],
        "--teacher: there is no file 'no.keras'",
    ),
    "a teacher of another format": (
        [*MEASURE, *DATA, "--teacher", "text.txt"],
        "--teacher must be a .keras file",
    ),
    "half a teacher": ([*MEASURE, *DATA, "--teacher", "cut.keras"], "or only a part of one"),
    "no teacher's name": ([*MEASURE, *DATA, "--teacher", ""], "Received: --teacher=''"),
    "probabilities of no teacher": (
        [*MEASURE, *DATA, "--teacher-probabilities"],
        "there is none. Name it with --teacher, or leave this out",
    ),
    "report: probabilities of no teacher": (
        [*REPORT, "--teacher-probabilities"],
        "there is none. Name it with --teacher",
    ),
    "report: no such student": (
        ["report", "--student", "no.keras", *DATA],
        "--student: there is no file 'no.keras'",
    ),
    "report: half a student": (["report", "--student", "cut.keras", *DATA], "a part of one"),
    "report: one file twice": ([*REPORT, "--baseline", "whole.keras"], "is given twice as"),
    "report: baselines of other seeds": (
        [*REPORT, "--baseline", "other.keras", "--baseline", "./other.keras"],
        "is given twice",
    ),
    "report: an export without a name": ([*REPORT, "--export", "a.onnx"], "must be NAME=FILE"),
    "report: an export without a file": ([*REPORT, "--export", "x="], "must be NAME=FILE"),
    "report: an export that is not there": (
        [*REPORT, "--export", "x=no.onnx"],
        "--export: there is no file 'no.onnx'",
    ),
    "report: an export of a reserved name": (
        [*REPORT, "--export", "teacher=other.keras"],
        "names that are text and none of",
    ),
    "report: slices without a name": ([*REPORT, "--slices", "own_data"], "must be MODULE:NAME"),
    "report: no such slices": ([*REPORT, "--slices", "own_data:no"], "no 'own_data:no' for --slic"),
    "report: slices that are a number": ([*REPORT, "--slices", "own_data:NUMBER"], "one value for"),
    "report: slices of one argument": ([*REPORT, "--slices", "own_data:dark"], r"\(inputs, labels"),
    "report: slices that fail": ([*REPORT, "--slices", "own_data:ink"], f"ink failed.*{USERS}"),
    "report: names of other classes": (
        [*REPORT, "--class-names", "a,b"],
        "has 2 names.*--class-na",
    ),
    "report: a name twice": ([*REPORT, "--class-names", "a,b,b,c"], "b is there twice"),
    "report: a name that is empty": ([*REPORT, "--class-names", "a,b,c,"], "a name of its own"),
    "report: a page that is a folder": (
        [*REPORT, "--out", "folder"],
        "--out: 'folder' is a folder",
    ),
    "report: a page without a name": ([*REPORT, "--out", ""], "Received: --out=''"),
    "report: half an address": ([*REPORT, "--out", "gs:/b/r.html"], "an address has two slashes"),
    "report: a page below a file": ([*REPORT, "--out", "text.txt/r.html"], "cannot be written"),
    "report: numbers over a model": (
        [*REPORT, "--json", "whole.keras"],
        "--json: 'whole.keras' is the file of --student too, and would be written over. Name ano",
    ),
    "report: numbers over a teacher": (
        [*REPORT, "--teacher", "other.keras", "--markdown", "./other.keras"],
        "is the file of --teacher too",
    ),
    "report: two results in one file": (
        [*REPORT, "--out", "r.html", "--json", "r.html"],
        "--json: 'r.html' is the file of --out too",
    ),
}


def status_of(words):
    try:
        return __main__.main(words)
    except SystemExit as error:  # argparse's own
        return error.code


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_command_line(name, project, capsys, monkeypatch):
    words, message = CALLS[name]
    work, found = [], sorted(os.listdir())
    monkeypatch.setattr(KerasSubject, "predict", lambda *given: work.append(given))
    assert status_of(words) == 2
    printed = capsys.readouterr()
    extras.check_errors(printed.err)
    assert not printed.out
    assert printed.err.count("error: ") == 1
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(printed.err)
    # Python's own words are for the code of users alone.
    assert ("Traceback" in printed.err) == ("failed:" in printed.err)
    assert not work
    assert sorted(os.listdir()) == found


def test_the_table_is_long():
    assert len(CALLS) >= 60


def test_the_remedies_work(project, capsys):
    """Each is what a message above says."""
    extras.require("sklearn")
    for words in (
        [*MEASURE, *DATA],
        [*MEASURE, *DATA, "--teacher", "other.keras"],
        [*MEASURE, *DATA, "--output", "logits"],
        [*REPORT, "--teacher", "other.keras", "--out", "r.html", "--json", "r.json"],
        [*REPORT, "--class-names", "a,b,c,d", "--baseline", "other.keras"],
    ):
        assert __main__.main(words) == 0
        assert capsys.readouterr().out
    assert {"r.html", "r.json"} <= set(os.listdir())


def test_options_state_logits_or_probabilities(project, capsys):
    extras.require("sklearn")
    assert __main__.main([*MEASURE, *DATA, "--probabilities"]) == 2
    assert "from_logits=True is without --probabilities" in capsys.readouterr().err
    assert __main__.main([*MEASURE, *DATA]) == 0


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("/usr/bin/keras-kd", "keras-kd"),
        ("keras-kd.exe", "keras-kd"),
        ("/lib/keras_kd/__main__.py", "python -m keras_kd"),
    ],
)
def test_the_usage_line_is_what_was_typed(started, shown, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [started])
    assert status_of(["measure"]) == 2
    assert capsys.readouterr().err.startswith(f"usage: {shown} measure ")


@pytest.mark.parametrize("variable", ["KERAS_KD_KERNEL", "KERAS_KD_GPU"])
def test_doctor_names_a_variable_of_no_such_value(variable, monkeypatch, capsys):
    monkeypatch.setenv(variable, "nonsense")
    assert __main__.main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert variable in printed.out
    assert "nonsense" in printed.out
    assert printed.err == "An environment variable has no such value; see above.\n"
