"""Seeds for the initial weights of models that tests make by the hundred."""

import random


def seed_weights(seed):
    """Seeds the initializers of Keras, which draw their own seeds with Python's `random`.

    `keras.utils.set_random_seed` also seeds NumPy and TensorFlow, and with that empties the
    framework's cache of kernels: every operation is set up again. Tests that made a model each took
    1.4 times as long.
    """
    random.seed(seed)
