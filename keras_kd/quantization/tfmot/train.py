"""`distil`: distillation of a student that tensorflow-model-optimization trains for integers."""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd._utils.validation import non_negative
from keras_kd.export import comparison, representative, source
from keras_kd.losses.activation import last_activation
from keras_kd.ops import arguments
from keras_kd.quantization.tfmot import convert, setup
from keras_kd.quantization.tfmot import student as tfmot_student
from keras_kd.quantization.tfmot.student import TfmotStudent, signature_of
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import TeacherInputs
from keras_kd.training.arguments import mixture


def distil(
    teacher,
    student,
    data,
    *,
    epochs=5,
    temperature=4.0,
    alpha=0.5,
    beta=0.5,
    learning_rate=1e-3,
    batch_size=32,
    seed=0,
):
    """Trains a student for int8 with tensorflow-model-optimization while a teacher teaches it.

    The second engine beside `keras_kd.quantization_aware`: it rounds as TensorFlow's own tools do,
    and takes tf_keras models, but only plain convolutional ones (see
    `print(keras_kd.quantization.tfmot.table())`), int8 only. The student is copied to tf_keras and
    trained by

        alpha * CE(labels) + beta * T^2 KL(teacher || student) + its regularisers

    with Adam and a learning rate that decays to 0. `Distiller` is not used, because it sees no
    variables in a tf_keras model: so only the labels and the soft targets teach here.

    Args:
        teacher: A Keras model, a function of inputs, or a `keras_kd.teachers.Teacher` that needs
            the inputs only (no cache). Logits `[batch, classes]`.
        student: A functional or Sequential Keras 3 model, trained in float, with one output, logits
            `[batch, classes]`; it stays as it is (one in mixed precision is copied in float32). Or
            such a model of tf_keras. Where BatchNormalization has a momentum near 1 (0.99 is Keras'
            default), short runs leave its statistics behind.
        data: A batched, finite `tf.data.Dataset` of `(inputs, labels[, weights])`, or a tuple of
            arrays. Labels are class indices, or probabilities `[batch, classes]`. With `alpha=0`
            inputs alone are enough, in a dataset.
        epochs: How often the data is gone through.
        temperature: `T`.
        alpha: Factor of the loss of the labels, at least 0.
        beta: Factor of the teacher's, at least 0.
        learning_rate: Of the first step.
        batch_size: Rows of a batch, where `data` is arrays.
        seed: Of the order of arrays.

    Returns:
        A `TfmotStudent`: `predict`, `to_tflite`, `history`.

    Raises:
        ValueError: tfmot does not take a layer, which is named; or an argument or the data cannot
            be used.
        ExportError: A file of the student would have operators that are left in float. That is
            looked at before any training.
        ImportError: `pip install 'keras-kd[tfmot]'` is missing. tf-keras asks for the distribution
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

    done = tfmot.distil(teacher, student, (x, y), epochs=2)
    exported = done.to_tflite(pathlib.Path(tempfile.mkdtemp()) / "student.tflite")
    ```
    """
    alpha, beta = mixture(alpha, beta, None)
    _check_numbers(epochs, batch_size, learning_rate)
    validation.integer("seed", seed, 0)
    temperature, teacher = arguments.temperature(temperature), keras_model.adapt(teacher)
    # What can be told is told before the heavy import.
    if isinstance(student, keras.Model):
        student = source.checked(student, "tfmot.distil")
        convert.of(student)
    elif not any(kind.__module__.split(".")[0] == "tf_keras" for kind in type(student).__mro__):
        raise validation.invalid("student", "a Keras model, or one of tf_keras", repr(student))
    batches = setup.dataset(data, batch_size, seed)
    if alpha and not hasattr(batches.element_spec[1], "shape"):  # TensorFlow's spec of a None
        raise ValueError(f"`data` has no labels, but alpha={alpha}. Pass alpha=0.")
    libraries = setup.load()
    model, signature = _in_tf_keras(student, libraries.tf_keras)
    arrays, labels = representative.read(data, signature, "data")
    quantized = _quantized(model, libraries)
    calibrate(quantized, setup.in_batches(arrays))
    tfmot_student.check(quantized, source.input_names(signature))
    rows = comparison.Rows(arrays, labels, are_promised=False)
    done = TfmotStudent(quantized, signature, rows)
    steps = epochs * setup.steps(batches)
    trainer = Trainer(
        teacher,
        quantized,
        libraries.tf_keras,
        (alpha, beta),
        temperature,
        learning_rate,
        steps,
    )
    for _ in range(epochs):
        done.history.append(trainer.epoch(batches))
    return done


def _check_numbers(epochs, batch_size, learning_rate):
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        validation.integer(name, value, 1)
    if non_negative("learning_rate", learning_rate) == 0:
        raise validation.invalid("learning_rate", "a number above 0", repr(learning_rate))


