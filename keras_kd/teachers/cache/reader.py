"""`load_cache`: a dataset with what the teacher said of it."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers import protocol
from keras_kd.teachers.cache import arguments, by_key, contents, fingerprints, schema
from keras_kd.teachers.cache import format as cache_format


def load_cache(
    path, dataset, *, key=None, epoch=None, check_inputs=True, verify=True, teacher=None
):
    """Joins a dataset with the teacher outputs that `cache_teacher` wrote for it.

    Each batch is compared with the one that the teacher saw, by a fingerprint of each row's inputs:
    a dataset that is reordered, shorter, longer or changed is an error that names the first row
    that differs. Shuffle, repeat and cache what comes out.

    Args:
        path: The folder that `cache_teacher` wrote.
        dataset: The batched dataset of then, or the function from a view's number to one. Its
            batches may have another size now.
        key: The function from an element to a key for each row that `cache_teacher` was given, or
            `"inputs"`: rows are found by their key (their inputs), in any order; batches may be
            shuffled, and rows left out. The first call makes an index beside the shards.
        epoch: The number of one view. Default: all of them, one after another: pass
            `steps_per_epoch` to `fit`, so that an epoch is one view.
        check_inputs: With `key`: `False` lets inputs differ from those that the teacher saw.
        verify: Whether all files are read once and compared with their checksums, the index by key
            included, which is made again where it differs. `False` compares their sizes only;
            records of shards still have checksums of their own.
        teacher: A teacher that must be the one that was cached, or a text as `cache_teacher`'s
            `fingerprint`. Default: any.

    Returns:
        A `tf.data.Dataset` of the same elements, whose inputs carry the teacher's outputs: for the
        `fit` of a `Distiller` with `keras_kd.teachers.Cached`. A student alone cannot use it.

    Raises:
        CacheError: The cache is unfinished or damaged, or the teacher is another one.
        ValueError: An argument is wrong.
        tf.errors.InvalidArgumentError: While it is read: the dataset is not the one of then; or,
            with `verify=False`, a shard is damaged, which is named.

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
    _check_key(key, validation.boolean("check_inputs", check_inputs))
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
            parts.append(_found_by_key(manifest, data, index, key, check_inputs))
    return functools.reduce(lambda one, other: one.concatenate(other), parts).with_options(
        _options()
    )


def _options():
    # By default several workers would each read some of the files, but all of the dataset.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _check_key(key, check_inputs):
    if key is not None and not callable(key) and not (isinstance(key, str) and key == "inputs"):
        raise invalid(
            "key",
            "None, 'inputs', or a function from an element to a key for each row, such as "
            "lambda inputs, labels: inputs['id']",
            repr(key),
        )
    if not check_inputs and not callable(key):
        raise ValueError(
            "check_inputs=False needs a `key` of the data's own: without it nothing would tell "
            "which row is which."
        )


def _check_has_keys(manifest, key):
    if callable(key) and not manifest["has_keys"]:
        raise ValueError(
            "The cache was written without keys. Pass key='inputs', which finds rows by their "
            "inputs, or write it again with cache_teacher(..., key=...)."
        )


def _checked_epoch(manifest, epoch):
    if epoch >= manifest["views"]:
        raise ValueError(
            f"The cache has the views 0 to {manifest['views'] - 1}. Received: epoch={epoch}"
        )
    return epoch


