"""A record: what the teacher said of a batch, and what the batch was.

A TFRecord of one `tf.train.Example`, whose features are tensors as `tf.io.serialize_tensor` writes
them (shape and dtype included): the components of the outputs and taps by name, and
`"fingerprints"`, `"keys"` (int64, one a row).
"""

import tensorflow as tf

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
