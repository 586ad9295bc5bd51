"""`Sparsify` prunes the student's weights by magnitude during `fit`; `sparsity_of` counts zeros."""

import dataclasses
import math
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import schedules
from keras_kd._utils import validation
from keras_kd.compression.base import CompressionCallback, kernels_of

TWO_OF_FOUR = "2:4"
# Two of each four in a row along the inputs stay: the pattern of NVIDIA's sparse tensor cores.
GROUP, STAY = 4, 2
# The share of `fit` for pruning; the rest is for the weights that stay.
_PRUNING_SHARE = 0.6


class Sparsify(CompressionCallback):
    """Sets a growing share of the student's smallest weights to zero while `fit` runs.

    At the steps `t = begin_step + i frequency`, and at `end_step`, the share that is removed of
    each kernel becomes

    `s(t) = sparsity (1 - (1 - (t - begin_step) / (end_step - begin_step))^3)`

    and the weights of smallest magnitude are chosen again. After every step the chosen ones are
    zero, so that validation and files see zeros. Before `begin_step` nothing changes. At the end
    each kernel of `n` weights has exactly `n - max(round(n (1 - sparsity)), 1)` zeros. This is the
    algorithm of tensorflow-model-optimization, which takes no Keras 3 models.

    `sparsity="2:4"` removes two of each four weights in a row along the inputs, from `begin_step`
    on; embeddings stay.

    What it does not do: a pruned `.tflite` or `.onnx` file is as large and as slow as before. Only
    its compressed size shrinks: of a CNN for MNIST of 168,664 bytes gzip made 93,629 at 50 %, which
    cost about one point of accuracy after 400 steps (80 %: six). NVIDIA's sparse tensor cores
    compute 2:4 faster, if TensorRT uses them; that was not tried here.

    This causes no retracing. The history gets `sparsity`, the share of zeros. A resumed run
    continues where it was. The student stays a plain Keras model. With BatchNormalization, run some
    batches through the student afterwards (`training=True`), so that its statistics fit.
    `EarlyStopping(restore_best_weights=True)` may bring back an epoch before `end_step`.

    Args:
        sparsity: The share of zeros, above 0 and below 1; or `"2:4"`.
        schedule: The way from `initial_sparsity` to `sparsity`: `"polynomial"`, `"linear"`,
            `"cosine"`; an object of `keras_kd.schedules`, or a function of `t - begin_step`. A
            number is the share from `begin_step` on. Not for `"2:4"`.
        begin_step: Steps (batches) before the first weights are removed.
        end_step: The step after which the choice is final. Default: 60 % of the rest of `fit`.
        frequency: Steps from one choice to the next. With `steps_per_execution` above 1 it happens
            at the end of an execution.
        layers: Names or paths of layers; default: all. Kernels of dense,
            convolutional, recurrent and attention layers and embeddings are pruned; biases,
            normalization and depthwise kernels are not.
        initial_sparsity: The share of zeros at `begin_step`.
        student: The model to prune; default: the distiller's student, or the model of `fit`.

    Raises:
        ValueError: An argument is wrong; in `fit`: there is no such layer, the length of `fit` is
            not known and `end_step` not given, or `fit` ends before it.

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
    prune = kd.callbacks.Sparsify(0.75, frequency=1)
    history = distiller.fit(x, y, epochs=3, callbacks=[prune], verbose=0).history
    assert history["sparsity"][-1] == 0.75 == kd.compression.sparsity_of(student).total
    ```

    Reference: Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", https://arxiv.org/abs/1710.01878
    """

    def __init__(
        self,
        sparsity: float | str = 0.5,
        schedule: Any = "polynomial",
        begin_step: int = 0,
        end_step: Any = None,
        frequency: int = 100,
        layers: Any = None,
        *,
        initial_sparsity: float = 0.0,
        student: Any = None,
    ) -> None:
        super().__init__(student, layers)
        self.sparsity = _check_sparsity(sparsity)
        self.begin_step = validation.integer("begin_step", begin_step, 0)
        self.end_step = validation.integer("end_step", end_step, begin_step, optional=True)
        self.frequency = validation.integer("frequency", frequency, 1)
        self.schedule: Any = None
        if sparsity != TWO_OF_FOUR:
            start = validation.non_negative("initial_sparsity", initial_sparsity)
            if start > self.sparsity:
                raise ValueError(
                    "`initial_sparsity` must not be above `sparsity`. Received: "
                    f"initial_sparsity={initial_sparsity}, sparsity={sparsity}"
                )
            self.schedule = schedules.make_schedule(schedule, start, self.sparsity)
        elif schedule != "polynomial" or initial_sparsity != 0:
            raise ValueError("sparsity='2:4' has no schedule: leave `schedule` out.")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if self.sparsity == TWO_OF_FOUR:
            self.kernels = [each for each in self.kernels if each.input_axis is not None]
            if not self.kernels:
                raise ValueError("There is no kernel for sparsity='2:4', only embeddings.")
        self._end = self._checked_end(self.total_steps())
        last = 0.0 if self.schedule is None else self.sparsity - self.sparsity_at(self._end)
        if abs(last) > 1e-6:
            raise ValueError(
                f"The schedule ends with {self.sparsity_at(self._end):.4g}, but sparsity="
                f"{self.sparsity} is promised. Let it end with that."
            )

    def _checked_end(self, total):
        if self.end_step is None and total is None:
            raise ValueError(
                "Sparsify does not know how many steps fit has. Pass end_step, or steps_per_epoch "
                "to fit."
            )
        end = self.end_step
        if end is None:
            end = self.begin_step + math.ceil(_PRUNING_SHARE * max(total - self.begin_step, 0))
        if total is not None and end > total:
            raise ValueError(
                f"fit ends after {total} steps, before the last weights are removed (begin_step="
                f"{self.begin_step}, end_step={end}). Lower them, or raise epochs."
            )
        return end

    def sparsity_at(self, step: int) -> float:
        """The scheduled share of zeros at a step, in a running `fit`."""
        span = max(self._end - self.begin_step, 1)
        position = span if step >= self._end else step - self.begin_step
        return float(self.schedule(position, span + 1))

    def begin(self, is_resumed: bool) -> None:
        values = [keras.ops.convert_to_numpy(kernel.variable) for kernel in self.kernels]
        # In a resumed run the removed weights are zero.
        has_removed = is_resumed and self.step >= self.begin_step
        kept = [value != 0 if has_removed else np.ones(value.shape, bool) for value in values]
        with self.model.distribute_strategy.scope():
            self._masks = [
                tf.Variable(mask.astype(value.dtype), trainable=False)
                for mask, value in zip(kept, values, strict=True)
            ]
        self._apply = tf.function(self._masked, autograph=False)
        if not is_resumed:
            self.after_steps(-1)

    def after_steps(self, before: int) -> None:
        due = self._last_due(before, self.step)
        if due is not None:
            self._choose(due)
        if self.step >= self.begin_step:
            self._apply()

    def _last_due(self, before, now):
        """The last step after `before`, up to `now`, at which weights are chosen; or `None`."""
        if before < self._end <= now:
            return self._end
        if not self.begin_step <= now < self._end:
            return None
        due = now - (now - self.begin_step) % self.frequency
        return due if due > before else None

    def _choose(self, step):
        for kernel, mask in zip(self.kernels, self._masks, strict=True):
            value = keras.ops.convert_to_numpy(kernel.variable)
            if self.schedule is None:
                mask.assign(two_of_four(value, kernel.input_axis))
            else:
                mask.assign(by_magnitude(value, self.sparsity_at(step)))

    def _masked(self):
        for kernel, mask in zip(self.kernels, self._masks, strict=True):
            kernel.variable.assign(keras.ops.convert_to_tensor(kernel.variable) * mask)

    def _share_of_zeros(self):
        counts = [
            (np.sum(keras.ops.convert_to_numpy(kernel.variable) == 0), math.prod(mask.shape))
            for kernel, mask in zip(self.kernels, self._masks, strict=True)
        ]
        zeros, sizes = map(sum, zip(*counts, strict=True))
        return float(zeros / sizes)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["sparsity"] = self._share_of_zeros()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._has_begun:
            return
        if self.step >= self.begin_step:
            self._apply()  # an optimizer that averages weights has just written its averages
        if self.step < self._end:
            warnings.warn(
                f"fit ended after {self.step} steps, before end_step={self._end}: the sparsity is "
                f"{self._share_of_zeros():.2%}, not {self.sparsity}.",
                stacklevel=2,
            )


