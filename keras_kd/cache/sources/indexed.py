"""Data with a length and an index, as shards of rows."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches as data_batches
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.cache.sources import base

# `grain.MapDataset.repeat()` has `sys.maxsize` elements.
_ENDLESS = 1 << 48


class Indexed(base.CutSource):
    """What has `len(data)` and `data[i]`, cut by rows.

    Such as a `grain.MapDataset`, a Hugging Face dataset, a PyTorch map-style dataset of arrays, or
    a list. `data[i]` is one sample, always the same one: a number, a text, an array, or a dict or
    tuple of them, nested; lists become arrays, images of Pillow too. All samples have one
    structure, and shapes and types as sample 0, which is read once more when the source is made.

    A `keras.utils.PyDataset` is not taken: its elements are batches. Of arrays take `Arrays`.

    Args:
        data: The data. It is pickled with the source.
        element: A function from `data[i]` to the sample, `inputs`, `(inputs, labels)` or `(inputs,
            labels, weights)`, in Python; default: `data[i]` itself.
        batch_size: Rows of a batch. The last one of a shard may have fewer.
        rows_per_shard: Rows of a shard. The last one may have fewer.
        augment: A function `(inputs[, labels[, weights]], seed)` of a sample that returns the one
            to take its place, with stateless random operations; see `kd.cache.sources`.
        seed: An integer, at least 0, for other augmentations.

    Raises:
        ValueError: An argument is wrong, or the data is empty, endless or of another kind. While a
            shard is read TensorFlow makes a `tf.errors.InvalidArgumentError` of it: a sample is
            unlike sample 0.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    rows = [{"image": np.full((4, 4), i, "uint8"), "label": i % 2} for i in range(10)]
    source = kd.cache.sources.Indexed(
        rows,
        element=lambda row: (row["image"].astype("float32"), row["label"]),
        batch_size=2,
        rows_per_shard=4,
    )
    assert source.shards == 3
    images, labels = next(iter(source(0, 2)))  # rows 8 and 9
    assert images.shape == (2, 4, 4)
    ```
    """

    _reads_batches = True

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int,
        rows_per_shard: int,
        element: Callable | None = None,
        augment: Callable | None = None,
        seed: int = 0,
    ) -> None:
        batch_size = validation.integer("batch_size", batch_size, 1)
        self._rows_per_shard = validation.integer("rows_per_shard", rows_per_shard, 1)
        self._element = validation.function("element", element, ("row",), optional=True)
        _check_kind(data)
        self._data, self._count = data, len(data)
        if not 0 < self._count < _ENDLESS:
            what = "endless" if self._count else "empty"
            raise invalid("data", "data of one row or more that has an end", f"{what} data")
        super().__init__(-(-self._count // self._rows_per_shard), batch_size, augment, seed)
        first = self._sample(0)
        self._specs = tf.nest.map_structure(_spec_of, first)
        digest = hashlib.sha256()
        data_batches.update_digest(digest, first)
        self._first = digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "data": type(self._data).__name__,
            "element": base.name_of(self._element),
            "rows": self._count,
            "rows_per_shard": self._rows_per_shard,
            "sample": [[str(x.shape), x.dtype.name] for x in tf.nest.flatten(self._specs)],
            "digest_of_sample_0": self._first,
        }

    def _rows(self, shard: int) -> int:
        return min(self._rows_per_shard, self._count - shard * self._rows_per_shard)

    def _read(self, shard: int) -> tf.data.Dataset:
        start = shard * self._rows_per_shard
        end = start + self._rows(shard)

        def batches() -> Iterator[tuple]:
            for first in range(start, end, self._batch_size):
                last = min(first + self._batch_size, end)
                samples = [self._checked_sample(i) for i in range(first, last)]
                yield base.rows(first, last), tf.nest.map_structure(_stacked, *samples)

        spec = tf.nest.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape), x.dtype), self._specs
        )
        return base.generated(batches, spec)

    def _sample(self, i: int) -> Any:
        found = self._data[i]
        return _arrays(found if self._element is None else self._element(found), i)

    def _checked_sample(self, i: int) -> Any:
        found = self._sample(i)
        try:
            tf.nest.assert_same_structure(found, self._specs)
        except (TypeError, ValueError):
            raise _unlike(i, f"another structure, {tf.nest.map_structure(_shown, found)}") from None
        for array, spec in zip(tf.nest.flatten(found), tf.nest.flatten(self._specs), strict=True):
            if array.shape != tuple(spec.shape) or _dtype(array) != spec.dtype:
                raise _unlike(i, f"{_shown(array)}, not {spec.dtype.name} of shape {spec.shape}")
        return found


def _check_kind(data: Any) -> None:
    expected = (
        "data with len(data) and data[i], such as a grain.MapDataset, a Hugging Face dataset or a "
        "list of samples"
    )
    if isinstance(data, keras.utils.PyDataset):
        raise invalid("data", f"{expected}. The elements of a PyDataset are batches", repr(data))
    if isinstance(data, (np.ndarray, tf.Tensor)):
        raise invalid(
            "data", f"{expected}. For arrays take kd.cache.sources.Arrays", validation.briefly(data)
        )
    is_text = isinstance(data, (str, bytes, os.PathLike))
    has_both = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if is_text or isinstance(data, Mapping) or not has_both:
        raise invalid("data", expected, f"{data!r} of type {type(data).__name__}")


def _arrays(sample: Any, i: int) -> Any:
    """A sample with arrays in place of numbers, texts, lists and images."""
    if sample is None:
        raise _unlike(i, "None")
    if isinstance(sample, Mapping):
        return {key: _arrays(each, i) for key, each in sample.items()}
    if isinstance(sample, tuple):
        return tuple(_arrays(each, i) for each in sample)
    try:
        found = np.asarray(sample)
        _dtype(found)
    except (TypeError, ValueError) as error:
        raise _unlike(i, f"{type(sample).__name__}, which is not an array: {error}") from error
    return found


def _dtype(array: np.ndarray) -> tf.DType:
    if array.dtype.kind == "O" and not all(isinstance(x, (str, bytes)) for x in array.flat):
        raise TypeError("its type is `object`")
    return tf.string if array.dtype.kind in "SUO" else tf.as_dtype(array.dtype)


def _spec_of(array: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec(array.shape, _dtype(array))


def _stacked(*samples: np.ndarray) -> np.ndarray:
    # Texts of different lengths would have different types.
    if samples[0].dtype.kind in "SUO":
        samples = tuple(each.astype(object) for each in samples)
    return np.stack(samples)


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _unlike(i: int, received: str) -> ValueError:
    return ValueError(
        f"data[{i}] must be a sample of arrays, with the structure, shapes and types of data[0]: "
        f"pass `element` to make it one. Received: {received}"
    )
