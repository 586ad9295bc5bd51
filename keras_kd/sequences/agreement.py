"""For how many rows the models of a chain say the same class."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_kd import progress

_BATCH = 256


def check_data(data):
    """Raises if data cannot be passed over again and again."""
    if isinstance(data, (tuple, tf.data.Dataset, keras.utils.PyDataset)):
        return
    raise ValueError(
        "`validation_data` must be (x, y), (x, y, sample_weight), a batched tf.data.Dataset or a "
        f"keras.utils.PyDataset. Received: a {type(data).__name__}."
    )


def agreements(chain, fit, verbose=0):
    """`{"agreement_with_first", "agreement_with_teacher"}` for each model; `{}` without data.

    All models see each batch in one pass over the data, which may be shuffled.

    Args:
        chain: The models, the first teacher first.
        fit: The arguments of `fit`: validation_data, validation_steps.
        verbose: 0, 1 or 2.
    """
    data = fit.get("validation_data")
    if data is None or any(len(getattr(model, "outputs", None) or [0]) > 1 for model in chain):
        return [{} for _ in chain]
    same, rows = np.zeros((2, len(chain))), 0
    steps = fit.get("validation_steps")
    label, total = "comparing the models", _count(data, steps)
    some = itertools.islice(_inputs(data), steps)
    for inputs in progress.over(some, label, total, verbose=verbose):
        classes = [np.argmax(model.predict_on_batch(inputs), axis=-1) for model in chain]
        rows += classes[0].size
        for i in range(1, len(chain)):
            same[:, i] += [np.sum(classes[i] == classes[j]) for j in (0, i - 1)]
    keys = "agreement_with_first", "agreement_with_teacher"
    return [
        {key: float(n / rows) if i else None for key, n in zip(keys, same[:, i], strict=True)}
        for i in range(len(chain))
    ]


def _count(data, steps):
    """How many batches `_inputs` gives, or `None` where only a pass would tell."""
    if isinstance(data, tuple):
        found = -(-len(keras.tree.flatten(data[0])[0]) // _BATCH)
    else:
        is_dataset = isinstance(data, tf.data.Dataset)
        found = int(data.cardinality()) if is_dataset else data.num_batches
    if found is None or found < 0:
        return steps
    return found if steps is None else min(found, steps)


def _inputs(data):
    if isinstance(data, tuple):
        inputs = keras.tree.lists_to_tuples(data[0])  # of a list TensorFlow makes one tensor
        data = tf.data.Dataset.from_tensor_slices((inputs,)).batch(_BATCH)
    elif isinstance(data, keras.utils.PyDataset):
        count = data.num_batches  # `None`: endless, of which `validation_steps` are taken
        numbers = itertools.count() if count is None else range(count)
        data = map(data.__getitem__, numbers)
    for batch in data:
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]