def sparsify(
    student: Any,
    sparsity: float | str = 0.5,
    schedule: Any = "polynomial",
    begin_step: int = 0,
    end_step: Any = None,
    frequency: int = 100,
    layers: Any = None,
) -> Sparsify:
    """A callback that prunes a student while `fit` runs; unknown layers raise at once.

    Args:
        student: A built `keras.Model`.
        sparsity: See `keras_kd.callbacks.Sparsify`, as for all that follows.
        schedule: See there.
        begin_step: See there.
        end_step: See there.
        frequency: See there.
        layers: See there.

    Returns:
        A `keras_kd.callbacks.Sparsify` for the `fit` of a distiller, or of the student itself.

    Raises:
        ValueError: An argument is wrong.

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
    distiller.fit(x, y, callbacks=[kd.sparsify(student, "2:4")], verbose=0)
    assert kd.compression.sparsity_of(student).two_of_four
    ```
    """
    kernels_of(student, layers)
    return Sparsify(sparsity, schedule, begin_step, end_step, frequency, layers, student=student)


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """The shares of zeros in a model's kernels. `str` makes a table of them.

    Args:
        total: The share of all of them.
        kernels: A dict from the kernels' paths to the share of each.
        two_of_four: Whether of each four in a row along the inputs at least two are zero, in every
            kernel but embeddings.

    Example:

    ```python
    import keras_kd as kd

    print(kd.compression.Sparsity(0.5, {"dense/kernel": 0.5}, two_of_four=False))
    ```
    """

    total: float
    kernels: dict
    two_of_four: bool

    def __str__(self) -> str:
        width = max(map(len, self.kernels))
        lines = [f"{path:<{width}} {share:7.2%}" for path, share in self.kernels.items()]
        pattern = "yes" if self.two_of_four else "no"
        return "\n".join([*lines, f"{'all':<{width}} {self.total:7.2%}", f"2:4 {pattern}"])


