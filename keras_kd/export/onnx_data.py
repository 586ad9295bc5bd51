"""Inputs to calibrate and compare with: what the user gave, checked, or made ones."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.teachers import carried

# Minima and maxima over some hundred rows no longer move the scales of int8 much.
MOST_ROWS = 512
# With one row a quantized CNN was off by 0.57 where ten rows gave 0.04.
_FEWEST_ROWS = 10
_MADE_ROWS = 32
# Unknown dimensions (time steps) of made inputs.
_MADE_SIZE = 8
_OTHER_RANGE = 10.0


def arrays_of(given, model, name="representative_data", fewest=_FEWEST_ROWS):
    """Inputs for a model, in its structure, as NumPy arrays of its dtypes.

    Args:
        given: A batched `tf.data.Dataset` of inputs, `(inputs, labels)` or `(inputs, labels,
            sample_weight)`; or arrays in the structure of the model's inputs. Of more than 512
            rows the first are taken.
        model: The `keras.Model`.
        name: The argument, for errors.
        fewest: Rows that there must be.

    Raises:
        ValueError: There are none or too few, the dataset is endless, or they are not what the
            model takes: structure, shape, dtype, NaN, all equal, indices beyond an embedding.
    """
    is_dataset = isinstance(given, tf.data.Dataset)
    inputs = _of_dataset(given, name) if is_dataset else carried.inputs_of(given)
    expected = models.input_specs(model)
    if expected is None:
        expected = keras.tree.map_structure(_spec_of, inputs)
    _check_structure(inputs, expected, name)
    flat = [
        _checked(np.asarray(x), spec, f"{name}{_where(i, expected)}")
        for i, (x, spec) in enumerate(
            zip(keras.tree.flatten(inputs), keras.tree.flatten(expected), strict=True)
        )
    ]
    rows = {len(x) for x in flat}
    if len(rows) > 1:
        raise ValueError(f"{name}: the inputs have different numbers of rows: {sorted(rows)}.")
    if rows.pop() < fewest:
        raise ValueError(
            f"{name} has {len(flat[0])} rows. Expected at least {fewest}, better some hundred, as "
            "training sees them."
        )
    _check_indices(model, flat, name)
    return keras.tree.pack_sequence_as(expected, [x[:MOST_ROWS] for x in flat])


def made_for(model, seed=0):
    """Random inputs for a model: normal numbers, whole numbers that its embeddings take.

    Raises:
        ValueError: It has whole numbers as inputs whose range nothing tells.
    """
    rng = np.random.default_rng(seed)
    flat = keras.tree.flatten(models.input_specs(model))
    limits = _vocabularies(model)

    def made(i, spec):
        shape = [_MADE_ROWS, *(_MADE_SIZE if size is None else size for size in spec.shape[1:])]
        if spec.dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        limit = limits.get(i, 256 if spec.dtype == "uint8" else None)
        if limit is not None:
            return rng.integers(0, limit, shape).astype(spec.dtype)
        if "int" not in spec.dtype:
            return rng.normal(size=shape).astype(spec.dtype)
        raise ValueError(
            f"Input {i} of {model.name!r} takes whole numbers, and no Embedding right after it "
            "tells which. Pass some inputs: to_onnx(..., data=inputs)."
        )

    values = [made(i, spec) for i, spec in enumerate(flat)]
    return keras.tree.pack_sequence_as(models.input_specs(model), values)


def whole_batches(inputs, batch_size):
    """Inputs whose first rows come again until they fill batches of a fixed size."""
    rows = len(keras.tree.flatten(inputs)[0])
    if batch_size is None or rows % batch_size == 0:
        return inputs
    order = np.arange(-(-rows // batch_size) * batch_size) % rows
    return keras.tree.map_structure(lambda x: x[order], inputs)


def check_range(representative, data):
    """Raises if inputs to calibrate with have another scale than those to compare with."""
    pairs = zip(keras.tree.flatten(representative), keras.tree.flatten(data), strict=True)
    for i, (one, other) in enumerate(pairs):
        if not np.issubdtype(one.dtype, np.floating):
            continue
        a, b = float(np.max(np.abs(one))), float(np.max(np.abs(other)))
        if a > _OTHER_RANGE * b or b > _OTHER_RANGE * a:
            raise ValueError(
                f"representative_data and data differ in scale: input {i} reaches {a:.4g} in the "
                f"one and {b:.4g} in the other. Preprocess both as in training (pixels from 0 to "
                "255, or from 0 to 1)."
            )


def _of_dataset(dataset, name):
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name} is an endless dataset. Pass a part of it: dataset.take(10).")
    batches, rows = [], 0
    for element in dataset:
        structure = carried.inputs_of(element)
        flat = keras.tree.flatten(structure)
        if any(not isinstance(x, tf.Tensor) for x in flat):
            raise ValueError(f"{name} has ragged or sparse tensors. Pass dense ones.")
        # Batches that were padded to other lengths cannot join the first.
        if not batches or [x.shape[1:] for x in flat] == [x.shape[1:] for x in batches[0]]:
            batches.append([x.numpy() for x in flat])
            rows += len(batches[-1][0]) if batches[-1][0].ndim else 1
        if rows >= MOST_ROWS:
            break
    if not batches:
        raise ValueError(f"{name} is empty: the dataset has no batch.")
    if not all(x.ndim for x in batches[0]):
        raise ValueError(f"{name} is not batched. Pass dataset.batch(32).")
    joined = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return keras.tree.pack_sequence_as(structure, joined)


def _spec_of(array):
    dtype = str(np.asarray(array).dtype)
    return keras.KerasTensor(
        (None, *np.shape(array)[1:]), "float32" if dtype == "float64" else dtype
    )


def _check_structure(inputs, expected, name):
    flat, wanted = keras.tree.flatten(inputs), keras.tree.flatten(expected)
    keys = sorted(expected) if isinstance(expected, dict) else None
    have = sorted(inputs) if isinstance(inputs, dict) else None
    if len(flat) == len(wanted) and keys == have:
        if all(hasattr(x, "shape") or isinstance(x, np.ndarray) for x in flat):
            return
        raise ValueError(
            f"{name} must be arrays, or a tf.data.Dataset. Received: "
            f"{sorted({type(x).__name__ for x in flat})}. Not a function or a generator."
        )
    raise ValueError(
        f"{name} does not have the structure of the model's inputs. Expected: "
        f"{len(wanted)} input(s){'' if keys is None else f', a dict of {keys}'}. Received: "
        f"{len(flat)}{'' if have is None else f', a dict of {have}'}. Labels go into a tuple "
        "(inputs, labels)."
    )


def _where(i, expected):
    return f", input {i}" if len(keras.tree.flatten(expected)) > 1 else ""


def _checked(array, spec, name):
    """An array as the model's input, of its dtype."""
    fits = array.ndim == len(spec.shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} has the shape {array.shape}. Expected: {tuple(spec.shape)}, rows first."
        )
    is_whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    if not (is_whole or (np.issubdtype(array.dtype, np.floating) and "float" in spec.dtype)):
        raise ValueError(f"{name} has the dtype {array.dtype}. Expected: {spec.dtype}.")
    if len(array) == 0:
        raise ValueError(f"{name} is empty: it has no row.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} holds NaN or infinite values.")
    if np.all(array == array.flat[0]):
        raise ValueError(
            f"{name} is {array.flat[0]} throughout, which says nothing about the model."
        )
    return array.astype(spec.dtype)


def _vocabularies(model):
    """How many rows the embeddings right after the inputs have, by the inputs' numbers."""
    positions = {id(x): i for i, x in enumerate(getattr(model, "inputs", None) or [])}
    found: dict[int, int] = {}
    for layer in models.layers(model):
        if isinstance(layer, keras.layers.Embedding) and positions:
            position = positions.get(id(layer.input))
            if position is not None:
                found[position] = min(layer.input_dim, found.get(position, layer.input_dim))
    return found


def _check_indices(model, flat, name):
    for i, limit in _vocabularies(model).items():
        if flat[i].min() < 0 or flat[i].max() >= limit:
            raise ValueError(
                f"{name}, input {i} goes from {flat[i].min()} to {flat[i].max()}, beyond the "
                f"embedding that reads it, which has the rows 0 to {limit - 1}."
            )
