"""Linear models, and a float64 NumPy loop that trains a linear student by the definitions."""

import keras
import numpy as np

import keras_kd as kd
from tests import reference
from tests.matrix import Mode

FEATURES, CLASSES, ROWS = 5, 4, 23
# `compile` arguments of the ways in which Keras runs a step.
MODES = {
    Mode("eager"): {"run_eagerly": True},
    Mode("graph"): {"run_eagerly": False, "jit_compile": False},
    Mode("xla"): {"jit_compile": True},
}


def linear(seed, classes=CLASSES, features=FEATURES, **kwargs):
    """A model of one dense layer, with weights of size 1."""
    model = keras.Sequential(
        [keras.Input((features,)), keras.layers.Dense(classes, name="dense", **kwargs)]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def pair(**kwargs):
    """A teacher and a student."""
    return linear(1, **kwargs), linear(2, **kwargs)


def data(rows=ROWS, classes=CLASSES, features=FEATURES, seed=0):
    """Inputs and labels."""
    rng = np.random.default_rng([seed, rows])
    return rng.normal(size=(rows, features)).astype("float32"), rng.integers(classes, size=rows)


def weights_of(rows=ROWS):
    """Sample weights between 0 and 2; every third is 0."""
    weights = np.random.default_rng(9).uniform(0.1, 2.0, rows).astype("float32")
    weights[::3] = 0.0
    return weights


def from_logits():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(teacher, student, *args, learning_rate=0.1, mode="eager", compile_args=(), **kwargs):
    """A distiller compiled with SGD and the sparse cross-entropy of logits."""
    distiller = kd.Distiller(teacher, student, *args, **kwargs)
    options = {"loss": from_logits(), **MODES[mode], **dict(compile_args)}
    options.setdefault("optimizer", keras.optimizers.SGD(learning_rate))
    distiller.compile(**options)
    return distiller


def logits_of(model, x):
    kernel, bias = (np.float64(weight) for weight in model.get_weights())
    return np.float64(x) @ kernel + bias


class Loop:
    """Trains a copy of a linear student in float64, from the definitions.

    `alpha`, `beta`, `temperature` and `weight` may be changed between steps.
    """

    def __init__(self, teacher, student, learning_rate=0.1, **numbers):
        self.teacher = teacher
        self.weights = [np.float64(weight) for weight in student.get_weights()]
        self.learning_rate = learning_rate
        self.alpha = self.beta = 0.5
        self.temperature, self.weight, self.divergence = 4.0, 1.0, "forward_kl"
        self.__dict__.update(numbers)

    def gradients(self, x, y, sample_weight=None):
        """`(losses, gradients)` of one batch; the losses as the history names them."""
        x = np.float64(x)
        kernel, bias = self.weights
        student, teacher = x @ kernel + bias, logits_of(self.teacher, x)
        row = np.ones(len(x)) if sample_weight is None else np.float64(sample_weight)
        row = row / len(x)
        soft_args = student, teacher, self.temperature, self.divergence
        hard = (row * reference.hard_loss(student, y)).sum()
        soft = (row * reference.soft_target_loss(*soft_args)).sum()
        hard_slope = reference.hard_gradient(student, y)
        soft_slope = reference.soft_target_gradient(*soft_args)
        slope = self.alpha * hard_slope + self.beta * self.weight * soft_slope
        slope *= row[:, None]
        total = self.alpha * hard + self.beta * self.weight * soft
        losses = {"loss": total, "hard_loss": hard, "soft_targets": soft}
        return losses, [x.T @ slope, slope.sum(0)]

    def apply(self, gradients):
        steps = zip(self.weights, gradients, strict=True)
        self.weights = [weight - self.learning_rate * gradient for weight, gradient in steps]

    def step(self, x, y, sample_weight=None):
        losses, gradients = self.gradients(x, y, sample_weight)
        self.apply(gradients)
        return losses

    def fit(self, x, y, sample_weight=None, batch_size=8, epochs=1):
        """The history of unshuffled epochs: means over the rows, the last batch may be smaller."""
        history = {"loss": [], "hard_loss": [], "soft_targets": []}
        for _ in range(epochs):
            sums = dict.fromkeys(history, 0.0)
            for start in range(0, len(x), batch_size):
                rows = slice(start, start + batch_size)
                weight = None if sample_weight is None else sample_weight[rows]
                for key, value in self.step(x[rows], y[rows], weight).items():
                    sums[key] += value * len(x[rows])
            for key, value in sums.items():
                history[key].append(value / len(x))
        return history


def assert_same_weights(student, loop, tolerance=2e-6):
    for actual, expected in zip(student.get_weights(), loop.weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def assert_same_values(actual, expected, keys=None, tolerance=1e-5):
    """The named values of two dicts, such as histories; all of `expected` by default."""
    for key in keys or expected:
        np.testing.assert_allclose(
            actual[key], expected[key], rtol=tolerance, atol=1e-7, err_msg=key
        )
