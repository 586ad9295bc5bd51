"""What a measurement shows, and the command that makes one."""

import json

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd import __main__
from tests import extras, fresh_process
from tests.measurement import files

X, Y = files.arrays()


@pytest.fixture(scope="module")
def found():
    names = ["ant", "bee", "cat", "dog"]
    teacher = files.classifier(2)
    return kd.measure(
        files.classifier(), (X, Y), teacher=teacher, class_names=names, runs=3, warmup=1
    )


def test_as_json(found):
    text = json.dumps(found.to_dict(), allow_nan=False)
    again = json.loads(text)
    assert "predictions" not in again
    assert "labels" not in again
    for field in ("name", "kind", "task", "samples", "quality", "teacher", "size", "latency"):
        assert again[field] == getattr(found, field)
    assert again["confusion"] == found.confusion
    assert again["per_class"][1]["label"] == "bee"
    assert all(type(x) in (int, float) for x in found.quality.values())


def test_what_is_infinite_becomes_null():
    made = kd.measurement.Measurement("m", "keras", "regression", 1, {"mae": np.float64("inf")})
    assert made.to_dict()["quality"] == {"mae": None}


def test_as_a_table(found):
    text = str(found)
    assert "classifier (keras, multiclass): 37 samples" in text
    for word in (*found.quality, *found.teacher, *found.size, "median", "95th percentile"):
        assert word in text
    assert f"{found.quality['accuracy']:.4f}" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_measurement_is_compared_without_its_rows(found):
    import dataclasses

    assert dataclasses.replace(found, predictions=None, labels=None) == found
    assert dataclasses.replace(found, samples=1) != found
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.samples = 2


def test_the_model_is_as_it_was():
    model = files.classifier()
    model.compile("sgd", "mse")
    before = model.get_weights()
    kd.measure(model, (X, Y), runs=2, warmup=0, name="other")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.optimizer.iterations == 0


def test_a_subclassed_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = files.classifier()

        def call(self, x, training=None):
            return self.inner(x["x"])

    found = kd.measure(Own(), ({"x": X}, Y), latency=False)
    expected = kd.measure(files.classifier(), (X, Y), latency=False)
    assert found.quality == pytest.approx(expected.quality, rel=1e-5)
    assert found.size["macs"] == expected.size["macs"]


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory):
    extras.require("ai_edge_litert")
    folder = tmp_path_factory.mktemp("project")
    files.tflite(files.classifier(), folder / "student.tflite")
    files.classifier(2).save(folder / "teacher.keras")
    np.savez(folder / "data.npz", x=X, y=Y)
    (folder / "own_data.py").write_text(
        "import numpy\n"
        "def test():\n"
        "    held = numpy.load('data.npz')\n"
        "    return held['x'], held['y']\n"
        "def fails():\n"
        "    return numpy.load('absent.npz')\n"
    )
    (folder / "broken.py").write_text("def test(:\n")
    (folder / "needy.py").write_text("import not_installed\n")
    (folder / "half.keras").write_text("PK")
    return folder


@pytest.fixture
def project(project_folder, monkeypatch):
    """A folder with a module that gives data, as the current one."""
    monkeypatch.chdir(project_folder)
    monkeypatch.syspath_prepend(str(project_folder))
    return project_folder


def test_the_command(project, capsys):
    common = ["measure", "student.tflite", "--data", "own_data:test"]
    assert __main__.main([*common, "--runs", "2", "--teacher", "teacher.keras", "--json"]) == 0
    printed, errors = capsys.readouterr()
    assert "measure: student.tflite: 1/1 - " in errors
    again = json.loads(printed)
    options = {"teacher": files.classifier(2), "latency": False, "verbose": 0}
    expected = kd.measure("student.tflite", (X, Y), **options)
    assert again["quality"] == expected.quality
    assert again["teacher"] == pytest.approx(expected.teacher)
    assert again["latency"]["runs"] == 2
    assert __main__.main([*common, "--runs", "0"]) == 0
    loud = capsys.readouterr().out
    assert loud.startswith("student.tflite (tflite, multiclass): 37 samples")
    for quiet in ("-q", "--quiet"):
        assert __main__.main([*common, "--runs", "0", quiet]) == 0
        assert capsys.readouterr() == (loud, "")


@pytest.mark.parametrize(("output", "of"), [("1", 1), ("level", 0)])
def test_command_selects_output_by_index_or_name(project, capsys, output, of):
    inputs = keras.Input((5,))
    heads = [keras.layers.Dense(4, name="level"), keras.layers.Dense(4, name="kind")]
    model = files.filled(keras.Model(inputs, [head(inputs) for head in heads]))
    model.save("two.keras")
    arguments = ["two.keras", "--data", "own_data:test", "--runs", "0", "--json"]
    assert __main__.main(["measure", *arguments, "--output", output]) == 0
    expected = np.mean(np.asarray(model(X)[of]).argmax(axis=1) == Y)
    assert json.loads(capsys.readouterr().out)["quality"]["accuracy"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["student.tflite", "--data", "own_data"], "must be MODULE:FUNCTION"),
        (["student.tflite", "--data", "own_data:none"], "There is no function 'own_data:none'"),
        (["student.tflite", "--data", "absent_module:test"], "There is no function"),
        (["student.tflite", "--data", "./own_data.py:test"], "and no path: 'own_data:test' for"),
        (["student.tflite", "--data", "own_data:numpy"], "own_data:numpy' is a module"),
        (["student.tflite", "--data", "own_data:fails"], "No such file or directory: 'absent.npz'"),
        (["student.tflite", "--data", "broken:test"], "importing 'broken' failed"),
        (["student.tflite", "--data", "needy:test"], "No module named 'not_installed'"),
        (
            ["student.tflite", "--data", "own_data:test", "--teacher", "none.keras"],
            "there is no file",
        ),
        (
            ["student.tflite", "--data", "own_data:test", "--teacher", "student.tflite"],
            "--teacher must be a .keras file",
        ),
        (
            ["student.tflite", "--data", "own_data:test", "--teacher", "half.keras"],
            "is no .keras file, or only a part of one",
        ),
        (["none.tflite", "--data", "own_data:test"], "there is no file 'none.tflite'"),
        (["student.tflite", "--data", "own_data:test", "--probabilities"], "from_logits=True"),
    ],
)
def test_command_reports_invalid_input(project, capsys, arguments, message):
    assert __main__.main(["measure", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_command_in_its_own_process(project):
    arguments = ["student.tflite", "--data", "own_data:test", "--runs", "1"]
    done = fresh_process.run_preloaded(["-m", "keras_kd", "measure", *arguments], cwd=project)
    assert "accuracy" in done.stdout


def test_command_uses_layers_registered_by_data_module(project):
    (project / "own_layers.py").write_text(
        "import keras\n"
        "from own_data import test\n"
        "@keras.saving.register_keras_serializable(package='own')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, inputs):\n"
        "        return 2 * inputs\n"
        "def save():\n"
        "    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), Twice()])\n"
        "    model.save('own.keras')\n"
    )
    fresh_process.run_preloaded(["-c", "import own_layers; own_layers.save()"], cwd=project)
    words = ["--teacher", "own.keras", "--data", "own_layers:test"]
    for command in (
        ["measure", "student.tflite", "--runs", "1"],
        ["report", "--student", "own.keras", "--no-latency"],
    ):
        fresh_process.run_preloaded(["-m", "keras_kd", *command, *words], cwd=project)
