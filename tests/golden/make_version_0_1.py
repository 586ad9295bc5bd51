"""Writes `version_0_1`: files of each kind that keras_kd saves, and what was in them.

They were written by commit 183cdf1, before the package's modules were moved, and must load for
ever: run this only to add a kind of file, at the commit whose files should be kept, with

    python -m tests.golden.make_version_0_1 [KIND ...]

for the kinds that are named, of `KINDS` below, or all (needs the extras `export` and `measure`).
What is in the `.keras` files is as Keras wrote it; the archives are compressed, which Keras does
not do, and without dates.
"""

import json
import pathlib
import shutil
import sys
import zipfile

import keras
import numpy as np

import keras_kd as kd
from tests.golden import earlier

FOLDER = earlier.FOLDER


def distillers():
    return {f"{name}.keras": _distiller(name) for name in earlier.DISTILLERS}


def _distiller(name):
    made = earlier.DISTILLERS[name]()
    if name == "fitted":  # other numbers than those that it was made with
        made.alpha, made.temperature = 0.35, 2.5
    earlier.trained(name, made, earlier.BEFORE)
    made.save(FOLDER / f"{name}.keras")
    x, y = earlier.data()[0], earlier.labels_of(name)
    found = {
        "predictions": earlier.predictions(made),
        "evaluation": made.evaluate(x, y, batch_size=earlier.BATCH, verbose=0, return_dict=True),
    }
    if name == "fitted":
        made.save_weights(FOLDER / "fitted.weights.h5")
    found["continued"] = earlier.trained(name, made, initial_epoch=earlier.BEFORE)
    return found


def backup():
    folder = FOLDER / "backup"
    shutil.rmtree(folder, ignore_errors=True)
    whole = earlier.backed_up()
    history = earlier.fit(whole, *earlier.callbacks_of_backup(folder))
    shutil.rmtree(folder)
    interrupted = earlier.backed_up()
    try:
        earlier.fit(
            interrupted, *earlier.callbacks_of_backup(folder), earlier.Interrupt(earlier.BEFORE, 1)
        )
    except earlier.Interruption:
        return {"backup": {"history": history, "predictions": earlier.predictions(whole)}}
    raise RuntimeError("The fit was not interrupted.")


def caches():
    found = {}
    for name in earlier.CACHES:
        path = FOLDER / "caches" / name
        shutil.rmtree(path, ignore_errors=True)
        earlier.write_cache(name, path)
        shutil.rmtree(path / "locks", ignore_errors=True)
        found[f"caches/{name}"] = {"components": earlier.read_cache(name, path)}
    for name in ("float32", "top_k"):
        found[f"caches/{name}"]["history"] = earlier.taught_by_cache(FOLDER / "caches" / name)
    for leftover in (FOLDER / "caches").glob("*/by-key-*"):
        shutil.rmtree(leftover)
    for leftover in (FOLDER / "caches").glob("*/locks"):
        shutil.rmtree(leftover)
    return found


def sequences():
    found = {}
    for name, train in earlier.SEQUENCES.items():
        folder, whole = FOLDER / name, FOLDER / f"{name}_whole"
        shutil.rmtree(folder, ignore_errors=True)
        keras.utils.set_random_seed(1)
        first = 0 if name == "born_again" else 1
        try:
            train(folder, lambda number, first=first: [earlier.EndOfSequence()] * (number > first))
        except earlier.Interruption:
            keras.utils.set_random_seed(1)
            found[name] = earlier.of_sequence(train(whole))
            shutil.rmtree(whole)
            continue
        raise RuntimeError(f"{name} was not interrupted.")
    return found


def aware():
    made = earlier.aware()
    earlier.fit(made, epochs=earlier.BEFORE)
    made.save(FOLDER / "aware.keras")
    found = {"predictions": earlier.predictions(made)}
    found["continued"] = earlier.fit(made, initial_epoch=earlier.BEFORE)
    return {"aware.keras": found}


def tflite():
    student = earlier.network(2, 26)
    kd.export.to_tflite(
        student, FOLDER / "student.tflite", user_metadata={"classes": ["a", "b", "c"]}
    )
    return {"student.tflite": {"predictions": earlier.predictions(student)}}


def report():
    earlier.report().save_json(FOLDER / "report.json")
    return {}


def objects():
    made = {**earlier.objects(), **earlier.teachers_of_files()}
    configs = {name: keras.saving.serialize_keras_object(each) for name, each in made.items()}
    for name in earlier.teachers_of_files():
        own = configs[name]["config"]
        own["path"] = pathlib.Path(own["path"]).relative_to(FOLDER).as_posix()
    _write("objects.json", configs)
    return {}


KINDS = {
    each.__name__: each
    for each in (distillers, backup, caches, sequences, aware, tflite, report, objects)
}


def _write(name, content):
    # One line for each file: a figure that changes is one line of a diff.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(content.items())]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (FOLDER / name).write_text(text, encoding="utf-8")


def _compress(path):
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, each in content.items():
            entry = zipfile.ZipInfo(name)
            archive.writestr(entry, each, zipfile.ZIP_DEFLATED)


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(format(value, ".7g")) if isinstance(value, (float, np.floating)) else value


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    figures = earlier.figures() if (FOLDER / "figures.json").exists() else {}
    for kind in sys.argv[1:] or KINDS:
        figures = {**figures, **_rounded(KINDS[kind]())}
    _write("figures.json", figures)
    for path in FOLDER.rglob("*.keras"):
        _compress(path)
