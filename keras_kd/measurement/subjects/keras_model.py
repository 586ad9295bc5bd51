"""A Keras model that is measured."""

import os

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models, symbolic_pass
from keras_kd.measurement.size import of_keras
from keras_kd.measurement.subjects import base


class KerasSubject(base.Subject):
    """Runs a Keras model in inference, as a TensorFlow function.

    Args:
        model: A `keras.Model`.
        name: A name; default: the model's.
    """

    kind = "keras"

    def __init__(self, model, name=None):
        self.model, self.name = model, name or model.name
        self._forward = tf.function(
            lambda x: model(x, training=False), autograph=False, reduce_retracing=True
        )

    def promised(self, inputs):
        outputs = symbolic_pass.check("data", inputs, "model", self.model)
        if outputs is None:
            return None
        return {name: tuple(x.shape) for name, x in by_name(self.model, outputs).items()}

    def predict(self, inputs):
        given = tensors(inputs)
        # Called by itself, TensorFlow takes several models for one that is traced again and again,
        # and warns of it.
        return named(self.model, self._forward.get_concrete_function(given)(given))

    def size(self, inputs):
        return of_keras.of_keras(self.model, tensors(inputs))

    def timed(self, inputs):
        given = tensors(inputs)
        fixed = tf.function(self._forward.python_function, autograph=False)
        forward = fixed.get_concrete_function(given)
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
        facts = {"runtime": "keras", "threads": threads, "batch_size": 1}
        notes = [f"latency: of TensorFlow's own {threads} threads; `threads` is for files."]
        if tf.config.list_logical_devices("GPU"):
            notes.append("latency: TensorFlow sees a GPU, and may run the model there.")
        return lambda: keras.tree.map_structure(np.asarray, forward(given)), facts, notes


def tensors(inputs):
    """Arrays as the model takes them; NumPy's own float64 is taken for an accident, as by `fit`."""

    def tensor(x):
        x = tf.convert_to_tensor(x)
        return tf.cast(x, keras.config.floatx()) if x.dtype == tf.float64 else x

    return keras.tree.map_structure(tensor, inputs)


def named(model, outputs):
    """`{name: array}` of a model's outputs in any structure; a dict in the order of its names."""
    return {name: np.asarray(x) for name, x in by_name(model, outputs).items()}


def by_name(model, outputs):
    """`{name: output}` of a model's outputs; a dict in the order of its names."""
    if isinstance(outputs, dict):  # a file has this order too, and an index means the same
        return {name: outputs[name] for name in sorted(outputs)}
    flat = keras.tree.flatten(outputs)
    names = models.output_names(model, outputs) or [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))
