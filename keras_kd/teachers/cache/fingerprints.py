"""Fingerprints: of the samples of a batch, and of a teacher."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils.serialization import without_places
from keras_kd.models import paths
from keras_kd.teachers import keras_model, protocol
from keras_kd.teachers.cache.format import CacheError


def fingerprint_samples(inputs: Any) -> tf.Tensor:
    """A number for each sample that tells it from others, in TensorFlow operations.

    Args:
        inputs: Tensors `[batch, ...]` of any dtype, ragged and sparse ones too, or a structure.

    Returns:
        `[batch]`, int64: FarmHash64 of the sample's bytes.
    """
    parts = [tf.fingerprint(dense) for each in _leaves(inputs) for dense in _dense(each)]
    joined = parts[0] if len(parts) == 1 else tf.fingerprint(tf.concat(parts, axis=1))
    return tf.bitcast(joined, tf.int64)


def _leaves(inputs: Any) -> list:
    leaves = [leaf for leaf in tf.nest.flatten(inputs) if leaf is not None]
    if not leaves:
        raise ValueError("The inputs are empty: there is nothing to tell samples apart by.")
    return leaves


def _dense(tensor: Any) -> list[tf.Tensor]:
    """A tensor as dense ones, which differ where its samples do."""
    if isinstance(tensor, tf.RaggedTensor):
        return [tensor.to_tensor(), *(_column(x) for x in tensor.nested_row_lengths()[:1])]
    if isinstance(tensor, tf.SparseTensor):
        return [tf.sparse.to_dense(tensor)]
    tensor = tf.convert_to_tensor(tensor)
    return [_column(tensor) if tensor.shape.rank == 1 and tensor.dtype != tf.string else tensor]


def _column(vector: tf.Tensor) -> tf.Tensor:
    return vector[:, None]


def of_bytes(parts: Iterable[bytes]) -> str:
    """The digest of the fingerprints of several batches, in hexadecimal."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def fingerprint_teacher(teacher: protocol.Teacher) -> str | None:
    """A text that tells a teacher from others, or `None` where there is none.

    Weights and configurations count, names do not: Keras numbers them differently in each process.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
    """
    own = getattr(teacher, "fingerprint", None)
    if callable(own):
        return own()
    if isinstance(teacher, keras_model.FunctionTeacher):
        return None
    try:
        parts = [_text(teacher), *(_text(layer) for _, _, layer in paths.walk(teacher))]
    except ValueError:  # a function of the user's own, which has no lasting name
        return None
    digest = hashlib.sha256("".join(parts).encode())
    for weight in teacher.weights:
        value = np.ascontiguousarray(weight.numpy())
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _text(layer: Any) -> str:
    """A layer's type and its own configuration, without that of layers inside of it."""
    kind = type(layer).__name__
    if isinstance(layer, keras.Model) or not isinstance(layer, keras.layers.Layer):
        return kind
    try:
        config = layer.get_config()
    except NotImplementedError:  # a layer of the user's own without a configuration
        return kind
    return kind + json.dumps(
        _plain(without_places(config)), sort_keys=True, default=lambda x: type(x).__name__
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = {"seed", "shared_object_id"} | ({"name"} if "trainable" in value else set())
        if value.get("class_name") in ("Functional", "Sequential"):
            return None
        if value.get("compile_config"):  # of a model of its own class: its optimizer is no output
            value = {**value, "compile_config": {}}  # as of one that was never compiled
        return {k: _plain(v) for k, v in value.items() if k not in left_out}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def check_teacher(manifest: dict, teacher: Any) -> None:
    """Raises unless a cache is of this teacher, or of the one with this fingerprint.

    Args:
        manifest: The manifest of the cache.
        teacher: Whatever `Distiller` takes, a text, or `None` for any.
    """
    if teacher is None:
        return
    expected = (
        teacher if isinstance(teacher, str) else fingerprint_teacher(keras_model.adapt(teacher))
    )
    if expected != manifest["teacher"] or expected is None:
        raise CacheError(
            f"The cache is of another teacher: its fingerprint is {manifest['teacher']!r}, this "
            f"teacher's {expected!r} (None: a function has none; pass a text to cache_teacher as "
            "`fingerprint`). Write a cache of this teacher."
        )
