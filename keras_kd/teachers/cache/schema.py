"""What the files of a cache may say: one table of fields for each, checked before anything is used.

A file of JSON is data from outside. Each field has a rule, and the fields have to fit each other:
names of shards are those that the writer gives, numbers are such as the files can have.
"""

import re

import tensorflow as tf

from keras_kd.teachers.cache import contents

_MOST = 2**53  # what JSON holds exactly wherever it was written


class WrongError(Exception):
    """A field is not what it may be: its name, what was expected, and what is there."""

    def __init__(self, name, expected, found):
        super().__init__(f"`{name}` is {_briefly(found)}; expected {expected}")


def _briefly(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_integer(least, most=_MOST):
    return lambda value: type(value) is int and least <= value <= most


def _is_digest(value):
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_list_of_texts(value):
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_distinct(value):
    return _is_list_of_texts(value) and len(set(value)) == len(value)


def _is_structure(value):
    names = _is_distinct(value) and value == sorted(value)
    return value is None or names or _is_integer(0)(value)


def _is_dict_of_texts(value):
    return isinstance(value, dict) and all(_is_text_or_none(each) for each in value.values())


def _is_text_or_none(value):
    return value is None or isinstance(value, str)


def _optional(rule):
    return lambda value: value is None or rule(value)


_COUNT = "an integer, at least 1", _is_integer(1)
DIGEST = "64 hexadecimal digits", _is_digest

NOTE = {
    "bytes": _COUNT,
    "sha256": DIGEST,
    "batches": _COUNT,
    "rows": ("an integer, at least 0", _is_integer(0)),
    "inputs": DIGEST,
}
PLAN = {
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
MANIFEST = {**PLAN, "shards": ("a list", lambda value: isinstance(value, list))}
# What the first caches of format version 1 did not say yet.
_LATER = {"last_activations": {}, "output_names": None, "classes": None}


def check_note(value):
    """The note of a shard.

    Raises:
        WrongError: Of a field.
    """
    check_fields(value, NOTE)
    _check_numbers(value, "")
    return value


def check_plan(value):
    """The plan of a cache, with every field; as of `check_note`."""
    value = _completed(value)
    check_fields(value, PLAN)
    _check_outputs(value)
    return value


def check_manifest(value, name_of):
    """The manifest of a cache, with every field; as of `check_note`.

    Args:
        value: The manifest.
        name_of: The function that names shards, from the numbers of the view and the shard.
    """
    value = _completed(value)
    check_fields(value, MANIFEST)
    _check_outputs(value)
    if len(value["shards"]) != value["views"]:
        raise WrongError("views", f"{len(value['shards'])}, as of `shards`", value["views"])
    for view, shards in enumerate(value["shards"]):
        at = f"shards[{view}]"
        if not isinstance(shards, list) or not shards:
            raise WrongError(at, "a list that is not empty", shards)
        for number, shard in enumerate(shards):
            _check_shard(shard, f"{at}[{number}]", name_of(view, number))
            full = value["batches_per_shard"]
            if shard["batches"] > full or (shard["batches"] < full and number < len(shards) - 1):
                raise WrongError(f"{at}[{number}].batches", f"{full}", shard["batches"])
    return value


def check_fields(value, fields, at=""):
    """Raises unless an object has these fields, no others, and each what its rule says.

    Args:
        value: What was read.
        fields: Dict from names to `(what is expected, a predicate)`.
        at: Where the object is.
    """
    if not isinstance(value, dict):
        raise WrongError(at or "the file", "an object", value)
    dot = f"{at}." if at else ""
    for name in sorted(value):
        if name not in fields:
            raise WrongError(f"{dot}{name}", "no such field", value[name])
    for name, (expected, holds) in fields.items():
        if name not in value:
            raise WrongError(f"{dot}{name}", expected, "missing")
        if not holds(value[name]):
            raise WrongError(f"{dot}{name}", expected, value[name])


def _completed(value):
    is_first = isinstance(value, dict) and value.get("version") == 1
    return {**_LATER, **value} if is_first else value


def _check_shard(shard, at, name):
    named = {"name": (f"{name!r}", lambda value: value == name)}
    check_fields(shard, {**named, **NOTE}, at)
    _check_numbers(shard, f"{at}.")


def _check_numbers(shard, dot):
    # Each row has a fingerprint of eight bytes, and each batch is a record.
    if shard["rows"] > shard["bytes"] // 8:
        raise WrongError(f"{dot}rows", f"at most {shard['bytes'] // 8}", shard["rows"])
    if shard["batches"] > shard["bytes"] // 16:
        raise WrongError(f"{dot}batches", f"at most {shard['bytes'] // 16}", shard["batches"])


def _check_outputs(plan):
    """Whether the components are those of the outputs, taps and keys, with shapes and types."""
    found, expected = plan["components"], set(_names(plan))
    if set(found) != expected:
        raise WrongError("components", f"{sorted(expected)}", sorted(found))
    for name, spec in found.items():
        at = f"components[{name!r}]"
        check_fields(spec, _SPEC, at)
        if name in (FINGERPRINTS, KEYS) and spec != _MARK:
            raise WrongError(at, f"{_MARK}", spec)
    if (plan["top_k"] or 0) > (plan["classes"] or _MOST):
        raise WrongError("top_k", f"at most {plan['classes']}", plan["top_k"])


def _names(plan):
    yield FINGERPRINTS
    if plan["has_keys"]:
        yield KEYS
    yield from (f"taps/{i}" for i in range(len(plan["taps"])))
    yield from contents.names_of_outputs(plan["structure"], plan["top_k"])


def _is_shape(value):
    sizes = isinstance(value, list) and len(value) > 0 and value[0] is None
    return sizes and all(size is None or _is_integer(0)(size) for size in value[1:])


def _is_dtype(value):
    if not isinstance(value, str):
        return False
    try:
        dtype = tf.as_dtype(value)
    except TypeError:
        return False
    return dtype.name == value and dtype not in (tf.resource, tf.variant)


_SPEC = {
    "shape": ("null and then sizes", _is_shape),
    "dtype": ("the name of a type of tensors", _is_dtype),
}
_MARK = {"shape": [None], "dtype": "int64"}


# A record: what the teacher said of a batch, and what the batch was.
#
# A TFRecord of one `tf.train.Example`, whose features are tensors as `tf.io.serialize_tensor`
# writes them (shape and dtype included): the components of the outputs and taps by name, and
# `"fingerprints"`, `"keys"` (int64, one a row).


FINGERPRINTS, KEYS = "fingerprints", "keys"


def encode(components):
    """The bytes of a record.

    Args:
        components: Dict from names to eager tensors `[rows, ...]`.
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


def decode(record, specs):
    """The components of a record, in TensorFlow operations.

    Args:
        record: A scalar string tensor.
        specs: Dict from names to `tf.TensorSpec`s `[rows, ...]`.
    """
    wanted = {name: tf.io.FixedLenFeature([], tf.string) for name in specs}
    found = tf.io.parse_single_example(record, wanted)
    return {
        name: tf.ensure_shape(tf.io.parse_tensor(found[name], spec.dtype), spec.shape)
        for name, spec in specs.items()
    }


def to_json(specs):
    """Specifications as lists and texts; the first dimension, the rows, is always unknown."""
    return {
        name: {"shape": [None, *spec.shape[1:]], "dtype": spec.dtype.name}
        for name, spec in specs.items()
    }


def from_json(specs):
    """What `to_json` has written, as `tf.TensorSpec`s."""
    return {
        name: tf.TensorSpec(spec["shape"], tf.as_dtype(spec["dtype"]))
        for name, spec in specs.items()
    }
