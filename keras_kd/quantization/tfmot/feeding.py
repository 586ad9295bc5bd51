"""Data for the training: a dataset of `(inputs, labels, weights)`, and its size."""

import keras
import numpy as np
import tensorflow as tf

_BATCH = 32


def dataset(data, batch_size, seed):
    """The data as a batched dataset of `(inputs, labels, weights)`; labels and weights or `None`.

    Args:
        data: A batched, finite `tf.data.Dataset` of inputs or `(inputs, labels[, weights])`, or a
            tuple of arrays of that, which is shuffled and batched here.
        batch_size: Rows of a batch, for arrays.
        seed: Of the order of arrays.

    Raises:
        ValueError: It is none of these, or the arrays differ in rows.
    """
    if isinstance(data, tuple) and len(data) in (2, 3):
        sizes = sorted({len(np.asarray(each)) for each in keras.tree.flatten(data)})
        if len(sizes) > 1:
            raise ValueError(
                "`data`: inputs, labels and weights must have one number of rows. Received: "
                f"{sizes}"
            )
        rows = sizes[0]
        # Of a list TensorFlow would make one tensor.
        data = (keras.tree.lists_to_tuples(data[0]), *data[1:])
        data = tf.data.Dataset.from_tensor_slices(data).shuffle(rows, seed).batch(batch_size)
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(
            "`data` must be a batched tf.data.Dataset or a tuple of arrays (inputs, labels[, "
            f"weights]). Received: {type(data).__name__}"
        )
    return data.map(lambda *parts: keras.utils.unpack_x_y_sample_weight(parts))


def steps(batches):
    """How many batches there are."""
    known = int(batches.cardinality())
    return known if known >= 0 else sum(1 for _ in batches)


def in_batches(arrays):
    """Arrays of all inputs, `[rows, ...]`, as a list of batches, each a list of arrays."""
    starts = range(0, len(arrays[0]), _BATCH)
    return [[array[start : start + _BATCH] for array in arrays] for start in starts]