def _found_by_key(manifest, dataset, index, key, check_inputs):
    return dataset.map(
        lambda *parts: _by_key(manifest, index, key, check_inputs, protocol.element_of(parts)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _in_order(folder, manifest, view, dataset):
    """Batch by batch; optional values mark the end of both sides, so that it cannot be missed."""
    said, batches = _rebatched(stored(folder, manifest, view), manifest["shards"][view], dataset)
    known = int(dataset.cardinality())
    if known == tf.data.INFINITE_CARDINALITY or (known >= 0 and known != batches):
        raise cache_format.CacheError(
            f"The dataset has {known if known >= 0 else 'infinitely many'} batches; the teacher "
            f"saw {batches} of this size. Load the cache with the dataset that it was written for "
            "(and repeat it afterwards), or with key='inputs'."
        )
    pairs = tf.data.Dataset.zip(_ended(dataset), _ended(said)).enumerate()
    pairs = pairs.map(_check_ends).take_while(lambda number, pair: pair[0].has_value())
    joined = pairs.map(
        lambda number, pair: _checked_batch(
            manifest, number, pair[0].get_value(), pair[1].get_value()
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Only where the dataset told its length: who is told it does not look for another batch.
    return joined.apply(tf.data.experimental.assert_cardinality(batches)) if known >= 0 else joined


def _check_ends(number, pair):
    given, kept = (each.has_value() for each in pair)
    message = tf.strings.join(
        [
            "keras_kd: at batch ",
            tf.strings.as_string(number),
            tf.where(given, " the cache has ended, and the dataset goes on", ""),
            tf.where(kept, " the dataset has ended, and the cache goes on", ""),
            ". Load it with the dataset that it was written for, or with key=inputs.",
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(given == kept, [message])]):
        return number, pair


def _ended(dataset):
    """The dataset's elements as `tf.experimental.Optional`s, and an empty one at the end."""
    spec = dataset.element_spec
    some = dataset.map(
        lambda *parts: tf.experimental.Optional.from_value(protocol.element_of(parts)),
    )
    none = tf.data.Dataset.range(1).map(lambda _: tf.experimental.Optional.empty(spec))
    return some.concatenate(none)


def _checked_batch(manifest, number, element, components):
    seen = components.pop(schema.FINGERPRINTS)
    components.pop(schema.KEYS, None)
    check = _same_rows(number, fingerprints.of_rows(protocol.inputs_of(element)), seen)
    with tf.control_dependencies([check]):
        components = {name: tf.identity(value) for name, value in components.items()}
    return _with_answers(manifest, element, components)


def _same_rows(number, found, seen):
    same_size = tf.shape(found)[0] == tf.shape(seen)[0]
    rows = tf.minimum(tf.shape(found)[0], tf.shape(seen)[0])
    differs = found[:rows] != seen[:rows]
    first = tf.where(tf.reduce_any(differs), tf.argmax(differs, output_type=tf.int32), rows)
    return tf.debugging.Assert(
        same_size & ~tf.reduce_any(differs),
        [
            tf.strings.format(
                "keras_kd: the inputs differ from those that the cached teacher saw: batch {}, row "
                "{} is the first (the batch has {} rows, then it had {}). Is the dataset shuffled "
                "or augmented before load_cache, or another one? Shuffle after load_cache, seed "
                "augmentations by the view, or find rows by load_cache(..., key='inputs').",
                (number, first, tf.shape(found)[0], tf.shape(seen)[0]),
            )
        ],
    )


def _by_key(manifest, index, key, check_inputs, element):
    prints = fingerprints.of_rows(protocol.inputs_of(element))
    by_inputs = key == "inputs"
    keys = prints if by_inputs else fingerprints.of_rows(key(*protocol.parts_of(element)))
    components = index.lookup(keys, prints if check_inputs else None)
    return _with_answers(manifest, element, components)


def _with_answers(manifest, element, components):
    outputs, taps = contents.restored(
        components, manifest["structure"], manifest["taps"], manifest["top_k"]
    )
    origin = cache_format.identity(manifest)
    inputs = protocol.join(protocol.inputs_of(element), outputs, taps, origin)
    return protocol.with_inputs(element, inputs)


def stored(folder, manifest, view):
    """A view's records in order, a dict of components for each batch."""
    specs = schema.from_json(manifest["components"])
    shards = manifest["shards"][view]
    files = [str(folder / f"{shard['name']}.tfrecord") for shard in shards]
    counts = np.array([shard["batches"] for shard in shards], "int64")
    data = tf.data.Dataset.from_tensor_slices((files, counts)).flat_map(_records_of)
    return data.map(
        lambda record: schema.decode(record, specs), num_parallel_calls=tf.data.AUTOTUNE
    )


def _records_of(file, count):
    """The records of a shard. One that is damaged or missing is an error that names the file.

    TensorFlow's own error for a record whose checksum differs says at which byte, not of which
    file: such records are left out, and what is left out is missed here.
    """
    whole = tf.data.TFRecordDataset(file, buffer_size=4 * 1024 * 1024)
    whole = whole.ignore_errors(log_warning=False).map(lambda record: (record, True))
    missing = tf.data.Dataset.from_tensors(("", False)).repeat(count)
    numbered = whole.concatenate(missing).take(count).enumerate()
    return numbered.map(lambda number, found: _whole_record(file, number, *found))


def _whole_record(file, number, record, is_whole):
    message = tf.strings.join(
        [
            "keras_kd: record ",
            tf.strings.as_string(number),
            " of ",
            file,
            " is damaged or missing. load_cache(..., verify=True) says of every file whether it "
            "is whole.",
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(is_whole, [message])]):
        return tf.identity(record)


def _rebatched(said, shards, dataset):
    """The records in batches of the dataset's size, where that has changed, and their number."""
    rows = sum(shard["rows"] for shard in shards)
    batches = sum(shard["batches"] for shard in shards)
    size = _rows_of_first(dataset)
    if size is None or size == _rows_of_first_record(said):
        return said, batches
    return said.rebatch(size), -(-rows // size)


def _rows_of_first_record(said):
    for components in said.take(1):
        return int(tf.shape(keras.tree.flatten(components)[0])[0])
    return None


def _rows_of_first(dataset):
    for element in dataset.take(1):
        return int(tf.shape(fingerprints.of_rows(protocol.inputs_of(element)))[0])
    return None
