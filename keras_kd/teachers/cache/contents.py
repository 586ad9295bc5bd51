"""What a cache stores of a teacher: its outputs and taps as named components, and back."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd.ops import compact_logits, sparse_logits
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.taps import tap
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import Teacher, TeacherDescription, TeacherInputs

COMPACT = "compact"
DTYPES = ("float16", "bfloat16", "float32", COMPACT, None)
_SPARSE = "outputs/0/"
_PACKED = _SPARSE + "packed"
_FIELDS = tuple(field.name for field in dataclasses.fields(SparseLogits))


def record(
    teacher: Any, taps: Any, dtype: str | None, top_k: int | None, from_logits: bool
) -> "OutputRecorder":
    """An `OutputRecorder` of whatever `Distiller` takes as a teacher.

    Args:
        teacher: The teacher.
        taps: Its layers to record, or `None`.
        dtype: See `OutputRecorder`, as for all that follows.
        top_k: See there.
        from_logits: See there.

    Raises:
        ValueError: The teacher's outputs cannot be stored.
    """
    source = keras_model.adapt(teacher)
    described = source.describe()
    if described.limits():
        raise ValueError(
            f"A {described.kind} cannot be cached: {described.limits()[0]}. A cache stores what "
            "follows from the inputs alone."
        )
    if source.last_activation() == "softmax" and from_logits and top_k is not None:
        raise ValueError(
            "The teacher ends in softmax, and top_k keeps logits. Remove the softmax from its last "
            "layer (activation=None), or pass from_logits=False: the logarithms are stored."
        )
    layers = [source.resolve(layer) for layer in tap.check_each("taps", taps)]
    return OutputRecorder(source, source.describe(layers), dtype, top_k, from_logits)


@dataclasses.dataclass
class OutputRecorder:
    """Runs a teacher for what a cache stores of a batch.

    Attributes:
        source: The `Teacher`.
        teacher: Its description; `layers` are those that are recorded.
        dtype: The type in which outputs are stored; `None`: the teacher's own; `"compact"`: bytes
            of `compact_logits`, and taps in float16.
        top_k: How many logits are stored, or `None` for all.
        from_logits: Whether the teacher returns logits (else their exponentials).
        structure: The outputs' structure, known after the first call: names, or a number.
        classes: The number of classes, where `top_k` of them are stored; known after it too.
    """

    source: Teacher
    teacher: TeacherDescription
    dtype: str | None
    top_k: int | None
    from_logits: bool
    structure: Any = None
    classes: int | None = None

    def __post_init__(self) -> None:
        self._forward = self.source.with_taps(list(self.teacher.layers))

    def __call__(self, inputs: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The components of a batch, and whether they are sound, in TensorFlow operations.

        Returns:
            Dict of the components, and two booleans: whether none holds NaN, and whether the type
            in which they are stored can hold them.
        """
        outputs, taps = self._forward(TeacherInputs(inputs))
        self.structure = structure_of(outputs)
        flat = keras.tree.flatten(outputs)
        exact = {f"outputs/{i}": tf.convert_to_tensor(value) for i, value in enumerate(flat)}
        no_nan = []
        if self.top_k is not None:
            logits = exact.pop("outputs/0")
            self.classes = self._checked_classes(flat)
            if self.dtype == COMPACT:
                exact[_PACKED], is_number = compact_logits.keep_compact(
                    logits, self.top_k, self.from_logits
                )
                no_nan.append(is_number)
            else:
                sparse = sparse_logits.keep_largest(logits, self.top_k, self.from_logits)
                exact.update(_components_of_sparse(sparse, self.classes))
        for i, layer in enumerate(self.teacher.layers):
            exact[f"taps/{i}"] = tf.convert_to_tensor(taps[layer])
        stored = {name: self._cast(name, value) for name, value in exact.items()}
        no_nan += [_has_no_nan(value) for value in exact.values()]
        has_no_nan = tf.reduce_all(no_nan)
        fits = tf.reduce_all([_is_as_finite(exact[name], stored[name]) for name in exact])
        return stored, tf.stack([has_no_nan, fits])

    def _checked_classes(self, outputs: list) -> int:
        classes = outputs[0].shape[-1] if len(outputs) == 1 else None
        if classes is None or self.top_k is None or self.top_k > classes:
            raise ValueError(
                "`top_k` keeps the largest logits of one output [batch, ..., classes], and cannot "
                f"exceed the number of classes. Received: top_k={self.top_k}, outputs of shapes "
                f"{[tuple(x.shape) for x in outputs]}"
            )
        return classes

    def _cast(self, name: str, value: tf.Tensor) -> tf.Tensor:
        exact = name.endswith(("levels", "slopes", "indices"))
        if self.dtype is None or exact or not value.dtype.is_floating:
            return value
        return tf.cast(value, "float16" if self.dtype == COMPACT else self.dtype)


