"""`keras-kd init`, `distill`, `cache` and `export`, as a user types them."""

import csv
import fcntl
import json
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import yaml

from keras_kd import __main__
from tests import extras
from tests.runs import small

for needed in ("pydantic", "pandas", "sklearn", "ai_edge_litert"):
    extras.require(needed)

FEW = ("data.images.size=12", "data.images.batch_size=8", "data.images.validation=0.2")
FEW += ("data.images.test=0.2", "teacher.train.epochs=3", "teacher.train.width=8")
FEW += ("training.epochs=8", "training.decay=null", "report.latency=false", "exports.1.name=small")
FEW += ("exports.1.quantization=dynamic",)


@pytest.fixture(autouse=True)
def not_for_the_whole_process(monkeypatch):
    """The command makes its own process reproducible: others share this one."""
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


def typed(*words, sets=()):
    return __main__.main([*map(str, words), *[each for x in sets for each in ("--set", x)]])


def rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder of a run on pictures, begun as a user begins."""
    folder = tmp_path_factory.mktemp("pictures")
    small.images(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        patch.chdir(folder)
        assert typed("init", "image") == 0
        assert typed("distill", "config.yaml", "-q", sets=FEW) == 0
    return folder


@pytest.fixture
def inside(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    return pictures / "runs" / "config"


def test_pictures_become_files_for_a_device(inside):
    names = {each.name for each in inside.iterdir()}
    assert {"teacher.keras", "student.keras", "baseline.keras", "float32.tflite"} <= names
    assert {"small.tflite", "report.html", "curves.svg", "run.log", "environment.json"} <= names
    found = small.read_json(inside / "report.json")
    measured = [row["name"] for row in found["rows"]]
    assert measured == ["teacher", "labels only", "distilled", "float32", "small"]
    assert found["rows"][2]["mean"] > 0.5  # the classes are easy
    used = yaml.safe_load((inside / "config.yaml").read_text())
    assert used["training"]["epochs"] == 8
    assert used["data"]["images"]["batch_size"] == 8
    epochs = {"teacher": 3, "student": 8, "baseline": 8}
    found = [(row["model"], int(row["epoch"])) for row in rows(inside)]
    assert found == [(name, i + 1) for name, count in epochs.items() for i in range(count)]
    assert len(list(ET.parse(inside / "curves.svg").iter("{http://www.w3.org/2000/svg}path"))) == 6


def test_the_card_says_what_the_report_does(inside):
    card = (inside / "model_card.md").read_text()
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["metrics"] == ["accuracy"]
    assert "license" not in front
    assert "base_model" not in front  # the teacher was made here
    report = small.read_json(inside / "report.json")
    assert report["verdict"] in body
    for row in report["rows"]:
        assert f"| {row['name']} | {row['mean']:.4f} |" in body
    assert "## Limits" in body
    assert small.read_json(inside / "preprocessing.json")["classes"] == list(small.CLASSES)


def test_the_student_answers_as_the_report_says(inside):
    """By hand: the pictures of the test part, as the run split them, through the .tflite file."""
    from ai_edge_litert.interpreter import Interpreter

    from keras_kd.runs import data, reading

    samples = data.load(reading.read(inside / "config.yaml"))
    x, y = samples.arrays("test")
    interpreter = Interpreter(str(inside / "float32.tflite"))
    interpreter.allocate_tensors()
    answers = []
    for each in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], each[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    report = small.read_json(inside / "report.json")
    expected = next(row["mean"] for row in report["rows"] if row["name"] == "float32")
    assert np.mean(np.argmax(answers, axis=1) == y) == pytest.approx(expected)


def test_a_run_is_never_written_over(inside, capsys):
    before = (inside / "results.csv").read_bytes()
    assert typed("distill", "config.yaml", "-q", sets=FEW) == 2
    assert "holds a run. Continue it with --resume" in capsys.readouterr().err
    assert typed("init", "image") == 2
    assert "exists, and is not written over" in capsys.readouterr().err
    assert (inside / "results.csv").read_bytes() == before


def test_a_resume_with_another_configuration_is_refused(inside, capsys):
    sets = [*FEW, "alpha=0.9", "teacher.train.depth=3"]
    assert typed("distill", "config.yaml", "-q", "--resume", sets=sets) == 2
    printed = capsys.readouterr().err
    assert "teacher.train.depth: 4 before, 3 now; alpha: 0.3 before, 0.9 now" in printed


def test_a_finished_run_has_nothing_left_to_do(inside, capsys):
    before = {each.name: each.stat().st_mtime_ns for each in inside.glob("*.keras")}
    assert typed("distill", "config.yaml", "--resume", sets=FEW) == 0
    assert "student: there already" in capsys.readouterr().err
    assert {each.name: each.stat().st_mtime_ns for each in inside.glob("*.keras")} == before


def test_changed_data_is_refused(inside, pictures, capsys):
    path = pictures / "images" / "ant" / "0.png"
    content = path.read_bytes()
    path.write_bytes((pictures / "images" / "bee" / "0.png").read_bytes())
    try:
        assert typed("distill", "config.yaml", "-q", "--resume", sets=FEW) == 2
    finally:
        path.write_bytes(content)
    assert "The data has changed" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(inside, capsys):
    with open(inside / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert typed("distill", "config.yaml", "-q", "--resume", sets=FEW) == 2
    assert "is in use by another process" in capsys.readouterr().err


def test_a_folder_of_other_files_is_refused(inside, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert typed("distill", "config.yaml", "-q", "--folder", tmp_path, sets=FEW) == 2
    assert "holds other files, such as 'mine.txt'" in capsys.readouterr().err
    assert typed("distill", "config.yaml", "--resume", "--folder", tmp_path / "new", sets=FEW) == 2
    assert "There is no run in" in capsys.readouterr().err


def test_export_writes_the_files_again(inside, capsys):
    trained = (inside / "student.keras").read_bytes()
    sets = [*FEW, "exports.1.name=half", "exports.1.quantization=float16"]
    assert typed("export", "config.yaml", "-q", sets=sets) == 0
    assert (inside / "half.tflite").exists()
    assert not (inside / "small.tflite").exists()
    assert "half.tflite" in (inside / "model_card.md").read_text()
    assert "half" in [row["name"] for row in small.read_json(inside / "report.json")["rows"]]
    assert (inside / "student.keras").read_bytes() == trained
    assert typed("export", "config.yaml", "-q", sets=[*FEW, "seed=3"]) == 2
    assert "seed: 0 before, 3 now" in capsys.readouterr().err


# Texts, with a cache that is written first.


def test_texts_with_a_cache_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small.texts(tmp_path)
    assert typed("init", "text", "--out", "t.yaml") == 0
    sets = ["data.texts.text=said", "data.texts.label=who", "data.texts.length=6"]
    sets += ["data.texts.batch_size=8"]
    sets += ["teacher.train.epochs=12", "teacher.train.width=16", "training.epochs=4"]
    sets += ["teacher.train.learning_rate=0.01", "training.learning_rate=0.01"]
    sets += ["baseline=false", "report.latency=false", "exports=[{name: f, format: tflite}]"]
    assert typed("cache", "t.yaml", "-q", sets=sets) == 2
    assert "training.cache" in capsys.readouterr().err
    sets.append("training.cache=true")
    assert typed("cache", "t.yaml", "-q", sets=sets) == 0
    run = tmp_path / "runs" / "t"
    assert (run / "teacher_cache").is_dir()
    assert not (run / "student.keras").exists()
    assert typed("distill", "t.yaml", "-q", "--resume", sets=sets) == 0
    report = small.read_json(run / "report.json")
    assert [row["name"] for row in report["rows"]] == ["teacher", "distilled", "f"]
    assert report["rows"][0]["mean"] > 0.6  # a word tells the class
    vocabulary = small.read_json(run / "preprocessing.json")["vocabulary"]
    assert {"sound0", "sound1", "sound2"} <= set(vocabulary)
    assert not (run / "baseline.keras").exists()


# Code of the user's.

MODULE = """
import keras
import numpy as np
import tensorflow as tf


