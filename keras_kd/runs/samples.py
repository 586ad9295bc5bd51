"""Samples of a run: its parts, how they are split, and the order of each epoch."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Bytes of the samples among which an epoch's order is drawn.
_BUFFER = 256 * 2**20
PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a run learns from, in a fixed order.

    Attributes:
        kind: `"images"`, `"table"`, `"texts"` or `"function"`.
        parts: `{"train", "validation", "test": batched datasets of (inputs, class indices)}`.
        counts: How many samples each part has.
        classes: The names of the classes; of functions their numbers.
        batch_size: Samples in a batch of the training part.
        shape: The shape of one input, or `None` where inputs have a structure.
        dtype: Its type.
        preprocessing: What a device does before the model runs, as JSON holds it.
        digest: Tells these samples from others.
        notes: What the log and the card say about them.
    """

    kind: str
    parts: dict[str, tf.data.Dataset]
    counts: dict[str, int]
    classes: list[str]
    batch_size: int
    shape: tuple | None
    dtype: str
    preprocessing: dict[str, Any]
    digest: str
    notes: list[str]

    def arrays(self, part: str, most: int | None = None) -> tuple[Any, np.ndarray]:
        """The inputs and labels of a part, or of the first samples of it, as arrays."""
        found: list = []
        count = 0
        for batch in self.parts[part]:
            found.append(keras.tree.map_structure(np.asarray, batch[:2]))
            count += len(found[-1][1])
            if most is not None and count >= most:
                break
        joined = keras.tree.map_structure(lambda *each: np.concatenate(each)[:most], *found)
        return joined[0], joined[1]


def split(
    labels: np.ndarray, classes: list[str], shares: dict[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Which samples each part gets, the same share of each class.

    Args:
        labels: The class of each sample.
        classes: The names of the classes.
        shares: `{part: share}`; the training part gets what is left.
        seed: Of the order, which is random in every part.

    Returns:
        `{part: indices}`.

    Raises:
        ValueError: A class has too few samples.
    """
    generator = np.random.default_rng([seed, 1])
    found: dict[str, list] = {part: [] for part in (*shares, "train")}
    for number, name in enumerate(classes):
        order = generator.permutation(np.flatnonzero(labels == number))
        sizes = {part: max(1, round(share * len(order))) for part, share in shares.items()}
        if sum(sizes.values()) >= len(order):
            raise ValueError(
                f"class {name!r} has {len(order)} samples: none would be left to train on "
                f"beside {' and '.join(f'{n} for {part}' for part, n in sizes.items())}. Add "
                "samples, or lower these shares."
            )
        start = 0
        for part, size in sizes.items():
            found[part].append(order[start : start + size])
            start += size
        found["train"].append(order[start:])
    return {part: generator.permutation(np.concatenate(each)) for part, each in found.items()}


class EpochOrder(keras.callbacks.Callback):
    """Draws the order of the training samples for each epoch, by its number.

    So an epoch that is resumed in another process has the order that it had.

    Args:
        batches: A batched dataset in a fixed order.
        count: How many samples it has.
        batch_size: Samples in a batch.
        seed: With the epoch's number it gives the order.
    """

    def __init__(self, batches: tf.data.Dataset, count: int, batch_size: int, seed: int) -> None:
        super().__init__()
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        size = sum(
            int(np.prod([side or 1 for side in spec.shape[1:]])) * max(spec.dtype.size, 1)
            for spec in tf.nest.flatten(batches.element_spec)
        )
        buffer = max(batch_size, min(count, _BUFFER // max(size, 1)))

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            drawn = epoch * 1_000_003 + seed + 1
            one_by_one = batches.unbatch()
            return one_by_one.shuffle(buffer, seed=drawn, reshuffle_each_iteration=False)

        number = tf.data.Dataset.from_tensors(0).map(lambda _: self._epoch.read_value())
        batched = number.flat_map(order).batch(batch_size)
        steps = -(-count // batch_size)
        known = batched.apply(tf.data.experimental.assert_cardinality(steps))
        self.dataset = known.prefetch(tf.data.AUTOTUNE)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        del logs
        self._epoch.assign(epoch)


def datasets(
    inputs: np.ndarray, labels: np.ndarray, indices: dict[str, np.ndarray], batch_size: int
) -> dict[str, tf.data.Dataset]:
    """Batched datasets of arrays.

    Args:
        inputs: All inputs.
        labels: All class indices.
        indices: Which of them each part has.
        batch_size: Samples in a batch.
    """
    return {
        part: tf.data.Dataset.from_tensor_slices((inputs[chosen], labels[chosen])).batch(batch_size)
        for part, chosen in indices.items()
    }
