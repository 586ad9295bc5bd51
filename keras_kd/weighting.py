"""Per-sample weights between the labels and the teacher.

A weighting gives each sample the share `s` of the teacher, from 0 to 1, and the objective becomes

`alpha * mean_i(2 (1 - s_i) hard_i) + beta * sum_k weight_k mean_i(2 s_i distillation_ki)`

so that a share of 1/2 for every sample changes nothing.
"""

from typing import Any

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.losses import shapes
from keras_kd.losses.activation import check_logits

__all__ = ["ClassShares", "TeacherConfidence", "TeacherCorrectness", "TeacherEntropy", "Weighting"]


class Weighting:
    """Base class: how much each sample learns from the teacher, and how much from its label.

    Pass one to `Distiller(..., weighting=...)`. The teacher then runs in every training step, even
    while `beta` is 0. `sample_weight` is multiplied by it. The reported losses are the weighted
    ones. Subclasses implement `shares`.

    Args:
        output: Which output of a model with several decides: a name, or an index into a list.
        from_logits: Whether the teacher returns logits; `False`: probabilities.

    Raises:
        ValueError: When the distiller is built: the teacher ends in softmax despite
            `from_logits`, or gives one value per sample.

    Example:

    ```python
    import keras
    import keras_kd as kd

    class Doubt(kd.weighting.Weighting):
        def shares(self, probabilities, labels):
            return 1.0 - keras.ops.max(probabilities, axis=-1)

    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student, weighting=Doubt())
    ```
    """

    def __init__(self, output: str | int | None = None, from_logits: bool = True) -> None:
        self.output = validation.output_key("output", output)
        self.from_logits = validation.boolean("from_logits", from_logits)

    def shares(self, probabilities: Any, labels: Any) -> Any:
        """The teacher's share of each sample.

        Args:
            probabilities: The teacher's, `[batch, ..., classes]`, float32.
            labels: The labels of that output as in the data, or `None`.

        Returns:
            `[batch, ...]`, between 0 and 1 (a traced step cannot check it: beyond 1 the labels
            would be unlearned).
        """
        raise NotImplementedError

    def validate(self, teacher: Any, student: Any) -> None:
        """Raises if it cannot read the teacher. Called by the distiller."""
        if self.from_logits:
            instead = "where a row has several labels, leave out `weighting`"
            name = type(self).__name__
            check_logits("teacher", teacher, self.output, name, instead=instead)
        outputs = models.output_specs(teacher)
        if outputs is not None:
            self._choose_output(outputs, getattr(student, "output_names", None))

    def factors(self, teacher: Any, labels: Any) -> tuple[Any, Any]:
        """Factors of the hard loss and of the distillation losses, each `[batch, ...]`.

        Args:
            teacher: `Outputs` of the teacher.
            labels: The labels of the batch, in the structure of the outputs, or `None`.
        """
        outputs = keras.ops.cast(self._choose_output(teacher.outputs, teacher.names), "float32")
        if keras.tree.is_nested(labels):
            labels = models.flat_outputs(labels, self.output, teacher.names)[0]
        share = self.shares(keras.ops.softmax(outputs) if self.from_logits else outputs, labels)
        share = keras.ops.cast(share, "float32")
        return 2.0 * (1.0 - share), 2.0 * share

    def _choose_output(self, outputs, names):
        """The one output that decides."""
        outputs = models.flat_outputs(outputs, self.output, names)
        if len(outputs) != 1:
            raise ValueError(
                f"{type(self).__name__} reads one output of the teacher, which has "
                f"{len(outputs)}. Choose it: {type(self).__name__}(..., output=name)."
            )
        if outputs[0].shape[-1] == 1:
            raise ValueError(
                f"{type(self).__name__} needs a value for each class. The teacher's output has "
                f"shape {tuple(outputs[0].shape)}: give it one for each of two classes (of one "
                "logit z: 0 and z), or weight the rows by sample_weight."
            )
        return outputs[0]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"output": self.output, "from_logits": self.from_logits}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes one from its arguments."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_kd")
