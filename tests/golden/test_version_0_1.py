"""Files that keras_kd 0.1 wrote are read, and what is in them goes on as it went on then.

`version_0_1` was written by `make_version_0_1.py` before the package's modules were moved;
`figures.json` has what the models gave. Nothing but public names is imported here. Where a test
fails because a name, or a place within a file, is another one now: give the old one its meaning
back, do not write the files again.
"""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import extras, fresh_process
from tests.golden import earlier
from tests.golden.earlier import FOLDER

FILES = [*earlier.DISTILLERS, "aware"]
# A process that imports what users import, and nothing else of the package.
LOAD_ALL = """
import json, sys
import keras, numpy
import keras_kd
x = numpy.asarray(json.loads(sys.argv[2]), "float32")
found = {}
for path in sys.argv[3:]:
    outputs = keras.models.load_model(path).predict(x, verbose=0)
    found[path] = keras.tree.map_structure(lambda each: each.tolist(), outputs)
json.dump(found, open(sys.argv[1], "w"))
"""


def loaded(name):
    model = keras.models.load_model(FOLDER / f"{name}.keras")
    model.run_eagerly = True  # no file says so, and to trace takes longer
    return model


def figures(name):
    return earlier.figures()[name]


def assert_close(found, expected, rtol=1e-5):
    """Both may be nested; structures, texts and flags must be the same."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert_close(found[key], value, rtol)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, rtol)
    elif isinstance(expected, (int, float)) and not isinstance(expected, bool):
        assert found == pytest.approx(expected, rel=rtol, abs=1e-6)
    else:
        assert found == expected


def test_a_fresh_process_loads_all_of_them(tmp_path):
    paths = [str(FOLDER / f"{name}.keras") for name in FILES]
    inputs = json.dumps(earlier.data()[0].tolist())
    fresh_process.run(["-c", LOAD_ALL, tmp_path / "found.json", inputs, *paths])
    found = json.loads((tmp_path / "found.json").read_text())
    for name, path in zip(FILES, paths, strict=True):
        assert_close(found[path], figures(f"{name}.keras")["predictions"])


@pytest.mark.parametrize("name", earlier.DISTILLERS)
def test_a_distiller_trains_on_as_it_would_have(name):
    model, expected = loaded(name), figures(f"{name}.keras")
    if name == "without_teacher":
        model.set_teacher(earlier.ensemble())  # the very one: its fingerprint is compared
    assert_close(earlier.predictions(model), expected["predictions"])
    x, y = earlier.data()[0], earlier.labels_of(name)
    options = {"batch_size": earlier.BATCH, "verbose": 0, "return_dict": True}
    assert_close(model.evaluate(x, y, **options), expected["evaluation"])
    history = earlier.trained(name, model, initial_epoch=earlier.BEFORE)
    assert_close(history, expected["continued"], 1e-4)
    if name == "fitted":  # its callback had waited one epoch of two, by the state in the file
        assert history["beta"] == [0.5, 0.0]


def test_weights_are_those_of_a_distiller_of_the_same_parts():
    model, expected = earlier.fitted(), figures("fitted.keras")
    model.load_weights(FOLDER / "fitted.weights.h5")
    assert_close(earlier.predictions(model), expected["predictions"])
    history = earlier.trained("fitted", model, initial_epoch=earlier.BEFORE)
    assert_close(history, expected["continued"], 1e-4)


def test_a_quantization_aware_student_trains_on():
    model, expected = loaded("aware"), figures("aware.keras")
    assert_close(earlier.predictions(model), expected["predictions"])
    assert_close(earlier.fit(model, initial_epoch=earlier.BEFORE), expected["continued"], 1e-4)


def test_an_interrupted_fit_goes_on_at_its_batch(tmp_path):
    folder = shutil.copytree(FOLDER / "backup", tmp_path / "backup")
    model = earlier.backed_up()
    history = earlier.fit(model, *earlier.callbacks_of_backup(folder))
    expected = figures("backup")
    rest = {key: values[earlier.BEFORE :] for key, values in expected["history"].items()}
    assert_close(history, rest, 1e-4)
    assert_close(earlier.predictions(model), expected["predictions"], 1e-4)
    per_epoch = earlier.ROWS // earlier.BATCH
    assert model.optimizer.iterations == earlier.EPOCHS * per_epoch


@pytest.mark.parametrize("name", earlier.CACHES)
def test_a_cache_is_read_and_found_whole(name, tmp_path):
    path = shutil.copytree(FOLDER / "caches" / name, tmp_path / name)
    assert_close(earlier.read_cache(name, path), figures(f"caches/{name}")["components"])
    before = _contents(path)
    earlier.write_cache(name, path)
    assert _contents(path) == before


def _contents(path):
    shards = [path / "manifest.json", path / "plan.json", *path.glob("view-*/*")]
    return {str(file): file.read_bytes() for file in shards}


@pytest.mark.parametrize(("name", "key"), [("float32", None), ("top_k", None), ("top_k", "inputs")])
def test_a_cache_teaches(name, key, tmp_path):
    path = shutil.copytree(FOLDER / "caches" / name, tmp_path / name)
    assert_close(earlier.taught_by_cache(path, key), figures(f"caches/{name}")["history"], 1e-4)


@pytest.mark.parametrize("name", earlier.SEQUENCES)
def test_a_sequence_of_trainings_goes_on_with_the_second(name, tmp_path):
    folder = shutil.copytree(FOLDER / name, tmp_path / name)
    trained = []
    report = earlier.SEQUENCES[name](folder, lambda number: trained.append(number) or [])
    assert trained == [1 if name == "born_again" else 2]
    found, expected = earlier.of_sequence(report), figures(name)
    assert found.pop("table") == expected.pop("table")
    assert_close(found, expected, 1e-4)


def test_a_report_says_the_same():
    """Nothing reads a report's JSON but users: its keys and numbers stay. Sentences may change."""
    extras.require("sklearn")
    expected = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))
    report = earlier.report()
    assert_close(_without_words(report.to_dict()), _without_words(expected))
    for row in expected["rows"]:
        assert row["name"] in str(report)
        assert f"{100 * row['mean']:.1f}" in report.to_markdown()


