"""A save that is cut off leaves the file that was there, of every model that the library makes."""

import os
import subprocess
import sys
import time

import h5py
import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd._utils import files
from tests.distribution import scenarios
from tests.distribution.scenarios import cross_entropy, network


class CutOff(Exception):  # noqa: N818
    pass


def compiled(model):
    model.compile("sgd", loss=cross_entropy())
    return model


MODELS = {
    "distiller": lambda: compiled(kd.Distiller(network(5), network(4))),
    "mutual": lambda: compiled(kd.MutualDistiller([network(5), network(4)])),
    "aware": lambda: kd.quantization_aware(network(4), representative_data=scenarios.data(40)[0]),
}


def save_folder(model, path):
    model.save(path, zipped=False)


def save_shards(model, path):
    model.save_weights(path, max_shard_size=1e-7)


WAYS = {
    "model": (lambda model, path: model.save(path), "file.keras"),
    "weights": (lambda model, path: model.save_weights(path), "file.weights.h5"),
    "folder": (save_folder, "folder"),
    "shards": (save_shards, "file.weights.json"),
}


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in MODELS.items()}


def contents(folder):
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def cut_off(monkeypatch, at):
    create, seen = h5py.Group.create_dataset, []

    def failing(*args, **kwargs):
        seen.append(1)
        if len(seen) == at:
            raise CutOff
        return create(*args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", failing)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_the_old_one_stays(tmp_path, monkeypatch, models, name, way):
    model, (save, ending) = models[name], WAYS[way]
    save(model, tmp_path / ending)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        cut_off(patch, 3)
        with pytest.raises(CutOff):
            save(model, tmp_path / ending)
    assert contents(tmp_path) == before
    save(model, tmp_path / ending)
    assert contents(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_loads(tmp_path, models, way):
    model, (save, ending) = models["aware"], WAYS[way]
    save(model, tmp_path / ending)
    if way in ("model", "folder"):
        loaded = keras.models.load_model(tmp_path / ending)
    else:
        loaded = MODELS["aware"]()
        loaded.load_weights(tmp_path / ending)
    np.testing.assert_equal(loaded.get_weights(), model.get_weights())


def test_links_and_permissions_stay(tmp_path, models):
    target, link = tmp_path / "of_run_7.weights.h5", tmp_path / "latest.weights.h5"
    models["distiller"].save_weights(target)
    target.chmod(0o600)
    link.symlink_to(target)
    before = target.stat().st_ino
    models["distiller"].save_weights(link)
    assert link.is_symlink()
    assert target.stat().st_ino != before
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("answer", "is_replaced"), [("n", False), ("y", True)])
@pytest.mark.parametrize("way", ["model", "weights"])
def test_asks_before_it_replaces(tmp_path, monkeypatch, models, way, answer, is_replaced):
    path = tmp_path / WAYS[way][1]
    path.write_bytes(b"other")
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: [asked.append(text), answer][1])
    model = models["distiller"]
    (model.save if way == "model" else model.save_weights)(path, overwrite=False)
    assert str(path) in asked[0]
    assert (path.read_bytes() != b"other") == is_replaced


def test_wrong_names_raise_as_they_were_given(tmp_path, models):
    for save in (models["aware"].save, models["aware"].save_weights):
        with pytest.raises(ValueError, match="file.pickle"):
            save(tmp_path / "file.pickle")
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_have_left_is_removed(tmp_path, models):
    """Of this file and this machine, once no one writes it any more."""
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    mine = f"partial-{files.owner()}-0123456789abcdef-file.weights.h5"
    of_other_file = mine.replace(f".{os.getpid()}-", f".{ended.stdout.strip()}-")
    left = of_other_file.replace("-file.", "-e.")
    kept = [mine, of_other_file.replace("-file.", "-other."), "partial-0-0-e.weights.h5"]
    for name in [left, *kept]:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    fresh = left.replace("0123", "4567")
    (tmp_path / fresh).write_bytes(b"")
    models["distiller"].save_weights(tmp_path / "file.weights.h5")
    assert {file.name for file in tmp_path.iterdir()} == {*kept, fresh, "file.weights.h5"}
