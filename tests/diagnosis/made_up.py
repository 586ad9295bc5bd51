"""Teachers and students whose inputs are their logits: every output can be chosen."""

import keras
import numpy as np

import keras_kd as kd


def calibrated(rows, classes=5, scale=2.0, seed=0):
    """Logits, and labels that are drawn with just the probabilities that the logits say."""
    rng = np.random.default_rng([seed, rows, classes])
    logits = scale * rng.standard_normal((rows, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    return logits.astype("float32"), labels


def answers(labels, classes, accuracy, margin=4.0, seed=0):
    """Logits that are right in a share of the rows; in the others any other class."""
    rng = np.random.default_rng([seed, len(labels), classes])
    other = (labels + rng.integers(1, classes, len(labels))) % classes
    predicted = np.where(rng.random(len(labels)) < accuracy, labels, other)
    noise = rng.standard_normal((len(labels), classes))
    return (margin * np.eye(classes)[predicted] + 0.5 * noise).astype("float32")


def balanced(rows, classes):
    return np.arange(rows) % classes


def slicer(width, first, end):
    """A Keras model that gives some of its inputs."""
    inputs = keras.Input((width,))
    return keras.Model(inputs, inputs[:, first:end])


def diagnose(logits, labels, student=None, validation=None, weights=None, **kwargs):
    """`kd.diagnose` of given logits.

    `student`: its logits, if there is one; `validation`: `(logits, labels)` of the teacher (the
    student's are zeros).
    """
    classes = logits.shape[-1]
    of_student = None
    if student is not None:
        of_student = slicer(classes + student.shape[-1], classes, classes + student.shape[-1])
        logits = np.concatenate([logits, student], axis=-1)
    if validation is not None:
        zeros = np.zeros((len(validation[0]), logits.shape[-1] - classes), "float32")
        validation = np.concatenate([validation[0], zeros], axis=-1), validation[1]
    data = (logits, labels) if weights is None else (logits, labels, weights)
    kwargs.setdefault("print_fn", None)
    return kd.diagnose(lambda x: x[:, :classes], of_student, data, validation, **kwargs)


def finding(diagnosis, check):
    """The one finding of a check."""
    (found,) = [each for each in diagnosis.findings if each.check == check]
    return found


def severities(diagnosis):
    return {each.check: each.severity for each in diagnosis.findings}
