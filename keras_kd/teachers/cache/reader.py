"""`load_cache`: a dataset joined with the teacher outputs of a cache."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd.teachers import protocol
from keras_kd.teachers.cache import arguments, by_key, contents, fingerprints, schema
from keras_kd.teachers.cache import format as cache_format


def load_cache(
    path: str | os.PathLike,
    dataset: Any,
    *,
    key: Callable | str | None = None,
    epoch: int | None = None,
    check_inputs: bool = True,
    verify: bool = True,
    teacher: Any = None,
) -> tf.data.Dataset:
    """Joins a dataset with the teacher outputs that `cache_teacher` wrote for it.

    Each batch is compared with the one that the teacher saw, by a fingerprint of each sample's
    inputs: a dataset that is reordered, shorter, longer or changed is an error that names the first
    sample that differs. Shuffle, repeat and cache the result.

    Args:
        path: The folder that `cache_teacher` wrote.
        dataset: The batched dataset for which it was written, or the function from a view's number
            to one. Its batches may have another size.
        key: The function from an element to a key for each sample that `cache_teacher` was given,
            or `"inputs"`: samples are found by their key (their inputs), in any order; batches may
            be shuffled, and samples left out. The first call makes an index beside the shards.
        epoch: The number of one view. Default: all of them, one after another: pass
            `steps_per_epoch` to `fit`, so that an epoch is one view.
        check_inputs: With `key`: `False` lets inputs differ from those that the teacher saw.
        verify: Whether all files are read once and compared with their checksums, the index by key
            included, which is made again where it differs. `False` compares their sizes only;
            records of shards still have checksums of their own.
        teacher: A teacher that must be the one that was cached, or a text as `cache_teacher`'s
            `fingerprint`. Default: any.

    Returns:
        A `tf.data.Dataset` of the same elements, with the teacher's outputs attached to the inputs:
        for the `fit` of a `Distiller` with `keras_kd.teachers.Cached`. A student alone cannot use
        it.

    Raises:
        CacheError: The cache is unfinished or damaged, or the teacher is another one.
        ValueError: An argument is wrong.
        tf.errors.InvalidArgumentError: While it is read: the dataset is not the one for which the
            cache was written; or, with `verify=False`, a shard is damaged, which is named.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    data = tf.data.Dataset.from_tensor_slices(np.eye(8, dtype="float32")).batch(4)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    path = kd.cache_teacher(teacher, data, pathlib.Path(tempfile.mkdtemp()) / "cache", verbose=0)
    joined = kd.load_cache(path, data, teacher=teacher)
    shuffled = kd.load_cache(path, data.unbatch().shuffle(8).batch(2), key="inputs")
    ```
    """
    folder = arguments.folder(path)
    view_of = arguments.views(dataset)
    verify = validation.boolean("verify", verify)
    arguments.check_reading_key(key, validation.boolean("check_inputs", check_inputs))
    epoch = validation.integer("epoch", epoch, 0, optional=True)
    manifest = cache_format.checked(folder, thorough=verify)
    fingerprints.check_teacher(manifest, teacher)
    _check_has_keys(manifest, key)
    views = range(manifest["views"]) if epoch is None else [_checked_epoch(manifest, epoch)]
    parts = []
    for view in views:
        data = arguments.batched(view_of(view), view)
        if key is None:
            parts.append(_in_order(folder, manifest, view, data))
        else:
            index = by_key.Index(folder, manifest, view, key == "inputs", verify)
            parts.append(_by_key(manifest, data, index, key, check_inputs))
    return functools.reduce(lambda one, other: one.concatenate(other), parts).with_options(
        _options()
    )


def _options() -> tf.data.Options:
    # By default several workers would each read some of the files, but all of the dataset.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _check_has_keys(manifest: dict, key: Any) -> None:
    if callable(key) and not manifest["has_keys"]:
        raise ValueError(
            "The cache was written without keys. Pass key='inputs', which finds samples by their "
            "inputs, or write it again with cache_teacher(..., key=...)."
        )


def _checked_epoch(manifest: dict, epoch: int) -> int:
    if epoch >= manifest["views"]:
        raise ValueError(
            f"The cache has the views 0 to {manifest['views'] - 1}. Received: epoch={epoch}"
        )
    return epoch


def _by_key(
    manifest: dict, dataset: tf.data.Dataset, index: by_key.Index, key: Any, check_inputs: bool
) -> tf.data.Dataset:
    """The dataset with the outputs that the index holds for its samples."""

    def join(*parts: Any) -> Any:
        element = protocol.element_of(parts)
        prints = keys = fingerprints.fingerprint_samples(protocol.inputs_of(element))
        if key != "inputs":
            keys = fingerprints.fingerprint_samples(key(*protocol.parts_of(element)))
        components = index.lookup(keys, prints if check_inputs else None)
        return _attach(manifest, element, components)

    return dataset.map(join, num_parallel_calls=tf.data.AUTOTUNE)


def _in_order(
    folder: pathlib.Path, manifest: dict, view: int, dataset: tf.data.Dataset
) -> tf.data.Dataset:
    """Batch by batch; optional values mark the end of both datasets, so that it is noticed."""
    records = schema.stored_batches(folder, manifest, view)
    records, batches = _rebatched(records, manifest["shards"][view], dataset)
    known = int(dataset.cardinality())
    if known == tf.data.INFINITE_CARDINALITY or (known >= 0 and known != batches):
        raise cache_format.CacheError(
            f"The dataset has {known if known >= 0 else 'infinitely many'} batches; the teacher "
            f"saw {batches} of this size. Load the cache with the dataset that it was written for "
            "(and repeat it afterwards), or with key='inputs'."
        )
    pairs = tf.data.Dataset.zip(_with_end(dataset), _with_end(records)).enumerate()
    pairs = pairs.map(_check_ends).take_while(lambda number, pair: pair[0].has_value())
    joined = pairs.map(
        lambda number, pair: _checked_batch(
            manifest, number, pair[0].get_value(), pair[1].get_value()
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Only where the dataset knows its length: a reader that knows it looks for no further batch.
    return joined.apply(tf.data.experimental.assert_cardinality(batches)) if known >= 0 else joined


def _check_ends(number: tf.Tensor, pair: tuple) -> tuple:
    given, stored = (each.has_value() for each in pair)
    message = tf.strings.join(
        [
            "keras_kd: at batch ",
            tf.strings.as_string(number),
            tf.where(given, " the cache has ended, and the dataset goes on", ""),
            tf.where(stored, " the dataset has ended, and the cache goes on", ""),
            ". Load it with the dataset that it was written for, or with key=inputs.",
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(given == stored, [message])]):
        return number, pair


def _with_end(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset's elements as `tf.experimental.Optional`s, and an empty one at the end."""
    spec = dataset.element_spec
    some = dataset.map(
        lambda *parts: tf.experimental.Optional.from_value(protocol.element_of(parts)),
    )
    none = tf.data.Dataset.range(1).map(lambda _: tf.experimental.Optional.empty(spec))
    return some.concatenate(none)


def _checked_batch(manifest: dict, number: tf.Tensor, element: Any, components: dict) -> Any:
    seen = components.pop(schema.FINGERPRINTS)
    components.pop(schema.KEYS, None)
    check = _assert_same_samples(
        number, fingerprints.fingerprint_samples(protocol.inputs_of(element)), seen
    )
    with tf.control_dependencies([check]):
        components = {name: tf.identity(value) for name, value in components.items()}
    return _attach(manifest, element, components)


def _assert_same_samples(number: tf.Tensor, found: tf.Tensor, seen: tf.Tensor) -> Any:
    same_size = tf.shape(found)[0] == tf.shape(seen)[0]
    samples = tf.minimum(tf.shape(found)[0], tf.shape(seen)[0])
    differs = found[:samples] != seen[:samples]
    first = tf.where(tf.reduce_any(differs), tf.argmax(differs, output_type=tf.int32), samples)
    return tf.debugging.Assert(
        same_size & ~tf.reduce_any(differs),
        [
            tf.strings.format(
                "keras_kd: the inputs differ from those that the cached teacher saw: batch {}, "
                "sample {} is the first (the batch has {} samples, and had {} when the cache was "
                "written). Is the dataset shuffled or augmented before load_cache, or another one? "
                "Shuffle after load_cache, seed augmentations by the view, or find samples by "
                "load_cache(..., key='inputs').",
                (number, first, tf.shape(found)[0], tf.shape(seen)[0]),
            )
        ],
    )


def _attach(manifest: dict, element: Any, components: dict) -> Any:
    """The element with the outputs that its components hold."""
    outputs, taps = contents.restored(components, manifest)
    origin = cache_format.identity(manifest)
    inputs = protocol.attach_outputs(protocol.inputs_of(element), outputs, taps, origin)
    return protocol.with_inputs(element, inputs)


def _rebatched(
    records: tf.data.Dataset, shards: list[dict], dataset: tf.data.Dataset
) -> tuple[tf.data.Dataset, int]:
    """The records in batches of the dataset's size, where that has changed, and their number."""
    samples = sum(shard["rows"] for shard in shards)
    batches = sum(shard["batches"] for shard in shards)
    size = _first_batch_size(dataset)
    if size is None or size == _first_record_size(records):
        return records, batches
    return records.rebatch(size), -(-samples // size)


def _first_record_size(records: tf.data.Dataset) -> int | None:
    for components in records.take(1):
        return int(tf.shape(keras.tree.flatten(components)[0])[0])
    return None


def _first_batch_size(dataset: tf.data.Dataset) -> int | None:
    for element in dataset.take(1):
        return int(tf.shape(fingerprints.fingerprint_samples(protocol.inputs_of(element)))[0])
    return None