def _components_of_sparse(sparse: SparseLogits, classes: int) -> dict[str, tf.Tensor]:
    fields = {_SPARSE + name: getattr(sparse, name) for name in _FIELDS}
    if classes <= 65536:
        fields[_SPARSE + "indices"] = tf.cast(sparse.indices, tf.uint16)
    return fields


def restored(components: dict, manifest: dict) -> tuple[Any, dict]:
    """`(outputs, {layer: value})` from a record's components."""
    structure, top_k = manifest["structure"], manifest["top_k"]
    if manifest["dtype"] == COMPACT:
        outputs = vars(compact_logits.expand(components[_PACKED], top_k, manifest["classes"]))
    elif top_k is not None:
        fields = {name: components[_SPARSE + name] for name in _FIELDS}
        fields["indices"] = tf.cast(fields["indices"], tf.int32)
        outputs = fields
    else:
        flat = [components[name] for name in flatten_names(manifest)]
        outputs = _structured(flat, structure)
    return outputs, {layer: components[f"taps/{i}"] for i, layer in enumerate(manifest["taps"])}


def flatten_names(plan: dict) -> list[str]:
    """The names of the components that the outputs of a plan or manifest are stored as."""
    if plan["dtype"] == COMPACT:
        return [_PACKED]
    if plan["top_k"] is not None:
        return [_SPARSE + name for name in _FIELDS]
    return [f"outputs/{i}" for i in _range(plan["structure"])]


def packed_spec(plan: dict, spec: tf.TensorSpec) -> tf.TensorSpec:
    """What the bytes of a compact plan must be, for the batch and positions of `spec`."""
    size = compact_logits.bytes_of(plan["top_k"], plan["classes"])
    return tf.TensorSpec([*spec.shape[:-1], size], tf.uint8)


def without_bytes(manifest: dict, specs: dict) -> tuple[dict, dict]:
    """A manifest and specifications of what bytes expand to, where only shapes are traced."""
    if manifest["dtype"] != COMPACT:
        return manifest, specs
    rows = list(specs[_PACKED].shape[:-1])
    k, levels = manifest["top_k"], len(sparse_logits.TEMPERATURES)
    fields = {"logits": k, "indices": k, "levels": levels, "slopes": levels}
    expanded = {
        _SPARSE + name: tf.TensorSpec([*rows, n], tf.int32 if name == "indices" else tf.float32)
        for name, n in fields.items()
    }
    others = {name: spec for name, spec in specs.items() if name != _PACKED}
    return {**manifest, "dtype": "float32"}, {**others, **expanded}


def structure_of(outputs: Any) -> Any:
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


def _range(structure: Any) -> range:
    if structure is None:
        return range(1)
    return range(structure if isinstance(structure, int) else len(structure))


def _structured(flat: list, structure: Any) -> Any:
    if structure is None:
        return flat[0]
    return flat if isinstance(structure, int) else dict(zip(structure, flat, strict=True))


def _too_deep(outputs: Any) -> ValueError:
    shapes = keras.tree.map_structure(lambda x: tuple(x.shape), outputs)
    return ValueError(
        "A cache stores one output, a list or a dict of them. The teacher returns a deeper "
        f"structure: {shapes}. Wrap it in a function that flattens it."
    )


def _has_no_nan(value: tf.Tensor) -> tf.Tensor:
    if not value.dtype.is_floating:
        return tf.constant(True)
    return ~tf.reduce_any(tf.math.is_nan(value))


def _is_as_finite(value: tf.Tensor, stored: tf.Tensor) -> tf.Tensor:
    """Whether no number became infinite in a type of fewer bits."""
    if not value.dtype.is_floating:
        return tf.constant(True)
    return tf.reduce_all(tf.math.is_finite(value) == tf.math.is_finite(stored))
