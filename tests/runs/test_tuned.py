"""A run whose configuration has a search."""

import pytest

from keras_kd import __main__
from keras_kd.runs import reading
from tests import extras
from tests.runs import small

for needed in ("pydantic", "pandas", "sklearn", "optuna"):
    extras.require(needed)

SPACE = {
    "alpha": [0.25, 0.75],
    "temperature": {"low": 2.0, "high": 6.0},
    "training.learning_rate": {"low": 0.02, "high": 0.1, "log": True},
    "student.shrink.width": [0.5, 0.75],
}


@pytest.fixture(autouse=True)
def not_for_the_whole_process(monkeypatch):
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


def test_run_trains_with_what_the_search_found(tmp_path):
    import keras

    path = small.table(tmp_path, tune={"trials": 3, "epochs": 1, "space": SPACE})
    folder = tmp_path / "run"
    words = [str(path), "--folder", str(folder), "-q"]
    assert __main__.main(["tune", *words]) == 0
    assert not (folder / "student.keras").exists()
    found = small.read_json(folder / "tuning.json")
    assert found["settings"].keys() == set(SPACE)
    assert len(found["trials"]) == len(found["labels_only"]) == 3
    assert found["labels_only_settings"].keys() == {
        "training.learning_rate",
        "student.shrink.width",
    }
    assert __main__.main(["distill", *words, "--resume"]) == 0
    teacher = keras.models.load_model(folder / "teacher.keras", compile=False)
    models = [
        keras.models.load_model(folder / f"{name}.keras", compile=False)
        for name in ("student", "baseline")
    ]
    width = found["settings"]["student.shrink.width"]
    units = {model.layers[-2].output.shape[-1] for model in models}
    assert units == {round(width * teacher.layers[-2].output.shape[-1])}
    card = (folder / "model_card.md").read_text()
    rate, alpha = (found["settings"][name] for name in ("training.learning_rate", "alpha"))
    assert f"learning rate {rate:g}" in card
    assert f"alpha {alpha:g}" in card
    used = reading.read(folder / "config.yaml").values
    assert used.alpha == 0.5  # what the user wrote
    assert "trials" in (folder / "tuning.md").read_text()


def test_tune_without_a_section_is_refused(tmp_path, capsys):
    path = small.table(tmp_path)
    assert __main__.main(["tune", str(path), "--folder", str(tmp_path / "run")]) == 2
    assert "no search is wanted. Add the section" in capsys.readouterr().err
