"""Every test starts from the same seed, and leaves Keras' global dtype policy as it was."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_seed():
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy(policy)
