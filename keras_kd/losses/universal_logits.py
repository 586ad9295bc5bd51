"""`UniversalLogits`: match a teacher that has another vocabulary (ULD)."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd.losses import projector as projectors
from keras_kd.losses import shapes


@keras.saving.register_keras_serializable(package="keras_kd")
class UniversalLogits(shapes.LogitsLoss):
    """Distance between the sorted probabilities of two vocabularies (ULD).

    `l = sum_k |p^t_(k) - p^s_(k)|` for each position, where `p_(k)` is the `k`-th largest
    probability of `softmax(logits / T)`, and those of the smaller vocabulary are followed by zeros:
    the Wasserstein distance where moving any probability to any other word costs 1. Values are
    between 0 and 2.

    What it cannot do: it does not know which words mean the same. It compares how sure the models
    are, and how many words they hesitate between; what is right the labels must tell. Nor does it
    align positions: the teacher's position `i` is compared with the student's. Two tokenizers cut a
    text differently, so its positions must be brought together before, such as by a teacher that is
    a function and gathers, for each token of the student, the teacher's position that ends at the
    same letter. Other lengths are an error; equal lengths prove nothing.

    For equal vocabularies take `SoftTargets`, which compares words.

    Args:
        temperature: `T`, a positive number. Live, as `weight`. 1 in the paper.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, ..., words]`, of
    numbers of words that may differ. Returns `[batch, ...]`, float32.

    Raises:
        ValueError: The temperature is not positive; when the distiller is built: a model ends in
            softmax although logits are expected, there is one word, or the positions differ.
            `tf.errors.InvalidArgumentError`: they differ where only a step tells.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    teacher = np.random.normal(size=(2, 5, 100)).astype("float32")
    student = np.random.normal(size=(2, 5, 60)).astype("float32")
    assert kd.losses.UniversalLogits()(teacher, student).shape == (2, 5)
    ```

    Reference: Boizard et al., "... Cross-Tokenizer Distillation: the Universal Logit Distillation
    Loss for LLMs", https://arxiv.org/abs/2402.12030
    """

    has_temperature = True
    takes_infinite = True

    def __init__(self, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(temperature=temperature, **kwargs)

    @property
    def reading(self) -> Any:
        return dataclasses.replace(super().reading, has_own_classes=True)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        self._check_shapes(tuple(teacher_outputs_shape), tuple(student_outputs_shape))
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        self._check_shapes(tuple(teacher_outputs.shape), tuple(student_outputs.shape))
        student_outputs = _at_positions_of(student_outputs, teacher_outputs)
        pair = self.logits(teacher_outputs, student_outputs)
        words = max(each.shape[-1] for each in pair)
        t = keras.ops.convert_to_tensor(self.temperature_variable)
        teacher, student = (_sorted(tf.cast(each, tf.float32) / t, words) for each in pair)
        return keras.ops.sum(keras.ops.abs(teacher - student), axis=-1)

    def _check_shapes(self, teacher, student):
        fits = len(teacher) >= 2 and projectors.shapes_agree(teacher[1:-1], student[1:-1])
        if not fits or None in (teacher[-1], student[-1]) or 1 in (teacher[-1], student[-1]):
            raise ValueError(
                f"Distillation loss {self.name!r} expects logits of shape [batch, ..., words], of "
                "numbers of words that may differ, known and above 1, at the same positions. "
                f"Received: teacher {teacher}, student {student}. Another tokenizer cuts a text "
                "into other positions: gather the teacher's that belong to the student's in a "
                "function as the teacher, `lambda x: tf.gather(teacher(x), positions, "
                "batch_dims=1)`."
            )


def _at_positions_of(student, teacher):
    """The student's logits; fails in the step where lengths differ that were not known before."""
    if None not in (*teacher.shape[1:-1], *student.shape[1:-1]):
        return student
    check = tf.debugging.assert_equal(
        tf.shape(teacher)[:-1],
        tf.shape(student)[:-1],
        "UniversalLogits compares the teacher's positions with the student's one by one, and "
        "their numbers differ: gather those that belong together.",
    )
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(student)


def _sorted(logits, words):
    """Probabilities, the largest first, and zeros up to a number of words."""
    largest = tf.sort(tf.nn.softmax(logits), direction="DESCENDING")
    missing = words - logits.shape[-1]
    return tf.pad(largest, [[0, 0]] * (len(logits.shape) - 1) + [[0, missing]])
