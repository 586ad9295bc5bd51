"""`distill`: distillation of a student that tensorflow-model-optimization trains for integers."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd._utils.validation import non_negative
from keras_kd.export import representative
from keras_kd.export.student import ExportableModel
from keras_kd.losses.activation import last_activation
from keras_kd.ops import arguments
from keras_kd.quantization.tfmot import convert, setup
from keras_kd.quantization.tfmot import student as tfmot_student
from keras_kd.quantization.tfmot.student import TfmotStudent
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import TeacherInputs
from keras_kd.training.arguments import mixture


def distill(
    teacher: Any,
    student: Any,
    data: Any,
    *,
    epochs: int = 5,
    temperature: float = 4.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
) -> TfmotStudent:
    """Distills a teacher into a student that tensorflow-model-optimization trains for int8.

    The second engine beside `keras_kd.quantization_aware`: it rounds as TensorFlow's own tools do,
    and takes tf_keras models, but only plain convolutional ones (see
    `print(keras_kd.quantization.tfmot.table())`), int8 only. The student is copied to tf_keras and
    trained by

        alpha * CE(labels) + beta * T^2 KL(teacher || student) + its regularizers

    with Adam and a learning rate that decays to 0. `Distiller` is not used, because it sees no
    variables in a tf_keras model: so the student learns from labels and soft targets only.

    `distil` is another name of this function, from earlier versions.

    Args:
        teacher: A Keras model, a function of inputs, or a `keras_kd.teachers.Teacher` that needs
            the inputs only (no cache). Logits `[batch, classes]`.
        student: A functional or Sequential Keras 3 model, trained in float, with one output, logits
            `[batch, classes]`; it stays as it is (one in mixed precision is copied in float32). Or
            such a model of tf_keras. With a momentum near 1 (0.99 is Keras' default) the statistics
            of BatchNormalization lag behind in short runs.
        data: A batched, finite `tf.data.Dataset` of `(inputs, labels[, weights])`, or a tuple of
            arrays. Labels are class indices, or probabilities `[batch, classes]`. With `alpha=0`
            inputs alone are enough, in a dataset.
        epochs: The number of passes over the data.
        temperature: `T`.
        alpha: Weight of the labels' loss, at least 0.
        beta: Weight of the teacher's loss, at least 0.
        learning_rate: The learning rate of the first step.
        batch_size: The batch size, where `data` is arrays.
        seed: The seed of the order of arrays.

    Returns:
        A `TfmotStudent`: `predict`, `to_tflite`, `history`.

    Raises:
        ValueError: tfmot does not take a layer, which is named; or an argument or the data cannot
            be used.
        ExportError: A file of the student would have operators in float. This is checked before
            training.
        ImportError: `pip install 'keras-kd[tfmot]'` is missing. tf-keras requires the distribution
            `tensorflow`: beside another one, such as tensorflow-cpu, install with --no-deps.

    Reference:
        Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import numpy as np
    from keras_kd.quantization import tfmot

    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = np.arange(64) % 3
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])

    done = tfmot.distill(teacher, student, (x, y), epochs=2)
    exported = done.to_tflite(pathlib.Path(tempfile.mkdtemp()) / "student.tflite")
    ```
    """
    alpha, beta = mixture(alpha, beta, None)
    _check_numbers(epochs, batch_size, learning_rate)
    validation.integer("seed", seed, 0)
    temperature, teacher = arguments.convert_temperature(temperature), keras_model.adapt(teacher)
    exportable = None
    # The layers are checked before the slow import.
    if isinstance(student, keras.Model):
        exportable = ExportableModel.from_keras(student, "tfmot.distill")
        nodes = convert.nodes_of(exportable.model)
    elif not any(kind.__module__.split(".")[0] == "tf_keras" for kind in type(student).__mro__):
        raise validation.invalid("student", "a Keras model, or one of tf_keras", repr(student))
    batches = setup.dataset(data, batch_size, seed)
    if alpha and not hasattr(batches.element_spec[1], "shape"):  # TensorFlow's spec of a None
        raise ValueError(f"`data` has no labels, but alpha={alpha}. Pass alpha=0.")
    libraries = setup.load()
    if exportable is None:
        exportable = tfmot_student.exportable_of(student)
        model, activation = convert.renamed(student, libraries.tf_keras), _activation_of(student)
    else:
        model = convert.to_tf_keras(exportable, nodes, libraries.tf_keras)
        activation = last_activation(exportable.model)
    _check_outputs(student.name, model, activation)
    samples = representative.read_samples(data, exportable, "data").with_optional_labels()
    quantized = _quantized(model, libraries)
    calibrate(quantized, setup.in_batches(samples.arrays))
    tfmot_student.check_integer_file(quantized, exportable)
    done = TfmotStudent(quantized, exportable, samples)
    trainer = Trainer(
        teacher,
        quantized,
        libraries.tf_keras,
        (alpha, beta),
        temperature,
        learning_rate,
        steps=epochs * setup.steps(batches),
    )
    for _ in range(epochs):
        done.history.append(trainer.epoch(batches))
    return done


# The name of `distill` in earlier versions.
distil = distill  # codespell:ignore distil


def _check_numbers(epochs, batch_size, learning_rate):
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        validation.integer(name, value, 1)
    if non_negative("learning_rate", learning_rate) == 0:
        raise validation.invalid("learning_rate", "a number above 0", repr(learning_rate))


def _activation_of(student):
    """The name of the activation of the last layer of a tf_keras model, or `None`."""
    return getattr(getattr(student.layers[-1], "activation", None), "__name__", None)


def _check_outputs(name, model, activation):
    """Raises unless the student has one output, logits."""
    if len(model.outputs) != 1 or model.outputs[0].shape.rank != 2:
        raise ValueError(
            f"The student {name!r} must have one output, logits [batch, classes]. Its "
            f"outputs have the shapes {[tuple(x.shape) for x in model.outputs]}."
        )
    if model.outputs[0].shape[-1] == 1:
        raise ValueError(
            f"The student {name!r} has one logit, whose softmax is always 1: there is nothing to "
            "learn from. Give it two outputs, one for each class, or use "
            "keras_kd.quantization_aware with keras_kd.losses.SigmoidKD."
        )
    if activation in ("softmax", "sigmoid"):
        raise ValueError(
            f"The student {name!r} ends in {activation}; soft targets need logits. Remove that "
            "activation: it changes no class."
        )


def _quantized(model, libraries):
    try:
        return libraries.tfmot.quantization.keras.quantize_model(model)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"tensorflow-model-optimization cannot quantize {model.name!r} (its names of layers "
            f"have the prefix kd_): {error} Use keras_kd.quantization_aware."
        ) from error


# The training of a tf_keras model.


class Trainer:
    """Trains a tf_keras model with labels and a teacher.

        loss = alpha * CE(labels) + beta * T^2 KL(teacher || student) + regularizers

    by Adam and a learning rate that decays to 0 along a cosine: with a constant one,
    quantization-aware training was worse than none.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
        model: A tf_keras model of one output, logits.
        tf_keras: The library.
        weights: `(alpha, beta)`.
        temperature: `T`.
        learning_rate: The rate of the first step.
        steps: How many steps there will be.
    """

    def __init__(
        self,
        teacher: Any,
        model: Any,
        tf_keras: Any,
        weights: tuple[float, float],
        temperature: float,
        learning_rate: float,
        steps: int,
    ):
        self._teacher, self._model = teacher, model
        self._alpha, self._beta = weights
        self._temperature = temperature
        rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        self._optimizer = tf_keras.optimizers.Adam(rate)
        self._step = tf.function(self._one_step, reduce_retracing=True)

    def epoch(self, batches: tf.data.Dataset) -> float:
        """Trains on each batch once; returns the mean of the batches' losses."""
        losses = [self._step(inputs, labels, weights) for inputs, labels, weights in batches]
        mean = float(tf.reduce_mean(losses))
        if not math.isfinite(mean):
            raise ValueError(
                f"The loss is {mean}: the learning rate is too high, or a label is wrong."
            )
        return mean

    def _one_step(self, inputs, labels, weights):
        soft = self._teacher.predict_batch(TeacherInputs(inputs, labels)) if self._beta else None
        with tf.GradientTape() as tape:
            logits = self._model(keras.tree.flatten(inputs), training=True)
            loss = tf.add_n([self._loss(logits, soft, labels, weights), *self._model.losses])
        variables = self._model.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _loss(self, logits, soft, labels, weights):
        """The mean of the weighted per-sample losses."""
        losses = tf.zeros(tf.shape(logits)[:-1])
        if self._alpha:
            losses += self._alpha * _cross_entropy(labels, logits)
        if self._beta:
            losses += self._beta * ops.soft_target_loss(logits, soft, self._temperature)
        if weights is not None:  # [batch] or [batch, 1]
            losses *= tf.reshape(tf.cast(weights, losses.dtype), tf.shape(losses))
        return tf.reduce_mean(losses)


def _cross_entropy(labels, logits):
    if labels.shape.rank == logits.shape.rank and labels.shape[-1] == logits.shape[-1]:
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
    labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(logits)[:-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


# Ranges of activations in a model of tfmot, set from data before it is trained.
#
# tfmot starts each range at [-6, 6] and moves it by a thousandth of the way in each step: after
# 700 steps half of the initial range is still there, and a shorter run would train and export with
# ranges that have nothing to do with the data.


# How far `MovingAverageQuantizer` moves a range in a step.
_RATE = 1e-3
# Batches over which the ranges are averaged.
_BATCHES = 10
# A range that changes by less than that, relatively, has settled.
_SETTLED = 1e-2
_BOUNDS = ("_min", "_max")


def calibrate(model: Any, batches: Sequence[Any]) -> None:
    """Sets the ranges to those of some batches; weights and statistics stay as they are.

    Args:
        model: A model of `quantize_model`.
        batches: A list of batches of inputs.
    """
    ranges = [v for v in model.variables if _is_moving(v.name)]
    others = [v for v in model.variables if not _is_bound(v.name)]
    before = [variable.numpy() for variable in others]
    # Behind a range that is too narrow all others are too; each pass corrects at least one.
    for _ in range(len(ranges)):
        moved = _moved(model, batches[0], ranges, 1.0)
        if moved < _SETTLED:
            break
    for i, batch in enumerate(batches[:_BATCHES]):
        _moved(model, batch, ranges, 1 / (i + 1))
    for variable, value in zip(others, before, strict=True):
        variable.assign(value)


def _is_bound(name):
    return name.split(":")[0].endswith(_BOUNDS)


def _is_moving(name):
    """Whether a variable is a bound of an activation.

    Bounds of weights, and of inputs (`quantize_layer`, the widest range of all batches), follow the
    values at once.
    """
    layer, _, bound = name.rpartition("/")
    return _is_bound(name) and "kernel" not in bound and not layer.startswith("quantize_layer")


def _moved(model, batch, ranges, rate):
    """Moves the ranges toward those of a batch; returns the largest relative change."""
    old = [variable.numpy().astype(np.float64) for variable in ranges]
    model(batch, training=True)
    changes = [
        (variable.numpy() - before) / _RATE for variable, before in zip(ranges, old, strict=True)
    ]
    for variable, before, change in zip(ranges, old, changes, strict=True):
        variable.assign(before + rate * change)
    sizes = [max(abs(before), 1e-3) for before in old]
    return max(abs(change) / size for change, size in zip(changes, sizes, strict=True))
