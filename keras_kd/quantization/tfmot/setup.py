"""Imports tensorflow-model-optimization without side effects, and prepares data for training."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_LEGACY = "TF_USE_LEGACY_KERAS"


@dataclasses.dataclass(frozen=True)
class Libraries:
    """The modules `tensorflow_model_optimization` and `tf_keras`."""

    tfmot: Any
    tf_keras: Any


def load() -> Libraries:
    """Imports the two libraries.

    The import sets `TF_USE_LEGACY_KERAS=1`. With it `tf.keras` would be Keras 2, if it is first
    accessed afterwards, and in every process that this one starts. So `tf.keras` is accessed
    before, and the variable is restored.

    Raises:
        ImportError: One of them, or `distutils`, is missing.
    """
    tf.keras.version()
    before = os.environ.get(_LEGACY)
    try:
        with warnings.catch_warnings():
            # It compares versions with distutils' classes, which are deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            import tensorflow_model_optimization as tfmot
            import tf_keras
    except ImportError as error:
        raise ImportError(
            f"This needs tensorflow-model-optimization and tf-keras ({error}): pip install "
            "'keras-kd[tfmot]'. tf-keras requires the distribution `tensorflow`; beside another "
            "one (tensorflow-cpu) install the three with --no-deps: pip install --no-deps "
            "tensorflow-model-optimization tf-keras setuptools (and dm-tree, absl-py, six)."
        ) from error
    finally:
        if before is None:
            os.environ.pop(_LEGACY, None)
        else:
            os.environ[_LEGACY] = before
    return Libraries(tfmot, tf_keras)


# Data for the training.


_BATCH = 32


def dataset(data: Any, batch_size: int, seed: int) -> tf.data.Dataset:
    """The data as a batched dataset of `(inputs, labels, weights)`; labels and weights or `None`.

    Args:
        data: A batched, finite `tf.data.Dataset` of inputs or `(inputs, labels[, weights])`, or a
            tuple of such arrays, which is shuffled and batched here.
        batch_size: The batch size, for arrays.
        seed: The seed of the order of arrays.

    Raises:
        ValueError: It is none of these, or the arrays differ in samples.
    """
    if isinstance(data, tuple) and len(data) in (2, 3):
        sizes = sorted({len(np.asarray(each)) for each in keras.tree.flatten(data)})
        if len(sizes) > 1:
            raise ValueError(
                "`data`: inputs, labels and weights must have the same number of samples. "
                f"Received: {sizes}"
            )
        # Of a list TensorFlow would make one tensor.
        data = (keras.tree.lists_to_tuples(data[0]), *data[1:])
        data = tf.data.Dataset.from_tensor_slices(data).shuffle(sizes[0], seed).batch(batch_size)
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(
            "`data` must be a batched tf.data.Dataset or a tuple of arrays (inputs, labels[, "
            f"weights]). Received: {type(data).__name__}"
        )
    return data.map(lambda *parts: keras.utils.unpack_x_y_sample_weight(parts))


def steps(batches: tf.data.Dataset) -> int:
    """The number of batches."""
    known = int(batches.cardinality())
    return known if known >= 0 else sum(1 for _ in batches)


def in_batches(arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Arrays of all inputs, `[samples, ...]`, as a list of batches, each a list of arrays."""
    starts = range(0, len(arrays[0]), _BATCH)
    return [[array[start : start + _BATCH] for array in arrays] for start in starts]
