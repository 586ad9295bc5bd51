"""The fields of a cache's files and how records are encoded; all is checked before it is used.

A file of JSON is data from outside. Each field has a rule, and the fields have to fit each other:
names of shards are those that the writer gives, numbers are possible for files of that size.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd.teachers.cache import contents, copies

_MOST = 2**53  # what JSON holds exactly wherever it was written


Rule = tuple[str, Callable[[Any], bool]]


class FieldError(Exception):
    """A field has a value that it cannot have: its name, what was expected, and the value."""

    def __init__(self, name: str, expected: str, found: Any) -> None:
        super().__init__(f"`{name}` is {_briefly(found)}; expected {expected}")


def _briefly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_integer(least: int, most: int = _MOST) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_distinct(value: Any) -> bool:
    return _is_list_of_texts(value) and len(set(value)) == len(value)


def _is_structure(value: Any) -> bool:
    names = _is_distinct(value) and value == sorted(value)
    return value is None or names or _is_integer(0)(value)


def _is_dict_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text_or_none(each) for each in value.values())


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _optional(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


# The field of a job's plan that holds the versions of what computes.
COMPUTED_WITH = "computed_with"

_COUNT: Rule = ("an integer, at least 1", _is_integer(1))
DIGEST: Rule = ("64 hexadecimal digits", _is_digest)

NOTE: dict[str, Rule] = {
    "bytes": _COUNT,
    "sha256": DIGEST,
    "batches": _COUNT,
    "rows": ("an integer, at least 0", _is_integer(0)),
    "inputs": DIGEST,
}
PLAN: dict[str, Rule] = {
    "version": _COUNT,
    "teacher": ("a text or null", _is_text_or_none),
    "taps": ("a list of distinct texts", _is_distinct),
    "top_k": ("an integer above 0, or null", _optional(_is_integer(1))),
    "structure": ("null, a number, or a sorted list of names", _is_structure),
    "components": ("an object", lambda value: isinstance(value, dict)),
    "last_activation": ("a text or null", _is_text_or_none),
    "last_activations": ("an object of texts", _is_dict_of_texts),
    "output_names": ("a list of texts, or null", _optional(_is_list_of_texts)),
    "has_keys": ("true or false", lambda value: isinstance(value, bool)),
    "views": _COUNT,
    "batches_per_shard": _COUNT,
    "classes": ("an integer above 0, or null", _optional(_is_integer(1))),
    "dtype": (f"one of {contents.DTYPES}", lambda value: value in contents.DTYPES),
}
# Of a job: its source says where shards end, and how many there are in each view.
_OF_JOB: dict[str, Rule] = {
    "batches_per_shard": ("null", lambda value: value is None),
    "parts": (
        "a list of integers above 0",
        lambda value: isinstance(value, list) and all(map(_is_integer(1), value)),
    ),
    "rows_per_shard": ("an integer above 0, or null", _optional(_is_integer(1))),
    "source": ("64 hexadecimal digits, or null", _optional(_is_digest)),
    COMPUTED_WITH: ("an object of texts", _is_dict_of_texts),
}
_SHARDS: dict[str, Rule] = {"shards": ("a list", lambda value: isinstance(value, list))}
# Fields that the first caches of format version 1 did not have yet.
_LATER: dict[str, Any] = {"last_activations": {}, "output_names": None, "classes": None}


def check_note(value: Any) -> dict:
    """The note of a shard.

    Raises:
        FieldError: A field is wrong.
    """
    check_fields(value, NOTE)
    _check_numbers(value, "")
    return value


def check_plan(value: Any) -> dict:
    """The plan of a cache, with every field; raises as `check_note` does."""
    value = _completed(value)
    _check_plan(value, {})
    return value


def _check_plan(value: Any, more: dict[str, Rule]) -> None:
    of_job = is_of_job(value)
    check_fields(value, {**PLAN, **(_OF_JOB if of_job else {}), **more})
    _check_outputs(value)
    if of_job and len(value["parts"]) != value["views"]:
        raise FieldError("parts", f"a list of {value['views']}, the views", value["parts"])


def is_of_job(plan: Any) -> bool:
    """Whether a plan or manifest is that of a job, whose shards have any number of batches."""
    return isinstance(plan, dict) and "parts" in plan


def check_manifest(value: Any, name_of: Callable[[int, int], str]) -> dict:
    """The manifest of a cache, with every field; raises as `check_note` does.

    Args:
        value: The manifest.
        name_of: The function that names shards, from the numbers of the view and the shard.
    """
    value = _completed(value)
    _check_plan(value, _SHARDS)
    if len(value["shards"]) != value["views"]:
        raise FieldError("views", f"{len(value['shards'])}, the length of `shards`", value["views"])
    for view, shards in enumerate(value["shards"]):
        at = f"shards[{view}]"
        if not isinstance(shards, list) or not shards:
            raise FieldError(at, "a list that is not empty", shards)
        for number, shard in enumerate(shards):
            _check_shard(shard, f"{at}[{number}]", name_of(view, number))
            full = value["batches_per_shard"]
            if full is None:
                continue
            if shard["batches"] > full or (shard["batches"] < full and number < len(shards) - 1):
                raise FieldError(f"{at}[{number}].batches", f"{full}", shard["batches"])
        if is_of_job(value) and len(shards) != value["parts"][view]:
            raise FieldError(at, f"a list of {value['parts'][view]}", f"one of {len(shards)}")
    return value


def check_fields(value: Any, fields: dict[str, Rule], at: str = "") -> None:
    """Raises unless an object has these fields, no others, and each holds by its rule.

    Args:
        value: What was read.
        fields: Dict from names to `(what is expected, a predicate)`.
        at: Where the object is.
    """
    if not isinstance(value, dict):
        raise FieldError(at or "the file", "an object", value)
    dot = f"{at}." if at else ""
    for name in sorted(value):
        if name not in fields:
            raise FieldError(f"{dot}{name}", "no such field", value[name])
    for name, (expected, holds) in fields.items():
        if name not in value:
            raise FieldError(f"{dot}{name}", expected, "missing")
        if not holds(value[name]):
            raise FieldError(f"{dot}{name}", expected, value[name])


def _completed(value: Any) -> Any:
    is_first = isinstance(value, dict) and value.get("version") == 1
    return {**_LATER, **value} if is_first else value


def _check_shard(shard: Any, at: str, name: str) -> None:
    named: dict[str, Rule] = {"name": (f"{name!r}", lambda value: value == name)}
    check_fields(shard, {**named, **NOTE}, at)
    _check_numbers(shard, f"{at}.")


def _check_numbers(shard: dict, dot: str) -> None:
    # Each sample has a fingerprint of eight bytes, and each batch is a record.
    if shard["rows"] > shard["bytes"] // 8:
        raise FieldError(f"{dot}rows", f"at most {shard['bytes'] // 8}", shard["rows"])
    if shard["batches"] > shard["bytes"] // 16:
        raise FieldError(f"{dot}batches", f"at most {shard['bytes'] // 16}", shard["batches"])


def _check_outputs(plan: dict) -> None:
    """Raises unless the components are those of the outputs, taps and keys, with their types."""
    is_compact = plan["dtype"] == contents.COMPACT
    for name in ("top_k", "classes") if is_compact else ():
        if plan[name] is None:
            raise FieldError(name, f"a number, with dtype={contents.COMPACT!r}", None)
    found, expected = plan["components"], set(_names(plan))
    if set(found) != expected:
        raise FieldError("components", f"{sorted(expected)}", sorted(found))
    for name, spec in found.items():
        at = f"components[{name!r}]"
        check_fields(spec, _SPEC, at)
        if name in (FINGERPRINTS, KEYS) and spec != _MARK:
            raise FieldError(at, f"{_MARK}", spec)
    if (plan["top_k"] or 0) > (plan["classes"] or _MOST):
        raise FieldError("top_k", f"at most {plan['classes']}", plan["top_k"])
    for name in contents.flatten_names(plan) if is_compact else ():
        wanted = to_json({name: contents.packed_spec(plan, from_json(found)[name])})[name]
        if found[name] != wanted:
            raise FieldError(f"components[{name!r}]", f"{wanted}", found[name])


def _names(plan: dict) -> Iterator[str]:
    yield FINGERPRINTS
    if plan["has_keys"]:
        yield KEYS
    yield from (f"taps/{i}" for i in range(len(plan["taps"])))
    yield from contents.flatten_names(plan)


def _is_shape(value: Any) -> bool:
    sizes = isinstance(value, list) and len(value) > 0 and value[0] is None
    return sizes and all(size is None or _is_integer(0)(size) for size in value[1:])


def _is_dtype(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        dtype = tf.as_dtype(value)
    except TypeError:
        return False
    return dtype.name == value and dtype not in (tf.resource, tf.variant)


_SPEC: dict[str, Rule] = {
    "shape": ("null and then sizes", _is_shape),
    "dtype": ("the name of a type of tensors", _is_dtype),
}
_MARK = {"shape": [None], "dtype": "int64"}


# A record: the teacher's outputs for a batch, and fingerprints of its samples.
#
# A TFRecord of one `tf.train.Example`, whose features are tensors as `tf.io.serialize_tensor`
# writes them (shape and dtype included): the components of the outputs and taps by name, and
# `"fingerprints"`, `"keys"` (int64, one for each sample).


FINGERPRINTS, KEYS = "fingerprints", "keys"


def encode(components: dict[str, tf.Tensor]) -> bytes:
    """The bytes of a record.

    Args:
        components: Dict from names to eager tensors `[batch, ...]`.
    """
    features = {
        name: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[tf.io.serialize_tensor(value).numpy()])
        )
        for name, value in components.items()
    }
    return tf.train.Example(
        features=tf.train.Features(feature=dict(sorted(features.items())))
    ).SerializeToString(deterministic=True)


def decode(record: tf.Tensor, specs: dict[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """The components of a record, in TensorFlow operations.

    Args:
        record: A scalar string tensor.
        specs: Dict from names to `tf.TensorSpec`s `[batch, ...]`.
    """
    wanted = {name: tf.io.FixedLenFeature([], tf.string) for name in specs}
    found = tf.io.parse_single_example(record, wanted)
    return {
        name: tf.ensure_shape(tf.io.parse_tensor(found[name], spec.dtype), spec.shape)
        for name, spec in specs.items()
    }


def stored_batches(folder: Any, manifest: dict, shards: list[dict]) -> tf.data.Dataset:
    """The records of shards in order, a dict of components for each batch.

    Args:
        folder: The cache: its path, or its `copies.Copies` where it is in a store.
        manifest: Its manifest.
        shards: Those of the manifest that are read.
    """
    specs = from_json(manifest["components"])
    if isinstance(folder, copies.Copies):
        data = folder.records_of(shards)
    else:
        files = [str(folder / f"{shard['name']}.tfrecord") for shard in shards]
        counts = np.array([shard["batches"] for shard in shards], "int64")
        data = tf.data.Dataset.from_tensor_slices((files, counts)).flat_map(_records_of)
    return data.map(lambda record: decode(record, specs), num_parallel_calls=tf.data.AUTOTUNE)


def _records_of(file: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """The records of a shard. One that is damaged or missing is an error that names the file.

    TensorFlow's own error for a record whose checksum differs names the byte, not the file. Such
    records are skipped, and counted as missing here. A file that cannot be opened would be tried
    for ever.
    """
    whole = tf.data.TFRecordDataset(file, buffer_size=4 * 1024 * 1024)
    whole = whole.ignore_errors(log_warning=False).map(lambda record: (record, True))
    whole = tf.data.Dataset.from_tensors(file).filter(_is_file).flat_map(lambda _: whole)
    missing = tf.data.Dataset.from_tensors(("", False)).repeat(count)
    numbered = whole.concatenate(missing).take(count).enumerate()
    return numbered.map(lambda number, found: _whole_record(file, number, *found))


def _is_file(file: tf.Tensor) -> tf.Tensor:
    if os.name == "nt":  # patterns are others there
        return tf.constant(True)
    pattern = tf.strings.regex_replace(file, r"([*?\[\\])", r"\\\1")
    return tf.size(tf.io.matching_files(pattern)) > 0


def _whole_record(
    file: tf.Tensor, number: tf.Tensor, record: tf.Tensor, is_whole: tf.Tensor
) -> tf.Tensor:
    message = tf.strings.join(
        [
            "keras_kd: record ",
            tf.strings.as_string(number),
            " of ",
            file,
            " is damaged or missing. load_cache(..., verify=True) checks every file.",
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(is_whole, [message])]):
        return tf.identity(record)


def to_json(specs: dict[str, tf.TensorSpec]) -> dict[str, dict]:
    """Specifications as lists and texts; the first dimension, the batch, is always unknown."""
    return {
        name: {"shape": [None, *spec.shape[1:]], "dtype": spec.dtype.name}
        for name, spec in specs.items()
    }


def from_json(specs: dict[str, dict]) -> dict[str, tf.TensorSpec]:
    """The inverse of `to_json`."""
    return {
        name: tf.TensorSpec(spec["shape"], tf.as_dtype(spec["dtype"]))
        for name, spec in specs.items()
    }