def _in_tf_keras(student, tf_keras):
    """The student as a tf_keras model, and a Keras 3 model with its inputs."""
    if isinstance(student, tf_keras.Model):
        model, signature = convert.renamed(student, tf_keras), signature_of(student)
        last = model.layers[-1]
        activation = getattr(getattr(last, "activation", None), "__name__", None)
    else:
        signature = source.checked(student, "tfmot.distil")
        model = convert.to_tf_keras(signature, tf_keras)
        activation = last_activation(signature)
    if len(model.outputs) != 1 or model.outputs[0].shape.rank != 2:
        raise ValueError(
            f"The student {student.name!r} must have one output, logits [batch, classes]. Its "
            f"outputs have the shapes {[tuple(x.shape) for x in model.outputs]}."
        )
    if model.outputs[0].shape[-1] == 1:
        raise ValueError(
            f"The student {student.name!r} has one logit, whose softmax is 1 whatever it is: there "
            "is nothing to learn from. Give it two outputs, one for each class, or use "
            "keras_kd.quantization_aware with keras_kd.losses.SigmoidKD."
        )
    if activation in ("softmax", "sigmoid"):
        raise ValueError(
            f"The student {student.name!r} ends in {activation}; soft targets need logits. Take "
            "that activation away: it changes no class."
        )
    return model, signature


def _quantized(model, libraries):
    try:
        return libraries.tfmot.quantization.keras.quantize_model(model)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"tensorflow-model-optimization cannot quantize {model.name!r} (its names of layers "
            f"have the prefix kd_): {error} Use keras_kd.quantization_aware."
        ) from error


# Distillation of a tf_keras model. `Distiller` cannot: it would train none of its variables.


class Trainer:
    """Trains a tf_keras model with labels and a teacher.

        loss = alpha * CE(labels) + beta * T^2 KL(teacher || student) + regularisers

    by Adam and a learning rate that decays to 0 along a cosine: with a constant one training for
    integers was measured to be worse than none.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
        model: A tf_keras model of one output, logits.
        tf_keras: The library.
        weights: `(alpha, beta)`.
        temperature: `T`.
        learning_rate: The rate of the first step.
        steps: How many steps there will be.
    """

    def __init__(self, teacher, model, tf_keras, weights, temperature, learning_rate, steps):
        self._teacher, self._model = teacher, model
        self._alpha, self._beta = weights
        self._temperature = temperature
        rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        self._optimizer = tf_keras.optimizers.Adam(rate)
        self._step = tf.function(self._one_step, reduce_retracing=True)

    def epoch(self, batches):
        """Trains on each batch once; returns the mean loss of a batch."""
        losses = [self._step(inputs, labels, weights) for inputs, labels, weights in batches]
        mean = float(tf.reduce_mean(losses))
        if not math.isfinite(mean):
            raise ValueError(
                f"The loss is {mean}: the learning rate is too high, or a label wrong."
            )
        return mean

    def _one_step(self, inputs, labels, weights):
        soft = self._teacher.predict_batch(TeacherInputs(inputs, labels)) if self._beta else None
        with tf.GradientTape() as tape:
            logits = self._model(keras.tree.flatten(inputs), training=True)
            loss = tf.add_n([self._of_rows(logits, soft, labels, weights), *self._model.losses])
        variables = self._model.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _of_rows(self, logits, soft, labels, weights):
        rows = tf.zeros(tf.shape(logits)[:-1])
        if self._alpha:
            rows += self._alpha * _cross_entropy(labels, logits)
        if self._beta:
            rows += self._beta * ops.soft_target_loss(logits, soft, self._temperature)
        if weights is not None:  # [batch] or [batch, 1]
            rows *= tf.reshape(tf.cast(weights, rows.dtype), tf.shape(rows))
        return tf.reduce_mean(rows)


def _cross_entropy(labels, logits):
    if labels.shape.rank == logits.shape.rank and labels.shape[-1] == logits.shape[-1]:
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
    labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(logits)[:-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


# Ranges of activations in a model of tfmot, set from data before it is trained.
#
# tfmot starts each range at [-6, 6] and moves it by a thousandth of the way in each step: after
# 700 steps half of what it started with is still there, and a shorter run trains and exports with
# ranges that have nothing to do with the data.


# How far `MovingAverageQuantizer` moves a range in a step.
_RATE = 1e-3
# Batches over which the ranges are averaged.
_BATCHES = 10
# A range that changes by less than that, relatively, has settled.
_SETTLED = 1e-2
_BOUNDS = ("_min", "_max")


def calibrate(model, batches):
    """Sets the ranges to those of some batches; weights and statistics stay as they are.

    Args:
        model: A model of `quantize_model`.
        batches: A list of inputs, each what the model is called with.
    """
    ranges = [v for v in model.variables if _is_moving(v.name)]
    others = [v for v in model.variables if not _is_bound(v.name)]
    before = [variable.numpy() for variable in others]
    # Behind a range that is too narrow all others are; each pass puts at least one more right.
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

    Those of weights, and of inputs (`quantize_layer`, the widest range of all batches), follow what
    they see at once.
    """
    layer, _, bound = name.rpartition("/")
    return _is_bound(name) and "kernel" not in bound and not layer.startswith("quantize_layer")


def _moved(model, batch, ranges, rate):
    """Moves the ranges towards those of a batch; how far, relative to their width, at most."""
    old = [variable.numpy().astype(np.float64) for variable in ranges]
    model(batch, training=True)
    changes = [
        (variable.numpy() - before) / _RATE for variable, before in zip(ranges, old, strict=True)
    ]
    for variable, before, change in zip(ranges, old, changes, strict=True):
        variable.assign(before + rate * change)
    sizes = [max(abs(before), 1e-3) for before in old]
    return max(abs(change) / size for change, size in zip(changes, sizes, strict=True))