def sparsity_of(model: keras.Model, layers: Any = None) -> Sparsity:
    """How many weights of a model's kernels are zero.

    Args:
        model: A built `keras.Model`.
        layers: See `Sparsify`.

    Returns:
        A `Sparsity`.

    Raises:
        ValueError: The model has no kernels, or no such layer.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [0.0], [2.0], [0.0]])])
    sparsity = kd.compression.sparsity_of(model)
    assert sparsity.total == 0.5 and sparsity.two_of_four
    ```
    """
    kernels = kernels_of(model, layers)
    values = [keras.ops.convert_to_numpy(kernel.variable) for kernel in kernels]
    zeros = [int(np.sum(value == 0)) for value in values]
    pattern = [
        is_two_of_four(value, kernel.input_axis)
        for kernel, value in zip(kernels, values, strict=True)
        if kernel.input_axis is not None
    ]
    return Sparsity(
        sum(zeros) / sum(value.size for value in values),
        {k.path: n / v.size for k, n, v in zip(kernels, zeros, values, strict=True)},
        bool(pattern) and all(pattern),
    )


def _check_sparsity(sparsity):
    is_number = isinstance(sparsity, (int, float, np.number)) and not isinstance(sparsity, bool)
    if sparsity != TWO_OF_FOUR and not (is_number and 0 < sparsity < 1):
        expected = "a number above 0 and below 1, or '2:4'"
        raise validation.invalid("sparsity", expected, repr(sparsity))
    return sparsity


# Masks of ones and zeros: which weights stay.


def by_magnitude(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """A mask that keeps the largest weights.

    `max(round(n (1 - sparsity)), 1)` of `n` stay, of equal ones the first.

    Args:
        weights: NumPy array.
        sparsity: The share to remove, from 0 to below 1.

    Returns:
        An array like `weights`, of ones and zeros.
    """
    stay = max(round(weights.size * (1 - sparsity)), 1)
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")
    mask = np.zeros(weights.size, weights.dtype)
    mask[order[:stay]] = 1
    return mask.reshape(weights.shape)


def two_of_four(weights: np.ndarray, axis: Any) -> np.ndarray:
    """A mask that keeps the two largest of each four in a row along an axis.

    Of an incomplete group at the end at most two stay.
    """
    rows = np.moveaxis(weights, axis, -1)
    groups = _in_groups(np.abs(rows))
    order = np.argsort(-groups, axis=-1, kind="stable")
    mask = np.zeros(groups.shape, weights.dtype)
    np.put_along_axis(mask, order[..., :STAY], 1, axis=-1)
    mask = mask.reshape(*rows.shape[:-1], -1)[..., : rows.shape[-1]]
    return np.moveaxis(mask, -1, axis)


def is_two_of_four(weights: np.ndarray, axis: Any) -> bool:
    """Whether at most two of each four in a row along an axis are not zero."""
    groups = _in_groups(np.moveaxis(weights, axis, -1) != 0)
    return bool(np.all(groups.sum(-1) <= STAY))


def _in_groups(rows):
    missing = -rows.shape[-1] % GROUP
    padded = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)])
    return padded.reshape(*rows.shape[:-1], -1, GROUP)
