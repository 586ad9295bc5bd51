"""`distil`: distillation of a student that tensorflow-model-optimization trains for integers."""

import keras

from keras_kd import checks
from keras_kd.configuration import mixture
from keras_kd.export import comparison, representative, students
from keras_kd.losses.activation import last_activation
from keras_kd.losses.base import non_negative
from keras_kd.ops import arguments
from keras_kd.quantization.tfmot import bridge, exporting, feeding, importing, nodes, ranges
from keras_kd.quantization.tfmot.student import TfmotStudent, signature_of
from keras_kd.quantization.tfmot.training import Trainer
from keras_kd.teachers import keras_model


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
    checks.integer("seed", seed, 0)
    temperature, teacher = arguments.temperature(temperature), keras_model.adapt(teacher)
    # What can be told is told before the heavy import.
    if isinstance(student, keras.Model):
        student = students.checked(student, "tfmot.distil")
        nodes.of(student)
    elif not any(kind.__module__.split(".")[0] == "tf_keras" for kind in type(student).__mro__):
        raise arguments.invalid("student", "a Keras model, or one of tf_keras", repr(student))
    batches = feeding.dataset(data, batch_size, seed)
    if alpha and not hasattr(batches.element_spec[1], "shape"):  # TensorFlow's spec of a None
        raise ValueError(f"`data` has no labels, but alpha={alpha}. Pass alpha=0.")
    libraries = importing.load()
    model, signature = _in_tf_keras(student, libraries.tf_keras)
    arrays, labels = representative.read(data, signature, "data")
    quantized = _quantized(model, libraries)
    ranges.calibrate(quantized, feeding.in_batches(arrays))
    exporting.check(quantized, students.input_names(signature))
    rows = comparison.Rows(arrays, labels, are_promised=False)
    done = TfmotStudent(quantized, signature, rows)
    steps = epochs * feeding.steps(batches)
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
        checks.integer(name, value, 1)
    if non_negative("learning_rate", learning_rate) == 0:
        raise arguments.invalid("learning_rate", "a number above 0", repr(learning_rate))


def _in_tf_keras(student, tf_keras):
    """The student as a tf_keras model, and a Keras 3 model with its inputs."""
    if isinstance(student, tf_keras.Model):
        model, signature = bridge.renamed(student, tf_keras), signature_of(student)
        last = model.layers[-1]
        activation = getattr(getattr(last, "activation", None), "__name__", None)
    else:
        signature = students.checked(student, "tfmot.distil")
        model = bridge.to_tf_keras(signature, tf_keras)
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
