"""A run that is killed, again and again, and resumed ends with the files of one that was not."""

import os
import random

import numpy as np
import pytest

from tests import extras
from tests.runs import small

if not hasattr(os, "fork"):
    pytest.skip("needs os.fork", allow_module_level=True)

# `KERAS_KD_RUN_KILLS=20` kills more often.
KILLS = int(os.environ.get("KERAS_KD_RUN_KILLS", "6"))
SAME = ("results.csv", "model_card.md", "report.html", "report.json", "preprocessing.json")
SAME += ("config.yaml", "curves.svg", "float.tflite", "dynamic.tflite")
SETTINGS = {
    "teacher": {"train": {"width": 8, "depth": 2, "epochs": 2}},
    "training": {
        "epochs": 4,
        "backup_every": 2,
        "cache": True,
        "early_stop": {"patience": 1, "monitor": "val_accuracy"},
    },
    "temperature": {"start": 4.0, "end": 1.0},
    "exports": [
        {"name": "float", "format": "tflite"},
        {"name": "dynamic", "format": "tflite", "quantization": "dynamic"},
    ],
}


def weights(path):
    import keras

    return keras.models.load_model(path, compile=False).get_weights()


@pytest.mark.slow
def test_killed_runs_end_as_others_do(tmp_path):
    extras.require_in_a_process("ai_edge_litert", "pydantic", "pandas", "sklearn")
    from tests.saving.test_kills import Workshop

    config = small.table(tmp_path, **SETTINGS)
    workshop, options = Workshop(), {"config": os.fspath(config)}
    try:
        whole = tmp_path / "whole" / "run"
        count = workshop("distill", whole, options=options)["events"]
        chance, kills, runs = random.Random(3), 0, 0
        while kills < KILLS:
            folder = tmp_path / str(runs) / "run"
            killed = True
            while killed and kills < KILLS:
                at = chance.randint(1, max(2, count // 2))
                killed = workshop("distill", folder, at, options)["killed"]
                kills += killed
            if killed:
                workshop("distill", folder, options=options)
            assert_same(folder, whole)
            runs += 1
    finally:
        workshop.close()


def assert_same(folder, whole):
    assert sorted(each.name for each in folder.iterdir()) == sorted(
        each.name for each in whole.iterdir()
    )
    for name in SAME:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("teacher", "student", "baseline"):
        pairs = zip(
            weights(folder / f"{name}.keras"), weights(whole / f"{name}.keras"), strict=True
        )
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)
    epochs = [line.split(",")[:2] for line in (folder / "results.csv").read_text().splitlines()[1:]]
    for model in ("teacher", "student", "baseline"):
        found = [int(epoch) for each, epoch in epochs if each == model]
        assert found == list(range(1, len(found) + 1))
