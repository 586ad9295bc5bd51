"""Digits, a teacher of them, and what tensorflow-model-optimization makes of a small model."""

import json
import pathlib

import keras
import numpy as np
import pytest

from tests import extras, fresh_process
from tests.compression import networks

PROGRAM = pathlib.Path(__file__).with_name("tfmot_program.py")


@pytest.fixture(scope="session")
def digits():
    """`(x, y)` to train with and `(x, y)` to test with: images of 8x8, from 0 to 1."""
    x, y = extras.require("sklearn.datasets").load_digits(return_X_y=True)
    x, order = x.reshape(-1, 8, 8, 1).astype("float32") / 16, np.random.default_rng(0).permutation
    order = order(len(y))
    return (x[order[:1200]], y[order[:1200]]), (x[order[1200:]], y[order[1200:]])


@pytest.fixture(scope="session")
def teacher(digits):
    keras.utils.set_random_seed(1)
    model = networks.cnn(32)
    model.compile(keras.optimizers.Adam(0.003), networks.from_logits())
    model.fit(*digits[0], batch_size=64, epochs=6, verbose=0)
    return model


@pytest.fixture(scope="session")
def tfmot(tmp_path_factory):
    """What `tfmot_program.py` got, and what it found."""
    extras.require_in_a_process("tensorflow_model_optimization", "tf_keras")
    folder = tmp_path_factory.mktemp("tfmot")
    given = networks.task()
    (folder / "given.json").write_text(json.dumps(given))
    # Its own and Keras 2's warnings are not ours: no -Werror.
    fresh_process.run(["-Wignore", PROGRAM, folder / "given.json", folder / "found.json"])
    return given, json.loads((folder / "found.json").read_text())
