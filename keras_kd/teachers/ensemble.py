"""`Ensemble`: several teachers that answer together."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.serialization import serialized
from keras_kd._utils.validation import invalid
from keras_kd.losses import shapes
from keras_kd.models import matching
from keras_kd.teachers import keras_model, protocol


@keras.saving.register_keras_serializable(package="keras_kd")
class Ensemble(protocol.Teacher):
    """Several teachers, whose answers are combined into one for each row.

    With the logits `z_i` of member `i`, its weight `w_i` (the weights sum to 1), its temperature
    `T_i` and `p_i = softmax(z_i / T_i)` the ensemble's logits are

    - `"mean_logits"`: `sum_i w_i z_i / T_i`
    - `"mean_probabilities"`: `log sum_i w_i p_i`
    - `"confidence"`: `log sum_i c_i p_i`, `c_i` in proportion to `w_i max_k p_ik` for each row: who
      is surer counts for more
    - `"per_sample_best"`: `log p_b` of the one member `b` that gives the row's label the highest
      probability, as weighted; where a row has no label, of the surest one.

    Members run one after another, so that only one of them needs memory for its layers at a time.
    They are left as they are. Their layers are tapped by paths such as `"members/0/block3"`.

    Args:
        members: Teachers: Keras models, functions, `Teacher`s. Each may have a `preprocess` of its
            own: see `KerasTeacher`.
        weights: A positive number for each member; default: all alike. `"per_sample_best"` uses
            them for rows with a label only.
        combine: `"mean_logits"`, `"mean_probabilities"`, `"confidence"` or `"per_sample_best"`.
        temperatures: A positive number for each member, which calibrates it; default: 1.
        class_masks: For each member `None`, or a list of booleans: which classes it knows. What it
            says of the others does not count: its logits become logarithms of probabilities among
            its own classes, and a class is averaged over those members that know it.
        preprocess: As of `Teacher`, before the members' own.
        name: As of `Teacher`.

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
        members,
        weights=None,
        combine="mean_logits",
        temperatures=None,
        class_masks=None,
        preprocess=None,
        name="ensemble",
        **kwargs,
    ):
        super().__init__(preprocess, name, **kwargs)
        given = _checked_members(members)
        validation.one_of("combine", combine, WAYS)
        adapted = [keras_model.adapt(member) for member in given]
        for member in adapted:
            _check_runs_in_steps(member)
        self.sources = _Hidden(adapted)
        # What Keras saves, and what paths of taps name: the models, not what stands for them.
        self.members = [member for member in given if isinstance(member, keras.layers.Layer)]
        self.given = _Hidden(given)
        self.combine = combine
        self.weights_of_members = _weights(weights, len(given))
        self.temperatures = _temperatures(temperatures, len(given))
        self.class_masks = _class_masks(class_masks, len(given))
        self.supports_jit = all(member.supports_jit for member in adapted)
        self.runs_on_host = any(member.runs_on_host for member in adapted)

    def bind(self, student):
        for member in self.sources.values:
            member.bind(student)

    def update(self, student):
        for member in self.sources.values:
            member.update(student)

    def call(self, inputs, labels=None):
        return self.predict_batch(protocol.TeacherInputs(inputs, labels), prepared=True)

    def predict_batch(self, batch, prepared=False):
        inputs = batch.inputs if prepared else self.prepared(batch.inputs)
        answers = []
        for member in self.sources.values:
            inputs = _after(answers, inputs)
            answer = member.predict_batch(
                protocol.TeacherInputs(inputs, batch.labels, batch.student)
            )
            answers.append(keras.tree.map_structure(tf.convert_to_tensor, answer))
        answers = self._alike(answers)
        flat = [keras.tree.flatten(answer) for answer in answers]
        combined = [
            self._combined(outputs, labels)
            for outputs, labels in zip(
                zip(*flat, strict=True), self._labels(batch, answers[0]), strict=True
            )
        ]
        return keras.tree.pack_sequence_as(answers[0], combined)

    def _alike(self, answers):
        """The answers in the structure of the first member's, outputs of one name together."""
        names, first = [each.output_names for each in self.sources.values], answers[0]
        made = [
            matching.aligned(answer, own, first, names[0])
            for answer, own in zip(answers, names, strict=True)
        ]
        for each in made[1:]:
            try:
                keras.tree.assert_same_structure(first, each)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"The members of {self.name!r} give outputs of different structures: {error}. "
                    "Give them outputs of the same names, or lists of as many."
                ) from error
        return made

    def _labels(self, batch, outputs):
        """The labels of each output, `None` where there are none or they are not looked at."""
        labels, count = batch.labels, len(keras.tree.flatten(outputs))
        if labels is None or self.combine != "per_sample_best":
            return [None] * count
        if not keras.tree.is_nested(labels):
            return [labels] if count == 1 else [None] * count
        if batch.student is not None and not isinstance(labels, dict):
            # In a list they are in the student's order.
            names = batch.student.names
            labels = matching.aligned(labels, names, outputs, self.output_names)
        found = matching.of_each(labels, None, outputs, self.output_names)
        return found if len(found) == count else [None] * count

    def input_specs(self):
        """Those of all members, where each tells its own."""
        found = [member.input_specs() for member in self.sources.values]
        if self.preprocess is not None or None in found:
            return None
        joined = {name: spec for specs in found for name, spec in specs.items()}
        if len(joined) > 1:
            joined.pop("", None)
        return joined

    @property
    def output_names(self):
        """Those of the first member, in whose order the others' are brought."""
        return self.sources.values[0].output_names

    def _combined(self, outputs, labels):
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
            labels = shapes.classes(labels, logits[0])
        return WAYS[self.combine](logits, self.weights_of_members, masks, labels)

    def _masks(self, classes):
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
                f"No member of {self.name!r} knows the classes {unknown[:10].tolist()}. Give them "
                "a member by `class_masks`, or leave them out of the student's soft loss."
            )
        return masks

    def last_activation(self, output=None):
        found = {member.last_activation(output) for member in self.sources.values}
        return next((each for each in ("softmax", "sigmoid") if each in found), None)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "members": [serialized("teacher", member) for member in self.given.values],
                "weights": [float(weight) for weight in self.weights_of_members],
                "combine": self.combine,
                "temperatures": list(self.temperatures),
                "class_masks": self.class_masks,
            }
        )
        return config