class TeacherConfidence(Weighting):
    """More weight on the labels where the teacher is uncertain, on the soft targets elsewhere.

    The share of a sample is `low` if the teacher's largest probability is below `threshold`, else
    `high`.

    Args:
        threshold: Between 0 and 1.
        low: The teacher's share below the threshold, between 0 and 1.
        high: Its share at and above the threshold.
        **kwargs: See `Weighting`.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    weighting = kd.weighting.TeacherConfidence(threshold=0.5, low=0.2, high=0.9)
    probabilities = np.float32([[0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    np.testing.assert_allclose(weighting.shares(probabilities, None), [0.2, 0.9])
    ```
    """

    def __init__(
        self, threshold: float = 0.5, low: float = 0.25, high: float = 0.75, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.threshold = validation.fraction("threshold", threshold)
        self.low, self.high = validation.fraction("low", low), validation.fraction("high", high)

    def shares(self, probabilities: Any, labels: Any) -> Any:
        confidence = keras.ops.max(probabilities, axis=-1)
        return keras.ops.where(confidence < self.threshold, self.low, self.high)

    def get_config(self) -> dict[str, Any]:
        own = {"threshold": self.threshold, "low": self.low, "high": self.high}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_kd")
class TeacherCorrectness(Weighting):
    """More weight on the labels where the teacher is wrong.

    The share of a sample is `right` if the teacher's most probable class is the label, else
    `wrong`; 1/2 for a sample without a label (a negative class, or zeros for all classes).

    Args:
        wrong: The teacher's share where it is wrong, between 0 and 1.
        right: Its share elsewhere.
        **kwargs: See `Weighting`.

    Raises:
        ValueError: A share is out of its range; in `fit`: the data has no labels.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    weighting = kd.weighting.TeacherCorrectness(wrong=0.0, right=0.7)
    probabilities = np.float32([[0.4, 0.3, 0.3], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(weighting.shares(probabilities, np.array([1, 2])), [0.0, 0.7])
    ```
    """

    def __init__(self, wrong: float = 0.0, right: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wrong, self.right = (
            validation.fraction("wrong", wrong),
            validation.fraction("right", right),
        )

    def shares(self, probabilities: Any, labels: Any) -> Any:
        classes = _labels_as_classes(self, labels, probabilities)
        right = keras.ops.equal(keras.ops.argmax(probabilities, axis=-1), classes)
        return _where_labeled(classes, keras.ops.where(right, self.right, self.wrong))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "wrong": self.wrong, "right": self.right}


@keras.saving.register_keras_serializable(package="keras_kd")
class TeacherEntropy(Weighting):
    """A teacher's share that falls with the entropy of its probabilities.

    `s = high + (low - high) H / log(classes)`, `H = -sum_c p_c log p_c`: `high` where it is
    certain, `low` where it gives every class the same probability.

    Args:
        low: The teacher's share at the largest entropy, between 0 and 1.
        high: Its share at entropy 0.
        **kwargs: See `Weighting`.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    weighting = kd.weighting.TeacherEntropy(low=0.1, high=0.9)
    probabilities = np.float32([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(weighting.shares(probabilities, None), [0.1, 0.9], rtol=1e-6)
    ```
    """

    def __init__(self, low: float = 0.25, high: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = validation.fraction("low", low), validation.fraction("high", high)

    def shares(self, probabilities: Any, labels: Any) -> Any:
        positive = probabilities > 0
        logarithms = keras.ops.log(keras.ops.where(positive, probabilities, 1.0))
        entropy = -keras.ops.sum(probabilities * logarithms, axis=-1)
        classes = keras.ops.cast(keras.ops.shape(probabilities)[-1], "float32")
        largest = keras.ops.log(keras.ops.maximum(classes, 2.0))  # with one class the entropy is 0
        return self.high + (self.low - self.high) * entropy / largest

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="keras_kd")
class ClassShares(Weighting):
    """A teacher's share by class: more for the classes that it knows well.

    Samples without a label (a negative class, or zeros for all classes) have the share 1/2.

    Args:
        shares: One number between 0 and 1 for each class, such as the teacher's recall.
        **kwargs: See `Weighting`.

    Raises:
        ValueError: A share is out of its range; in `fit`: the data has no labels, or the teacher
            has another number of classes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    weighting = kd.weighting.ClassShares([0.9, 0.5, 0.2])
    probabilities = np.full((2, 3), 1 / 3, "float32")
    np.testing.assert_allclose(weighting.shares(probabilities, np.array([2, 0])), [0.2, 0.9])
    ```
    """

    def __init__(self, shares: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(shares, (list, tuple, np.ndarray)) or len(shares) == 0:
            raise invalid("shares", "a list of one number for each class", repr(shares))
        self.by_class = [
            validation.fraction(f"shares[{i}]", share) for i, share in enumerate(shares)
        ]

    def shares(self, probabilities: Any, labels: Any) -> Any:
        if probabilities.shape[-1] != len(self.by_class):
            raise ValueError(
                f"ClassShares got {len(self.by_class)} shares, and the teacher has "
                f"{probabilities.shape[-1]} classes. Give one share for each class."
            )
        classes = _labels_as_classes(self, labels, probabilities)
        shares = keras.ops.convert_to_tensor(self.by_class, "float32")
        return _where_labeled(classes, keras.ops.take(shares, keras.ops.maximum(classes, 0)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shares": self.by_class}


def _labels_as_classes(weighting, given, probabilities):
    if given is None:
        raise ValueError(
            f"{type(weighting).__name__} needs labels, and the data has none. Pass (inputs, "
            "labels), or weight by the teacher alone: TeacherConfidence, TeacherEntropy."
        )
    return shapes.class_indices(given, probabilities)


def _where_labeled(classes, shares):
    """The shares; 1/2, which changes nothing, for samples without a label (a negative class)."""
    return keras.ops.where(classes >= 0, shares, 0.5)
