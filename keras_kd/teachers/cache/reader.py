"""`load_cache`: a dataset joined with the teacher outputs of a cache."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import storage, validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers import protocol
from keras_kd.teachers.cache import arguments, by_key, contents, fingerprints, schema
from keras_kd.teachers.cache import format as cache_format
from keras_kd.teachers.cache.copies import Copies


def load_cache(
    path: Any,
    dataset: Any,
    *,
    key: Callable | str | None = None,
    epoch: int | None = None,
    check_inputs: bool = True,
    verify: bool = True,
    teacher: Any = None,
    process: tuple[int, int] = (0, 1),
    copies: str | os.PathLike | None = None,
    copies_mb: float | None = None,
) -> tf.data.Dataset:
    """Joins a dataset with the teacher outputs that `cache_teacher` wrote for it.

    Each batch is compared with the one that the teacher saw, by a fingerprint of each sample's
    inputs: a dataset that is reordered, shorter, longer or changed is an error that names the first
    sample that differs. Shuffle, repeat and cache the result.

    Args:
        path: The folder that `cache_teacher` or a job (`keras_kd.cache.plan`) wrote, also an
            address of a store.
        dataset: The batched dataset for which it was written, or the function from a view's number
            to one; its batches may have another size. Of a job also its source, the function from
            the numbers of a view and a shard to a dataset: then only the shards that are wanted are
            read.
        key: The function from an element to a key for each sample that `cache_teacher` was given,
            or `"inputs"`: samples are found by their key (their inputs), in any order; batches may
            be shuffled, and samples left out. The first call makes an index beside the shards.
        epoch: The number of one view. Default: all of them, one after another: pass
            `steps_per_epoch` to `fit`, so that an epoch is one view.
        check_inputs: With `key`: `False` lets inputs differ from those that the teacher saw.
        verify: Whether all files are read once and compared with their checksums, the index by key
            included, which is made again where it differs. `False` compares their sizes only;
            records of shards still have checksums of their own. Shards of a store are always
            compared with their checksums, when they are fetched. With `process` only the files of
            that part are looked at.
        teacher: A teacher that must be the one that was cached, or a text as `cache_teacher`'s
            `fingerprint`. Default: any.
        process: `(index, count)` where several processes train, each from its own shards: this one
            reads the shards `index`, `index + count`, ... of each view. Needs a job's source as
            `dataset`. They may have different numbers of batches: repeat the result, and pass
            `steps_per_epoch`.
        copies: Of a cache in a store: a folder of this machine for copies of the shards, which are
            found there again. Default: a temporary folder.
        copies_mb: Of a cache in a store: how many MB of copies are kept. Default: all that were
            read. A shard that was removed is fetched again in the next epoch.

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
    verify = validation.boolean("verify", verify)
    arguments.check_reading_key(key, validation.boolean("check_inputs", check_inputs))
    epoch = validation.integer("epoch", epoch, 0, optional=True)
    process = arguments.process(process)
    stored = _stored(folder, copies, copies_mb)
    # An index by key is made of all shards.
    manifest = cache_format.checked(folder, verify, process if key is None else (0, 1))
    data_of = _data_of_views(dataset, manifest, process)
    fingerprints.check_teacher(manifest, teacher)
    _check_has_keys(manifest, key)
    views = range(manifest["views"]) if epoch is None else [_checked_epoch(manifest, epoch)]
    parts = []
    for view in views:
        data = data_of(view)
        if key is None:
            parts.append(_in_order(stored, manifest, data))
        else:
            index = by_key.Index(stored, manifest, view, key == "inputs", verify)
            parts.append(_by_key(manifest, data.batches, index, key, check_inputs))
    return functools.reduce(lambda one, other: one.concatenate(other), parts).with_options(
        _options(process)
    )


def _stored(folder: storage.Place, local: Any, megabytes: float | None) -> Any:
    """The folder that shards are read from, or copies of those in a store."""
    if not storage.is_remote(folder):
        for name, value in (("copies", local), ("copies_mb", megabytes)):
            if value is not None:
                raise invalid(
                    name, "None: the cache is on this machine, and read where it is", repr(value)
                )
        return folder
    if local is not None:
        local = pathlib.Path(validation.path("copies", local, "a folder of this machine"))
    if megabytes is not None:
        megabytes = validation.positive("copies_mb", megabytes)
    return Copies(folder, local, None if megabytes is None else int(megabytes * 1e6))


@dataclasses.dataclass
class _View:
    """The data of a view, and the shards that were written for it.

    Attributes:
        batches: The dataset.
        shards: Those of the manifest.
        is_cut_alike: Whether its batches are known to be those of the shards.
    """

    batches: tf.data.Dataset
    shards: list[dict]
    is_cut_alike: bool


def _data_of_views(
    dataset: Any, manifest: dict, process: tuple[int, int]
) -> Callable[[int], _View]:
    """The function from the number of a view to its data."""
    index, count = process
    if schema.is_of_job(manifest) and not isinstance(dataset, tf.data.Dataset):
        source = arguments.source(dataset)

        def of_shards(view: int) -> _View:
            numbers = range(manifest["parts"][view])[index::count]
            if not numbers:
                raise ValueError(
                    f"View {view} has {manifest['parts'][view]} shards, and process={process} none "
                    "of them: use fewer processes, or write the cache in smaller shards."
                )
            shards = [manifest["shards"][view][number] for number in numbers]
            return _View(_chained(source, view, numbers), shards, True)

        return of_shards
    if count > 1:
        raise invalid(
            "process",
            "(0, 1): only a cache that a job wrote (keras_kd.cache.plan) can be read in parts, "
            "with the job's source as `dataset`",
            repr(process),
        )
    view_of = arguments.views(dataset)
    return lambda view: _View(
        arguments.batched(view_of(view), view), manifest["shards"][view], False
    )


def _chained(source: Callable, view: int, numbers: Sequence[int]) -> tf.data.Dataset:
    """The batches of shards, one shard after another; each is opened when its turn comes."""
    first = arguments.batches_of_shard(source, view, numbers[0])

    def batches() -> Iterator:
        for number in numbers:
            yield from arguments.batches_of_shard(source, view, number)

    return tf.data.Dataset.from_generator(batches, output_signature=first.element_spec)


def _options(process: tuple[int, int]) -> tf.data.Options:
    # By default several workers would each read some of the files, but all of the dataset. Where
    # each reads its own shards nothing is left to divide.
    policies = tf.data.experimental.AutoShardPolicy
    options = tf.data.Options()
    policy = policies.DATA if process[1] == 1 else policies.OFF
    options.experimental_distribute.auto_shard_policy = policy
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


def _in_order(stored: Any, manifest: dict, data: _View) -> tf.data.Dataset:
    """Batch by batch; optional values mark the end of both datasets, so that it is noticed."""
    dataset, records = data.batches, schema.stored_batches(stored, manifest, data.shards)
    batches = sum(shard["batches"] for shard in data.shards)
    known = batches
    if not data.is_cut_alike:
        records, batches = _rebatched(records, data.shards, dataset)
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
    """The records in batches of the dataset's size, where that has changed, and their number.

    Shards of a job may end in batches that are not full; the dataset then has such batches at the
    same places, or none but its last.
    """
    samples = sum(shard["rows"] for shard in shards)
    batches = sum(shard["batches"] for shard in shards)
    size = _first_batch_size(dataset)
    is_alike = size is None or size == _first_record_size(records)
    if is_alike and int(dataset.cardinality()) in (batches, tf.data.UNKNOWN_CARDINALITY):
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