class _Hidden:
    """Holds a list where Keras does not look."""

    def __init__(self, values):
        self.values = list(values)


def _after(earlier, inputs):
    """The inputs, to be had only when the last member has answered.

    In a graph nothing else would keep TensorFlow from running all members at once.
    """
    if not earlier or tf.executing_eagerly():
        return inputs
    with tf.control_dependencies(keras.tree.flatten(earlier[-1])):
        return keras.tree.map_structure(tf.identity, inputs)


def _checked_members(members):
    if not isinstance(members, (list, tuple)) or len(members) < 1:
        raise invalid("members", "a list of teachers, at least one", repr(members))
    return list(members)


def _check_runs_in_steps(member):
    if member.needs_carried or member.is_sparse:
        raise ValueError(
            f"{type(member).__name__} does not run inside of a training step, so it cannot be a "
            "member of an ensemble. Cache what the ensemble says with keras_kd.cache_teacher, from "
            "a function that asks each of the teachers."
        )


def _weights(weights, count):
    weights = _one_each("weights", weights, count)
    return np.float32(np.float64(weights) / sum(weights))


def _temperatures(temperatures, count):
    return tuple(_one_each("temperatures", temperatures, count))


def _one_each(name, values, count):
    """A positive number for each member; by default 1."""
    if values is None:
        return [1.0] * count
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        raise invalid(name, f"one positive number for each of the {count} members", repr(values))
    return [validation.positive(f"{name}[{i}]", value) for i, value in enumerate(values)]


def _class_masks(masks, count):
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
                "A mask of `class_masks` must be a list of booleans, one a class, at least one of "
                f"them true. Received: {mask!r}"
            )
    return [None if mask is None else mask.tolist() for mask in masks]


# How an ensemble's members become one answer: functions of their logits.
#
# Each takes a list of logits `[..., classes]` (float32, temperatures applied), the members' weights
# (which sum to 1), their masks of classes (a list of boolean arrays, or `None`) and the labels
# (`[...]`, or `None`), and returns logits.


def mean_logits(logits, weights, masks, labels):
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


def mean_probabilities(logits, weights, masks, labels):
    """`log sum_i w_i p_i`; with masks a class is averaged over the members that know it."""
    del labels
    probabilities = _probabilities(logits, masks)
    total = sum(weight * each for weight, each in zip(weights, probabilities, strict=True))
    return _log(total if masks is None else total / _weight_by_class(weights, masks))


def confidence(logits, weights, masks, labels):
    """`log sum_i c_i p_i`, `c_i` in proportion to `w_i max p_i`."""
    del labels
    probabilities = tf.stack(_probabilities(logits, masks))  # [members, ..., classes]
    shares = tf.reduce_max(probabilities, axis=-1, keepdims=True) * _by_member(weights, logits)
    if masks is None:
        return _log(tf.reduce_sum(shares * probabilities, 0) / tf.reduce_sum(shares, 0))
    known = tf.cast(_by_member(np.stack(masks), logits), tf.float32)
    total = tf.reduce_sum(shares * probabilities, 0)
    return _log(tf.math.divide_no_nan(total, tf.reduce_sum(shares * known, 0)))


def per_sample_best(logits, weights, masks, labels):
    """`log p_b` of the member that gives the label most, or is surest where there is no label."""
    probabilities = tf.stack(_probabilities(logits, masks))
    surest = tf.reduce_max(probabilities, axis=-1)
    score = surest
    if labels is not None:
        classes = probabilities.shape[-1]
        of_label = tf.reduce_sum(probabilities * tf.one_hot(labels, classes), axis=-1)
        of_label *= _by_member(weights, logits)[..., 0]
        is_class = (labels >= 0) & (labels < classes)
        score = tf.where(is_class, of_label, surest)
    best = tf.one_hot(tf.argmax(score, axis=0), len(logits), axis=0)
    # Selected, not summed with zeros: a member may be infinitely sure.
    chosen = tf.where(best[..., None] > 0, probabilities, 0.0)
    return _log(tf.reduce_sum(chosen, axis=0))


WAYS = {
    "mean_logits": mean_logits,
    "mean_probabilities": mean_probabilities,
    "confidence": confidence,
    "per_sample_best": per_sample_best,
}


def _masked(logits, mask):
    return tf.where(mask, logits, -np.inf)


def _probabilities(logits, masks):
    if masks is not None:
        logits = [_masked(*pair) for pair in zip(logits, masks, strict=True)]
    return [tf.nn.softmax(each) for each in logits]


def _weight_by_class(weights, masks):
    """The weight of those that know each class, `[classes]`."""
    return np.sum([w * np.float32(m) for w, m in zip(weights, masks, strict=True)], axis=0)


def _by_member(values, logits):
    """Values `[members]` or `[members, classes]`, to multiply `[members, ..., classes]`."""
    values = np.asarray(values)
    rank = logits[0].shape.rank
    last = values.shape[1:] or (1,)
    return values.reshape((len(values), *[1] * (rank - 1), *last))


def _log(probabilities):
    """Logarithm whose value at 0 is -inf, a class of no probability to the kernels."""
    return tf.math.log(probabilities)
