"""A run whose folder is in a store: worked on here, and there stage by stage."""

import json

import numpy as np
import pytest

from keras_kd import __main__
from keras_kd._utils import storage
from keras_kd.runs import run as runs
from tests import extras
from tests.runs import small

for needed in ("pydantic", "pandas", "sklearn", "ai_edge_litert", "upath"):
    extras.require(needed)

FEW = ("data.images.size=12", "data.images.batch_size=8", "data.images.validation=0.2")
FEW += ("data.images.test=0.2", "teacher.train.epochs=2", "teacher.train.width=8")
FEW += ("training.epochs=2", "training.decay=null", "training.cache=true", "report.latency=false")
# They hold times, or say where the run is.
DIFFERING = ("run.log", "report.html", "report.json", "model_card.md", "results.csv")


def typed(*words):
    sets = [each for x in FEW for each in ("--set", x)]
    return __main__.main([*map(str, words), "-q", *sets])


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The folder that a run on this machine leaves."""
    folder = tmp_path_factory.mktemp("pictures")
    small.images(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        patch.chdir(folder)
        assert __main__.main(["init", "image"]) == 0
        assert typed("distill", "config.yaml", "--folder", "one") == 0
    return folder / "one"


@pytest.fixture
def address(local, monkeypatch, request):
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
    monkeypatch.chdir(local.parent)
    return f"memory://runs/{request.node.name}/one"


def files(place):
    """Every file of a run by its path within it, without those that differ between two runs."""
    if storage.is_remote(place):
        found = {name: storage.read(place / name) for name in storage.below(place)}
    else:
        paths = [path for path in place.rglob("*") if path.is_file()]
        found = {path.relative_to(place).as_posix(): path.read_bytes() for path in paths}
    return {
        name: data
        for name, data in found.items()
        if name not in (*DIFFERING, ".lock") and "locks/" not in name
    }


def assert_same_run(place, local):
    found, expected = files(place), files(local)
    assert found.keys() == expected.keys()
    for name, data in expected.items():
        if name.endswith((".tflite", ".tfrecord", "manifest.json", "environment.json")):
            assert found[name] == data, name
    for name in DIFFERING:
        assert storage.size(place / name)
    stages = json.loads(storage.read(place / "state" / "stages.json"))["stages"]
    assert list(stages) == list(runs.STAGES)


def test_a_run_in_a_store_is_the_local_one(address, local, capsys):
    assert typed("distill", "config.yaml", "--folder", address) == 0
    assert capsys.readouterr().out == f"{address}\n"
    assert_same_run(storage.place(address), local)
    assert typed("distill", "config.yaml", "--folder", address) == 2
    assert "holds a run. Continue it with --resume" in capsys.readouterr().err
    assert typed("export", "config.yaml", "--folder", address) == 0
    assert_same_run(storage.place(address), local)


def test_a_run_that_was_ended_goes_on_elsewhere(address, local, monkeypatch):
    """The machine is gone, with all that it had: what is in the store is enough."""
    stage = "baseline"

    def end(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(runs.STAGES, stage, end)
        with pytest.raises(KeyboardInterrupt):
            typed("distill", "config.yaml", "--folder", address)
    done = json.loads(storage.read(storage.place(address) / "state" / "stages.json"))["stages"]
    assert stage not in done
    assert "teacher" in done
    trained = storage.read(storage.place(address) / "teacher.keras")
    assert typed("distill", "config.yaml", "--folder", address, "--resume") == 0
    assert storage.read(storage.place(address) / "teacher.keras") == trained
    assert_same_run(storage.place(address), local)


def test_two_that_work_on_one_run_are_noticed(address, monkeypatch, capsys):
    whole = runs.STAGES["cache"]

    def meanwhile(run):
        record = storage.place(address) / "state" / "stages.json"
        record.write_text("{}")
        return whole(run)

    monkeypatch.setitem(runs.STAGES, "cache", meanwhile)
    assert typed("distill", "config.yaml", "--folder", address) == 2
    assert "in use by another process, which has changed it meanwhile" in capsys.readouterr().err


def test_other_objects_and_no_run_are_named(address, capsys):
    (storage.place(address) / "notes.txt").write_text("mine")
    assert typed("distill", "config.yaml", "--folder", address) == 2
    assert "holds other files, such as 'notes.txt'" in capsys.readouterr().err
    assert typed("distill", "config.yaml", "--folder", f"{address}-none", "--resume") == 2
    assert "There is no run in 'memory://" in capsys.readouterr().err


def test_a_report_is_saved_to_a_store(local, tmp_path):
    import keras_kd as kd
    from tests.contract import wrong_calls_of_reports

    made = wrong_calls_of_reports.made()
    assert isinstance(made, kd.Report)
    for name in ("save_json", "save_markdown", "save_html"):
        getattr(made, name)(f"memory://reports/{name}")
        getattr(made, name)(tmp_path / name)
        there = storage.read(storage.place(f"memory://reports/{name}"))
        assert there == (tmp_path / name).read_bytes()
        assert np.size(there)