def data():
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    parts = {"train": (0, 40), "validation": (40, 50), "test": (50, 60)}
    return {
        name: tf.data.Dataset.from_tensor_slices((x[a:b], y[a:b])).batch(8)
        for name, (a, b) in parts.items()
    }


def network(width, units=2):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(units)]
    )


def teacher():
    return network(8)


def student():
    return network(3)


def wrong():
    return network(3, 5)
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "kd_own_code.py").write_text(MODULE)
    (tmp_path / "kd_other_code.py").write_text("raise SystemExit('imported')")
    values = {
        "version": 1,
        "data": {"function": "kd_own_code:data"},
        "teacher": {"function": "kd_own_code:teacher"},
        "student": {"function": "kd_own_code:student"},
        "training": {"epochs": 1},
        "baseline": False,
        "report": {"latency": False},
    }
    yield values
    sys.modules.pop("kd_own_code", None)


def test_only_the_code_that_is_named_is_imported(own_code, tmp_path):
    before = set(sys.modules)
    assert typed("distill", small.write(tmp_path, own_code), "-q") == 0
    new = {name for name in set(sys.modules) - before if name.startswith("kd_")}
    assert new == {"kd_own_code"}
    assert (tmp_path / "runs" / "small" / "student.keras").exists()


def test_models_that_do_not_fit_are_refused_before_any_training(own_code, tmp_path, capsys):
    for key, words in (("teacher", "kd_own_code:wrong"), ("student", "kd_own_code:wrong")):
        own_code["data"] = {"table": {"file": "table.csv", "label": "kind", "columns": ["size"]}}
        small.write_table(tmp_path / "table.csv", 60)
        path = small.write(tmp_path, {**own_code, key: {"function": words}})
        assert typed("distill", path, "-q") == 2
        assert "teacher.function: it does not take the data" in capsys.readouterr().err
    own_code["data"] = {"function": "kd_own_code:data"}
    path = small.write(tmp_path, {**own_code, "student": {"file": "none.keras"}})
    assert typed("distill", path, "-q") == 2
    assert "there is no file" in capsys.readouterr().err
    path = small.write(tmp_path, {**own_code, "data": {"function": "kd_own_code:teacher"}})
    assert typed("distill", path, "-q") == 2
    assert "must return a dict with the keys train, validation" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["image", "text", "table"])
def test_what_init_writes_can_be_read(kind, tmp_path):
    from keras_kd.runs import reading, run

    path = tmp_path / "new" / "config.yaml"
    assert typed("init", kind, "--out", path) == 0
    config = reading.read(path)
    run.check(config)
    assert config.values.data.kind.startswith(kind)
    assert json.dumps(config.plain())
