"""`Cluster`: limits the student's weights to a few distinct values during `fit`."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd.compression.base import CompressionCallback, kernels_of

_STATE = "cluster"
KINDS = ("kmeans", "linear", "density")
_ITERATIONS = 20


class Cluster(CompressionCallback):
    """Lets each kernel of the student have at most `clusters` distinct values while `fit` runs.

    Each weight `w` is replaced by the nearest of the kernel's values `c`. A step changes the
    underlying weights by what the optimizer does to the clustered ones (straight-through), and the
    values by the mean of that over the weights of each value:

    `w += d,  c_j += mean of d over the weights of value c_j,  then the nearest c of each w`

    After every step the model has the clustered weights, so that validation and files see them.
    This is the algorithm of tensorflow-model-optimization (which takes no Keras 3 models), exactly
    for gradient descent; Adam and others adapt their steps weight by weight here, value by value
    there. Use it to fine-tune a trained student with a small learning rate.

    What it does not do: a clustered `.tflite` or `.onnx` file is as large and as slow as before.
    Only its compressed size shrinks: of a CNN for MNIST of 168,664 bytes, gzip made 47,822 with 16
    values, without loss of accuracy.

    This causes no retracing. A resumed distiller continues where it was; a plain model starts again
    from its clustered weights. The student stays a plain Keras model. With
    BatchNormalization, run some batches through the student afterwards (`training=True`), so that
    its statistics fit.

    Args:
        clusters: The number of values, at least 2.
        layers: See `Sparsify`.
        initial: The initial values: `"kmeans"`, `"linear"` (equal steps from the smallest to
            the largest weight) or `"density"` (equally many weights each).
        preserve_sparsity: Whether weights that are zero when `fit` begins stay zero, and zero is
            one of the values: for a student that was pruned.
        student: The model to cluster; default: the distiller's student, or the model of `fit`.

    Raises:
        ValueError: An argument is wrong; in `fit`: there is no such layer.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(x, y, callbacks=[kd.callbacks.Cluster(clusters=4)], verbose=0)
    assert len(np.unique(student.layers[0].kernel)) <= 4
    ```

    Reference: Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning,
    Trained Quantization and Huffman Coding", https://arxiv.org/abs/1510.00149
    """

    def __init__(
        self,
        clusters: int = 16,
        layers: Any = None,
        initial: str = "kmeans",
        preserve_sparsity: bool = False,
        student: Any = None,
    ) -> None:
        super().__init__(student, layers)
        self.clusters = validation.integer("clusters", clusters, 2)
        self.initial = validation.one_of("initial", initial, KINDS)
        self.preserve_sparsity = validation.boolean("preserve_sparsity", preserve_sparsity)
        self._states: list[tuple] = []

    def begin(self, is_resumed: bool) -> None:
        del is_resumed  # whether there are states shows it
        kept = getattr(self.model, "callback_states", {})
        with self.model.distribute_strategy.scope():
            self._states = [self._state(i, kernel, kept) for i, kernel in enumerate(self.kernels)]
        for i, (weights, values, _) in enumerate(self._states):
            # Variables, so that saving the distiller saves what they hold at that time.
            kept[f"{_STATE}_{i}_weights"], kept[f"{_STATE}_{i}_values"] = weights, values
        self._move = tf.function(self._moved, autograph=False)
        self._snap = tf.function(self._snapped, autograph=False)
        self._snap()

    def _state(self, i, kernel, kept):
        """`(underlying weights, values, which weights may move)` of a kernel, as variables."""
        current = keras.ops.convert_to_numpy(kernel.variable)
        weights = np.asarray(kept.get(f"{_STATE}_{i}_weights", current))
        values = np.asarray(kept.get(f"{_STATE}_{i}_values", ()))
        if not self._state_fits(weights, values, current):
            weights = current
            make = initial_values_with_zero if self.preserve_sparsity else initial_values
            values = make(weights, self.clusters, self.initial)
        free = (weights != 0) | (not self.preserve_sparsity)
        parts = (weights, values, free.astype(weights.dtype))
        return tuple(tf.Variable(part, trainable=False) for part in parts)

    def _state_fits(self, weights, values, current):
        """Whether a state belongs to the model's present weights, not to earlier ones."""
        if len(values) != self.clusters or weights.shape != current.shape:
            return False
        return np.array_equal(tf.gather(values, nearest_index(weights, values)), current)

    def after_steps(self, before: int) -> None:
        del before
        self._move()

    def _moved(self):
        for kernel, (weights, values, free) in zip(self.kernels, self._states, strict=True):
            index = tf.reshape(nearest_index(weights, values), [-1])
            moved = keras.ops.convert_to_tensor(kernel.variable)
            step = (moved - tf.reshape(tf.gather(values, index), weights.shape)) * free
            mean = tf.math.unsorted_segment_mean(tf.reshape(step, [-1]), index, self.clusters)
            if self.preserve_sparsity:
                mean = tf.where(values == 0, tf.zeros_like(mean), mean)
            weights.assign_add(step)
            values.assign(tf.sort(values + mean))
        self._snapped()

    def _snapped(self):
        """Gives the model the clustered weights."""
        for kernel, (weights, values, _) in zip(self.kernels, self._states, strict=True):
            kernel.variable.assign(tf.gather(values, nearest_index(weights, values)))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._has_begun:
            return
        # An optimizer that averages weights has just written its averages: to the nearest values.
        for kernel, (_, values, _) in zip(self.kernels, self._states, strict=True):
            moved = keras.ops.convert_to_tensor(kernel.variable)
            kernel.variable.assign(tf.gather(values, nearest_index(moved, values)))
        kept = getattr(self.model, "callback_states", {})
        for key in [key for key in kept if key.startswith(f"{_STATE}_")]:
            del kept[key]


def cluster(
    student: Any,
    clusters: int = 16,
    layers: Any = None,
    initial: str = "kmeans",
    preserve_sparsity: bool = False,
) -> Cluster:
    """A callback that clusters a student's weights; unknown layers raise at once.

    Args:
        student: A built `keras.Model`.
        clusters: See `keras_kd.callbacks.Cluster`, as for all that follows.
        layers: See there.
        initial: See there.
        preserve_sparsity: See there.

    Returns:
        A `keras_kd.callbacks.Cluster` for the `fit` of a distiller, or of the student itself.

    Raises:
        ValueError: An argument is wrong.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    student.fit(x, y, callbacks=[kd.cluster(student, clusters=4)], verbose=0)
    assert len(np.unique(student.layers[0].kernel)) <= 4
    ```
    """
    kernels_of(student, layers)
    return Cluster(clusters, layers, initial, preserve_sparsity, student=student)


# The values of clustered weights: the initial ones, and the nearest one.


def initial_values(weights: np.ndarray, count: int, kind: str) -> np.ndarray:
    """The initial values of clustered weights, ascending.

    Args:
        weights: NumPy array.
        count: How many, at least 2.
        kind: `"kmeans"`: Lloyd's algorithm from `"density"`; `"linear"`: from the smallest to the
            largest in equal steps; `"density"`: in the middle of parts with equally many weights.

    Returns:
        float array of shape `[count]`. Where the weights have no more values than that, these.
    """
    flat = np.sort(weights, axis=None)
    distinct = np.unique(flat)
    if len(distinct) <= count:
        return np.pad(distinct, (0, count - len(distinct)), mode="edge")
    if kind == "linear":
        return np.linspace(flat[0], flat[-1], count, dtype=flat.dtype)
    values = np.quantile(flat, (np.arange(count) + 0.5) / count).astype(flat.dtype)
    return _lloyd(flat, values) if kind == "kmeans" else values


def _lloyd(flat, values):
    """1-D k-means: each value becomes the mean of the weights that are nearest to it."""
    for _ in range(_ITERATIONS):
        nearest = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
        counts = np.bincount(nearest, minlength=len(values))
        sums = np.bincount(nearest, flat, minlength=len(values))
        means = sums / np.maximum(counts, 1)
        values = np.sort(np.where(counts > 0, means, values)).astype(flat.dtype)
    return values


def initial_values_with_zero(weights: np.ndarray, count: int, kind: str) -> np.ndarray:
    """Like `initial_values`, with zero as one of the values.

    The others are divided in proportion to the numbers of negative and positive weights.
    """
    negative, positive = weights[weights < 0], weights[weights > 0]
    total = max(len(negative) + len(positive), 1)
    below = round((count - 1) * len(negative) / total)
    parts = [
        initial_values(part, size, kind)
        for part, size in ((negative, below), (positive, count - 1 - below))
        if size and len(part)
    ]
    found = np.sort(np.concatenate([*parts, np.zeros(1, weights.dtype)]))
    return np.pad(found, (0, count - len(found)), mode="edge")


def nearest_index(weights: Any, values: Any) -> Any:
    """The index of the nearest of ascending values, int32, of the shape of the weights."""
    bounds = (values[1:] + values[:-1]) / 2
    found = tf.searchsorted(bounds, tf.reshape(weights, [-1]))
    return tf.reshape(found, tf.shape(weights))
