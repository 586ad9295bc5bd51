"""What a cache keeps of a teacher: its outputs and taps as named components, and back."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd.ops import sparse_logits
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.taps import tap
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import TeacherInputs

DTYPES = ("float16", "bfloat16", "float32", None)
_SPARSE = "outputs/0/"
_FIELDS = tuple(field.name for field in dataclasses.fields(SparseLogits))


@dataclasses.dataclass
class Asked:
    """Asks a teacher for what a cache keeps.

    Attributes:
        source: The `Teacher`.
        taps: Its layers, by path.
        dtype: Of what is kept; `None`: the teacher's own.
        top_k: How many logits are kept, or `None` for all.
        from_logits: Whether the teacher returns logits (else their exponentials).
        structure: That of the outputs, known after the first call: names, or a number.
        classes: The number of classes, where `top_k` of them are kept; known likewise.
    """

    source: Any
    taps: list
    dtype: Any
    top_k: Any
    from_logits: bool
    structure: Any = None
    classes: Any = None

    def __post_init__(self):
        # `answer` runs in a graph of its own, so that a batch costs what `predict` would.
        self._teach = self.source.with_taps(self.taps)

    def __call__(self, inputs):
        """The components of a batch, and whether they are sound, in TensorFlow operations.

        Returns:
            Dict of the components, and two booleans: whether none holds NaN, and whether the type
            in which they are kept holds them.
        """
        outputs, taps = self._teach(TeacherInputs(inputs))
        self.structure = structure_of(outputs)
        flat = keras.tree.flatten(outputs)
        found = {}
        for i, value in enumerate(flat):
            found[f"outputs/{i}"] = tf.convert_to_tensor(value)
        if self.top_k is not None:
            logits = found.pop("outputs/0")
            self.classes = self._checked_classes(flat)
            sparse = sparse_logits.largest(logits, self.top_k, self.from_logits)
            found.update(self._kept(sparse, logits.shape[-1]))
        for i, layer in enumerate(self.taps):
            found[f"taps/{i}"] = tf.convert_to_tensor(taps[layer])
        kept = {name: self._stored(name, value) for name, value in found.items()}
        has_no_nan = tf.reduce_all([_no_nan(value) for value in found.values()])
        fits = tf.reduce_all([_same_finite(found[name], kept[name]) for name in found])
        return kept, tf.stack([has_no_nan, fits])

    def _checked_classes(self, outputs):
        classes = outputs[0].shape[-1] if len(outputs) == 1 else None
        if classes is None or self.top_k > classes:
            raise ValueError(
                "`top_k` keeps the largest logits of one output [batch, ..., classes], and cannot "
                f"exceed the number of classes. Received: top_k={self.top_k}, outputs of shapes "
                f"{[tuple(x.shape) for x in outputs]}"
            )
        return classes

    def _kept(self, sparse, classes):
        fields = {_SPARSE + name: getattr(sparse, name) for name in _FIELDS}
        if classes <= 65536:
            fields[_SPARSE + "indices"] = tf.cast(sparse.indices, tf.uint16)
        return fields

    def _stored(self, name, value):
        exact = name.endswith(("levels", "slopes", "indices"))
        if self.dtype is None or exact or not value.dtype.is_floating:
            return value
        return tf.cast(value, self.dtype)


def restored(components, structure, taps, top_k):
    """`(outputs, {layer: value})` of a record's components."""
    if top_k is not None:
        fields = {name: components[_SPARSE + name] for name in _FIELDS}
        fields["indices"] = tf.cast(fields["indices"], tf.int32)
        outputs = fields
    else:
        flat = [components[name] for name in names_of_outputs(structure, top_k)]
        outputs = _structured(flat, structure)
    return outputs, {layer: components[f"taps/{i}"] for i, layer in enumerate(taps)}


def names_of_outputs(structure, top_k):
    """The components that outputs of this structure are kept as."""
    if top_k is not None:
        return [_SPARSE + name for name in _FIELDS]
    return [f"outputs/{i}" for i in _range(structure)]


def structure_of(outputs):
    """How outputs are arranged: `None` for one, a number for a list, sorted names for a dict."""
    if isinstance(outputs, dict):
        if any(keras.tree.is_nested(value) for value in outputs.values()):
            raise _too_deep(outputs)
        return sorted(outputs)
    if isinstance(outputs, (list, tuple)):
        if any(keras.tree.is_nested(value) for value in outputs):
            raise _too_deep(outputs)
        return len(outputs)
    return None


def _range(structure):
    if structure is None:
        return range(1)
    return range(structure if isinstance(structure, int) else len(structure))


def _structured(flat, structure):
    if structure is None:
        return flat[0]
    return flat if isinstance(structure, int) else dict(zip(structure, flat, strict=True))


def _too_deep(outputs):
    shapes = keras.tree.map_structure(lambda x: tuple(x.shape), outputs)
    return ValueError(
        "A cache keeps one output, a list or a dict of them. The teacher gives a deeper structure: "
        f"{shapes}. Wrap it in a function that flattens it."
    )


def _no_nan(value):
    if not value.dtype.is_floating:
        return tf.constant(True)
    return ~tf.reduce_any(tf.math.is_nan(value))


def _same_finite(value, stored):
    """Whether no number has become infinite by its storage in fewer bits."""
    if not value.dtype.is_floating:
        return tf.constant(True)
    return tf.reduce_all(tf.math.is_finite(value) == tf.math.is_finite(stored))


def asked(teacher, taps, dtype, top_k, from_logits):
    """An `Asked` of whatever `Distiller` takes as a teacher.

    Raises:
        ValueError: The teacher's outputs cannot be kept.
    """
    source = keras_model.adapt(teacher)
    if source.needs_carried or source.is_sparse or source.needs_student:
        raise ValueError(
            f"A {type(source).__name__} cannot be cached: what it says depends on more than the "
            "inputs."
        )
    if source.last_activation() == "softmax" and from_logits and top_k is not None:
        raise ValueError(
            "The teacher ends in softmax, and top_k keeps logits. Remove the softmax from its last "
            "layer (activation=None), or pass from_logits=False: the logarithms are kept."
        )
    layers = [source.resolve(layer) for layer in tap.check_each("taps", taps)]
    return Asked(source, layers, dtype, top_k, from_logits)
