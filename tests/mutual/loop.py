"""Linear peers, and a float64 NumPy loop that trains them by the definitions."""

import keras
import numpy as np

import keras_kd as kd
from tests import reference
from tests.distiller import linear

L2 = 0.03
RATES = (0.2, 0.05)


def peers(count=2):
    """Models of one dense layer; the second one is regularized."""
    regularized = {"kernel_regularizer": keras.regularizers.L2(L2)}
    return [linear.linear(10 + i, **(regularized if i == 1 else {})) for i in range(count)]


def optimizers():
    """SGD for the first peer, Adam for the second."""
    return [keras.optimizers.SGD(RATES[0]), keras.optimizers.Adam(RATES[1])]


def compiled(models, *args, mode="eager", optimizer=None, metrics=None, **kwargs):
    distiller = kd.MutualDistiller(models, *args, **kwargs)
    optimizer = optimizers() if optimizer is None else optimizer
    loss = linear.from_logits()
    distiller.compile(optimizer, loss=loss, metrics=metrics, **linear.MODES[mode])
    return distiller


class Loop:
    """Trains copies of two linear peers at once: both gradients first, then both steps."""

    def __init__(self, models, alpha=1.0, beta=1.0, temperature=1.0, teaching=((0, 1), (1, 0))):
        self.weights = [[np.float64(w) for w in model.get_weights()] for model in models]
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.teaching = teaching
        self.moments = [[0.0, 0.0] for _ in range(2)]  # Adam's, of kernel and bias
        self.steps = 0

    def terms(self, x, y, row):
        """`(losses, gradients)` of each peer."""
        logits = [np.float64(x) @ kernel + bias for kernel, bias in self.weights]
        row = row / len(x)
        for i in range(2):
            own, factor, other = logits[i], self.teaching[i][1 - i], logits[1 - i]
            hard = (row * reference.hard_loss(own, y)).sum()
            arguments = own, other, self.temperature
            soft = factor * (row * reference.soft_target_loss(*arguments)).sum()
            slope = self.alpha * reference.hard_gradient(own, y)
            slope = slope + self.beta * factor * reference.soft_target_gradient(*arguments)
            slope = slope * row[:, None]
            gradients = [np.float64(x).T @ slope, slope.sum(0)]
            total = self.alpha * hard + self.beta * soft
            if i == 1:
                total += L2 * (self.weights[1][0] ** 2).sum()
                gradients[0] = gradients[0] + 2 * L2 * self.weights[1][0]
            losses = {"loss": total, "hard_loss": hard, "soft_targets": soft}
            yield {f"peer_{i}_{key}": value for key, value in losses.items()}, gradients

    def step(self, x, y, sample_weight=None):
        row = np.ones(len(x)) if sample_weight is None else np.float64(sample_weight)
        losses, gradients = zip(*self.terms(x, y, row), strict=True)
        self.steps += 1
        self.weights[0] = [
            w - RATES[0] * g for w, g in zip(self.weights[0], gradients[0], strict=True)
        ]
        self.weights[1] = [self.adam(k, gradients[1][k]) for k in range(2)]
        logs = losses[0] | losses[1]
        return logs | {"loss": logs["peer_0_loss"] + logs["peer_1_loss"]}

    def adam(self, k, gradient):
        first, second = self.moments[0], self.moments[1]
        first[k] = 0.9 * first[k] + 0.1 * gradient
        second[k] = 0.999 * second[k] + 0.001 * gradient**2
        rate = RATES[1] * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        return self.weights[1][k] - rate * first[k] / (np.sqrt(second[k]) + 1e-7)

    def epoch(self, x, y, sample_weight=None, batch_size=8):
        """The history of an unshuffled epoch: means over the rows."""
        sums = {}
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            weight = None if sample_weight is None else sample_weight[rows]
            for key, value in self.step(x[rows], y[rows], weight).items():
                sums[key] = sums.get(key, 0.0) + value * len(x[rows])
        return {key: [value / len(x)] for key, value in sums.items()}


def assert_same_weights(distiller, loop):
    # Adam makes steps of full size of gradients that are nothing but rounding errors.
    tolerances = 5e-6, 1e-4
    for peer, expected, tolerance in zip(distiller.peers, loop.weights, tolerances, strict=True):
        for one, other in zip(peer.get_weights(), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