def _without_words(value):
    words = ("advice", "environment", "notes", "remarks", "title", "verdict")
    if isinstance(value, dict):
        return {key: _without_words(each) for key, each in value.items() if key not in words}
    return [_without_words(each) for each in value] if isinstance(value, list) else value


def test_a_tflite_file_is_run_and_its_note_is_read():
    extras.require("ai_edge_litert")
    path = FOLDER / "student.tflite"
    assert kd.export.read_metadata(path)["user"] == {"classes": ["a", "b", "c"]}
    (outputs,) = kd.measurement.runtimes.TFLiteFile(path).run(earlier.data()[0])
    np.testing.assert_allclose(outputs, figures("student.tflite")["predictions"], 1e-5, 1e-6)


OBJECTS = json.loads((FOLDER / "objects.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_made_of_its_configuration(name):
    """Whatever module its class is in by now."""
    if name == "keras_kd>TFLiteTeacher":
        extras.require("ai_edge_litert")
    stored = json.loads(json.dumps(OBJECTS[name]))
    if "path" in stored["config"]:
        stored["config"]["path"] = str(FOLDER / stored["config"]["path"])
    made = keras.saving.deserialize_keras_object(stored)
    assert keras.saving.get_registered_name(type(made)) == name
    again = keras.saving.serialize_keras_object(made)
    assert earlier.without_modules(again) == earlier.without_modules(stored)


def test_the_files_say_which_classes_they_hold():
    """Else a file that was written again by mistake would not be an earlier one."""
    names = set()
    for name in FILES:
        with zipfile.ZipFile(FOLDER / f"{name}.keras") as archive:
            names |= set(_registered(json.loads(archive.read("config.json"))))
    assert names == {
        "keras_kd>DeepestExit",
        "keras_kd>Distiller",
        "keras_kd>EMA",
        "keras_kd>FeatureHint",
        "keras_kd>MutualDistiller",
        "keras_kd>QuantizationAware",
        "keras_kd>SoftTargets",
        "keras_kd>TeacherConfidence",
        "keras_kd>_Features",
        "keras_kd>_Logits",
    }


def _registered(config):
    if isinstance(config, dict):
        name = config.get("registered_name")
        if isinstance(name, str) and name.startswith("keras_kd>"):
            yield name
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _registered(each)
