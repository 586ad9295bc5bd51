"""The example with a published ONNX teacher runs, on the files of this project."""

import importlib
import json
import re

import numpy as np
import pytest

from tests import example_runs, extras, fresh_process
from tests.example_runs import printed
from tests.real_files.cases import path

pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]
NEEDED = "onnxruntime", "ai_edge_litert", "ai_edge_quantizer", "sklearn"
ROOTS = [example_runs.EXAMPLES.parent / name for name in ("keras_kd", "tests", "docs", "csrc")]


@pytest.fixture(scope="module")
def teacher():
    extras.require_in_a_process(*NEEDED)
    return path("magika/models/standard_v3_3")


@pytest.fixture
def module(monkeypatch):
    extras.require_in_a_process(*NEEDED)
    monkeypatch.syspath_prepend(example_runs.EXAMPLES)
    return importlib.import_module("file_type")


def test_a_student_learns_types_without_labels(teacher, tmp_path):
    small = ["--train-samples", 240, "--test-samples", 60, "--seeds", 1, "--epochs", 30]
    options = ["--roots", *ROOTS, "--teacher", teacher, "--output", tmp_path]
    text = printed("file_type.py", *small, *options)
    rows = re.findall(r"^(\w[\w ]+?) {2,}([\d.]+)% .*?([\d,]+) +[\d,]+$", text, re.MULTILINE)
    found = {name: (float(share), int(size.replace(",", ""))) for name, share, size in rows}
    assert list(found) == ["answers", "probabilities", "as int8", "teacher"]
    # A quarter of these files are of the most frequent type.
    assert found["answers"][0] > 60
    assert found["probabilities"][0] > 60
    assert abs(found["as int8"][0] - found["probabilities"][0]) < 10
    assert found["teacher"][0] == 100
    assert found["as int8"][1] == (tmp_path / "file_type.tflite").stat().st_size < 60_000
    assert len(json.loads((tmp_path / "types.json").read_text())) == 214
    # The teacher's outputs are there: it runs over the files to judge by alone.
    again = printed("file_type.py", *small, "--epochs", 1, *options)
    assert "it was complete already" in again


def test_what_is_read_of_a_file(module, tmp_path):
    """Each end without spaces on its outside, what is missing filled up: as magika reads it."""
    file = tmp_path / "a.txt"
    file.write_bytes(b" \n" + b"ab" * 10 + b"\n\n")
    row = module.read_ends(file)
    assert bytes(row[:22].tolist()) == b"ab" * 10 + b"\n\n"
    assert bytes(row[-22:].tolist()) == b" \n" + b"ab" * 10
    assert set(row[22:-22].tolist()) == {256}
    file.write_bytes(b"x" * 4000 + b"y" * 2000)
    row = module.read_ends(file)
    assert row[:1024].tolist() == [ord("x")] * 1024
    assert row[1024:].tolist() == [ord("y")] * 1024
    file.write_bytes(b"   short ")
    assert module.read_ends(file) is None
    (tmp_path / "link").symlink_to(file)
    assert module.read_ends(tmp_path / "link") is None


def test_files_are_taken_evenly_over_their_suffixes(module, tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.py").write_bytes(b"print(%d) # a program" % i)
    for i in range(3):
        (tmp_path / f"{i}.md").write_bytes(b"# title %d of a text" % i)
    (tmp_path / "again.md").write_bytes(b"# title 0 of a text")
    x, suffixes = module.read_files([tmp_path], 8)
    assert (x.shape, suffixes) == ((8, 2048), 2)
    assert (x[:, 0] == ord("#")).sum() == 3  # and none twice
    np.testing.assert_array_equal(x, module.read_files([tmp_path], 8)[0])
    with pytest.raises(ValueError, match="`roots` must hold 50 different files .* with 43"):
        module.read_files([tmp_path], 50)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--roots", "/nowhere"], "--roots must be folders, received '/nowhere'"),
        (["--teacher", "/nowhere"], "--teacher must be 'magika' or a folder with model.onnx and"),
        (["--test-samples", 0], "--test-samples must be at least 1"),
        (["--temperature", 0], "--learning-rate and --temperature must be above 0"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(wrong, message, teacher, tmp_path):
    command = [example_runs.EXAMPLES / "file_type.py", "--teacher", teacher]
    command = list(map(str, [*command, "--output", tmp_path / "o", *wrong]))
    done = fresh_process.run_preloaded(command, check=False, warnings="default")
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "o").exists()
