"""`Ensemble`: several teachers whose outputs are combined, and the ways to combine them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.serialization import serialized
from keras_kd._utils.validation import invalid
from keras_kd.losses import shapes
from keras_kd.models import matching
from keras_kd.teachers import keras_model, protocol


@keras.saving.register_keras_serializable(package="keras_kd")
class Ensemble(protocol.Teacher):
    """Several teachers, whose outputs are combined into one for each sample.

    With the logits `z_i` of member `i`, its weight `w_i` (the weights sum to 1), its temperature
    `T_i` and `p_i = softmax(z_i / T_i)` the ensemble's logits are

    - `"mean_logits"`: `sum_i w_i z_i / T_i`
    - `"mean_probabilities"`: `log sum_i w_i p_i`
    - `"confidence"`: `log sum_i c_i p_i`, `c_i` in proportion to `w_i max_k p_ik` for each sample:
      a more confident member counts for more
    - `"per_sample_best"`: `log p_b` of the one member `b` that gives the sample's label the highest
      weighted probability; where a sample has no label, of the most confident one.

    Members run one after another, so that only one of them needs memory for its layers at a time.
    They are not changed. Their layers are tapped by paths such as `"members/0/block3"`.

    Args:
        members: Teachers: Keras models, functions, `Teacher`s. Each may have a `preprocess` of its
            own: see `KerasTeacher`.
        weights: A positive number for each member; default: equal weights. `"per_sample_best"`
            uses them for samples with a label only.
        combine: `"mean_logits"`, `"mean_probabilities"`, `"confidence"` or `"per_sample_best"`.
        temperatures: A positive number for each member, which calibrates it; default: 1.
        class_masks: For each member `None`, or a list of booleans: which classes it knows. Its
            logits of the others do not count: they become logarithms of probabilities among its own
            classes, and a class is averaged over those members that know it.
        preprocess: See `Teacher`; before the members' own.
        name: See `Teacher`.

    Call arguments: the inputs. Returns logits `[batch, ..., classes]` in float32, or a structure of
    them where the members have several outputs (which are combined output by output).

    Raises:
        ValueError: An argument is wrong, or no member knows some class.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    members = [keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)]) for _ in range(3)]
    teacher = kd.teachers.Ensemble(members, combine="mean_probabilities")
    assert teacher(np.ones((2, 8), "float32")).shape == (2, 10)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student)
    ```

    References: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531; Zhang et al., "Confidence-Aware Multi-Teacher Knowledge
    Distillation", https://arxiv.org/abs/2201.00007
    """

    def __init__(
        self,
        members: Sequence,
        weights: Sequence[float] | None = None,
        combine: str = "mean_logits",
        temperatures: Sequence[float] | None = None,
        class_masks: Sequence | None = None,
        preprocess: Callable | None = None,
        name: str = "ensemble",
        **kwargs: Any,
    ) -> None:
        super().__init__(preprocess, name, **kwargs)
        given = _check_members(members)
        validation.one_of("combine", combine, COMBINATIONS)
        adapted = [keras_model.adapt(member) for member in given]
        described = [member.describe() for member in adapted]
        for member in described:
            _check_runs_in_steps(member)
        # Keras must track the models that were passed, not the `Teacher`s around them: they are
        # what it saves, and what paths of taps name.
        self.sources = models.Untracked(adapted)
        self.members = [member for member in given if isinstance(member, keras.layers.Layer)]
        self.given = models.Untracked(given)
        self.combine = combine
        self.weights_of_members = _normalized_weights(weights, len(given))
        self.temperatures = tuple(_one_for_each("temperatures", temperatures, len(given)))
        self.class_masks = _check_class_masks(class_masks, len(given))
        self.supports_jit = all(member.supports_jit for member in described)
        self.runs_on_host = any(member.runs_on_host for member in described)
        # Members that take fewer wait for their turn.
        self.parallel_batches = max(member.parallel_batches for member in adapted)

    def bind(self, student: keras.Model) -> None:
        for member in self.sources.value:
            member.bind(student)

    def update(self, student: keras.Model) -> None:
        for member in self.sources.value:
            member.update(student)

    @property
    def failure(self) -> Exception | None:
        found = (member.failure for member in self.sources.value)
        return next((each for each in found if each is not None), None)

    def call(self, inputs: Any, labels: Any = None) -> Any:
        return self._combine_members(inputs, protocol.TeacherInputs(inputs, labels))

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        return self._combine_members(self.prepared(batch.inputs), batch)

    def _combine_members(self, inputs: Any, batch: protocol.TeacherInputs) -> Any:
        """The combined outputs for inputs that are prepared; `batch` has the labels."""
        outputs: list = []
        for member in self.sources.value:
            inputs = _wait_for(outputs, inputs)
            own = member.predict_batch(protocol.TeacherInputs(inputs, batch.labels, batch.student))
            outputs.append(keras.tree.map_structure(tf.convert_to_tensor, own))
        outputs = self._align(outputs)
        flat = [keras.tree.flatten(each) for each in outputs]
        combined = [
            self._combine_output(logits, labels)
            for logits, labels in zip(
                zip(*flat, strict=True), self._labels(batch, outputs[0]), strict=True
            )
        ]
        return keras.tree.pack_sequence_as(outputs[0], combined)

    def _align(self, outputs: list) -> list:
        """The members' outputs in the structure of the first one's, matched by name."""
        names, first = [member.output_names for member in self.sources.value], outputs[0]
        aligned = [
            matching.align_outputs(each, own, first, names[0])
            for each, own in zip(outputs, names, strict=True)
        ]
        for each in aligned[1:]:
            try:
                keras.tree.assert_same_structure(first, each)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"The members of {self.name!r} give outputs of different structures: {error}. "
                    "Give them outputs of the same names, or lists of the same length."
                ) from error
        return aligned

    def _labels(self, batch: protocol.TeacherInputs, outputs: Any) -> list:
        """The labels of each output, `None` where there are none or they are not used."""
        labels, count = batch.labels, len(keras.tree.flatten(outputs))
        if labels is None or self.combine != "per_sample_best":
            return [None] * count
        if not keras.tree.is_nested(labels):
            return [labels] if count == 1 else [None] * count
        if batch.student is not None and not isinstance(labels, dict):
            # In a list they are in the student's order.
            names = batch.student.names
            labels = matching.align_outputs(labels, names, outputs, self.output_names)
        found = matching.split_by_output(labels, None, outputs, self.output_names)
        return found if len(found) == count else [None] * count

    def input_specs(self) -> dict[str, Any] | None:
        """Those of all members, where all are known."""
        found = [member.input_specs() for member in self.sources.value]
        if self.preprocess is not None or None in found:
            return None
        union = {name: spec for specs in found for name, spec in specs.items()}
        if len(union) > 1:
            union.pop("", None)
        return union

    @property
    def output_names(self) -> Any:
        """Those of the first member, with which the others are aligned."""
        return self.sources.value[0].output_names

    def _combine_output(self, outputs: Sequence, labels: Any) -> tf.Tensor:
        if len({output.shape[-1] for output in outputs}) > 1:
            raise ValueError(
                f"The members of {self.name!r} give outputs of different sizes: "
                f"{[tuple(output.shape) for output in outputs]}. Give them the same classes."
            )
        logits = [
            tf.cast(output, tf.float32) / temperature
            for output, temperature in zip(outputs, self.temperatures, strict=True)
        ]
        masks = self._masks(logits[0].shape[-1])
        if labels is not None:
            labels = shapes.class_indices(labels, logits[0])
        return COMBINATIONS[self.combine](logits, self.weights_of_members, masks, labels)

    def _masks(self, classes: int) -> list[np.ndarray] | None:
        if self.class_masks is None:
            return None
        masks = [np.ones(classes, bool) if m is None else np.array(m) for m in self.class_masks]
        if any(len(mask) != classes for mask in masks):
            raise ValueError(
                f"`class_masks` must have a boolean for each of the {classes} classes. Received: "
                f"masks of {[len(mask) for mask in masks]}"
            )
        unknown = np.flatnonzero(~np.any(masks, axis=0))
        if unknown.size:
            raise ValueError(
                f"No member of {self.name!r} knows the classes {unknown[:10].tolist()}. Let one of "
                "`class_masks` include them, or leave them out of the student's soft loss."
            )
        return masks

    def last_activation(self, output: str | int | None = None) -> str | None:
        found = {member.last_activation(output) for member in self.sources.value}
        return next((each for each in ("softmax", "sigmoid") if each in found), None)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "members": [serialized("teacher", member) for member in self.given.value],
                "weights": [float(weight) for weight in self.weights_of_members],
                "combine": self.combine,
                "temperatures": list(self.temperatures),
                "class_masks": self.class_masks,
            }
        )
        return config


def _wait_for(earlier: list, inputs: Any) -> Any:
    """The inputs, available only when the last member has run.

    In a graph nothing else would keep TensorFlow from running all members at once.
    """
    if not earlier or tf.executing_eagerly():
        return inputs
    with tf.control_dependencies(keras.tree.flatten(earlier[-1])):
        return keras.tree.map_structure(tf.identity, inputs)


def _check_members(members: Any) -> list:
    if not isinstance(members, (list, tuple)) or len(members) < 1:
        raise invalid("members", "a list of teachers, at least one", repr(members))
    return list(members)


def _check_runs_in_steps(member: protocol.TeacherDescription) -> None:
    limits = member.limits("needs_attached", "is_sparse")
    if limits:
        raise ValueError(
            f"{member.kind} cannot be a member of an ensemble: {limits[0]}. Write a cache of the "
            "whole ensemble with keras_kd.cache_teacher, from teachers that run."
        )


def _normalized_weights(weights: Any, count: int) -> np.ndarray:
    numbers = np.asarray(_one_for_each("weights", weights, count))
    return (numbers / sum(numbers)).astype(np.float32)


def _one_for_each(name: str, values: Any, count: int) -> list[float]:
    """A positive number for each member; by default 1."""
    if values is None:
        return [1.0] * count
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        raise invalid(name, f"one positive number for each of the {count} members", repr(values))
    return [validation.positive(f"{name}[{i}]", value) for i, value in enumerate(values)]


def _check_class_masks(masks: Any, count: int) -> list | None:
    if masks is None:
        return None
    if not isinstance(masks, (list, tuple)) or len(masks) != count:
        raise invalid(
            "class_masks",
            f"None or a list of booleans for each of the {count} members",
            repr(masks),
        )
    masks = [None if mask is None else np.asarray(mask) for mask in masks]
    for mask in masks:
        if mask is not None and (mask.dtype != bool or mask.ndim != 1 or not mask.any()):
            raise ValueError(
                "A mask of `class_masks` must be a list of booleans, one for each class, at least "
                f"one of them true. Received: {mask!r}"
            )
    return [None if mask is None else mask.tolist() for mask in masks]


# The ways to combine.
#
# Each takes a list of logits `[..., classes]` (float32, temperatures applied), the members' weights
# (which sum to 1), their masks of classes (a list of boolean arrays, or `None`) and the labels
# (`[...]`, or `None`), and returns logits.


def mean_logits(logits: list, weights: np.ndarray, masks: Any, labels: Any) -> tf.Tensor:
    """`sum_i w_i z_i`; with masks of log-probabilities among each member's own classes."""
    del labels
    if masks is None:
        return tf.add_n([weight * each for weight, each in zip(weights, logits, strict=True)])
    # Logits of different members share no origin; those of a class would be averaged over some of
    # them only. Logarithms of probabilities do.
    known = [tf.nn.log_softmax(_masked(*pair)) for pair in zip(logits, masks, strict=True)]
    total = sum(
        weight * tf.where(mask, each, 0.0)
        for weight, each, mask in zip(weights, known, masks, strict=True)
    )
    return total / _weight_by_class(weights, masks)


def mean_probabilities(logits: list, weights: np.ndarray, masks: Any, labels: Any) -> tf.Tensor:
    """`log sum_i w_i p_i`; with masks a class is averaged over the members that know it."""
    del labels
    probabilities = _probabilities(logits, masks)
    total = sum(weight * each for weight, each in zip(weights, probabilities, strict=True))
    return _log(total if masks is None else total / _weight_by_class(weights, masks))


def confidence(logits: list, weights: np.ndarray, masks: Any, labels: Any) -> tf.Tensor:
    """`log sum_i c_i p_i`, `c_i` in proportion to `w_i max p_i`."""
    del labels
    probabilities = tf.stack(_probabilities(logits, masks))  # [members, ..., classes]
    shares = tf.reduce_max(probabilities, axis=-1, keepdims=True) * _by_member(weights, logits)
    if masks is None:
        return _log(tf.reduce_sum(shares * probabilities, 0) / tf.reduce_sum(shares, 0))
    known = tf.cast(_by_member(np.stack(masks), logits), tf.float32)
    total = tf.reduce_sum(shares * probabilities, 0)
    return _log(tf.math.divide_no_nan(total, tf.reduce_sum(shares * known, 0)))


def per_sample_best(logits: list, weights: np.ndarray, masks: Any, labels: Any) -> tf.Tensor:
    """`log p_b` of the best member for the label, or of the most confident one without a label."""
    probabilities = tf.stack(_probabilities(logits, masks))
    score = highest = tf.reduce_max(probabilities, axis=-1)
    if labels is not None:
        classes = probabilities.shape[-1]
        of_label = tf.reduce_sum(probabilities * tf.one_hot(labels, classes), axis=-1)
        of_label *= _by_member(weights, logits)[..., 0]
        is_class = (labels >= 0) & (labels < classes)
        score = tf.where(is_class, of_label, highest)
    best = tf.one_hot(tf.argmax(score, axis=0), len(logits), axis=0)
    # Selected, not summed with zeros: a member's logits may be infinite.
    chosen = tf.where(best[..., None] > 0, probabilities, 0.0)
    return _log(tf.reduce_sum(chosen, axis=0))


COMBINATIONS: dict[str, Callable] = {
    "mean_logits": mean_logits,
    "mean_probabilities": mean_probabilities,
    "confidence": confidence,
    "per_sample_best": per_sample_best,
}


def _masked(logits: tf.Tensor, mask: np.ndarray) -> tf.Tensor:
    return tf.where(mask, logits, -np.inf)


def _probabilities(logits: list, masks: Any) -> list[tf.Tensor]:
    if masks is not None:
        logits = [_masked(*pair) for pair in zip(logits, masks, strict=True)]
    return [tf.nn.softmax(each) for each in logits]


def _weight_by_class(weights: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    """The total weight of the members that know each class, `[classes]`."""
    return np.sum([w * np.float32(m) for w, m in zip(weights, masks, strict=True)], axis=0)


def _by_member(values: np.ndarray, logits: list) -> np.ndarray:
    """Values `[members]` or `[members, classes]`, to multiply `[members, ..., classes]`."""
    values = np.asarray(values)
    rank = logits[0].shape.rank
    last = values.shape[1:] or (1,)
    return values.reshape((len(values), *[1] * (rank - 1), *last))


def _log(probabilities: tf.Tensor) -> tf.Tensor:
    """The logarithm, -inf at 0: to the kernels a class of probability 0."""
    return tf.math.log(probabilities)
