"""The digits, and a student that has learned them."""

import keras
import numpy as np
import pytest

from tests import extras
from tests.export import students
from tests.quantization import common


@pytest.fixture(scope="session")
def digits():
    """`(images, labels)` for training and for testing."""
    found = extras.require("sklearn.datasets").load_digits()
    images = (found.images[..., None] / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], found.target[order].astype("int32")
    return (images[:1200], labels[:1200]), (images[1200:], labels[1200:])


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """The path of a float CNN that has learned the digits."""
    keras.utils.set_random_seed(0)
    student = students.cnn()
    common.compile_for(student, 3e-3)
    student.fit(*digits[0], batch_size=32, epochs=8, verbose=0)
    path = tmp_path_factory.mktemp("trained") / "student.keras"
    student.save(path)
    return path
