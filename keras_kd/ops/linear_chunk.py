"""A chunk of positions of `linear_soft_target_loss`, and the losses of its logits."""

from typing import Any

import tensorflow as tf

from keras_kd.ops import arguments, dispatch


def counting_first(hard: tf.Tensor, soft: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """An order of the rows in which those with a weight come first.

    Returns:
        `(order, place, kept)`: the row at each place, the place of each row, and how many count.
    """
    counts = tf.cast((hard != 0) | (soft != 0), tf.int32)
    rows = tf.shape(counts)[0]
    kept = tf.reduce_sum(counts)
    first = tf.cumsum(counts) - 1
    others = kept + tf.cumsum(1 - counts) - 1
    place = tf.where(counts > 0, first, others)
    order = tf.scatter_nd(place[:, None], tf.range(rows), [rows])
    return order, place, kept


class Chunk:
    """Some rows of the fields, and what is computed of their logits.

    Args:
        kernels: What computes them.
        fields: Tensors by name.
        rows: Which rows, int32 `[chunk]`.
        is_row: 1 for a row, 0 where rows only fill the chunk.
    """

    def __init__(
        self,
        kernels: dispatch.Kernels,
        fields: dict[str, Any],
        rows: tf.Tensor,
        is_row: tf.Tensor,
    ) -> None:
        self._kernels, self._fields, self._rows = kernels, fields, rows
        self.hard_weight, self.soft_weight = (
            tf.gather(fields[name], rows) * is_row for name in ("hard_weight", "soft_weight")
        )
        self.labels = self.take("labels")
        self.teacher = self.take("teacher")

    def take(self, name: str) -> Any:
        """The rows of a field, or `None`."""
        value = self._fields.get(name)
        return None if value is None else tf.gather(value, self._rows)

    def losses(
        self,
        student: tf.Tensor,
        teacher: tf.Tensor | None,
        divergence: str,
        mixing_weight: float,
        with_gradient: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """Hard and soft loss, without weights, and the gradient of their weighted sum."""
        options = {
            "temperature": self._fields["temperature"],
            "divergence": divergence,
            "mixing_weight": mixing_weight,
            "with_gradient": with_gradient,
        }
        indices = self.take("indices")
        words = None if indices is not None or teacher is None else teacher.shape[-1]
        if words == student.shape[-1]:
            hard, soft, gradient = self._both(student, teacher, self.soft_weight, options)
            return self._or_zeros(hard), soft, gradient
        hard, gradient = self._hard(student, options)
        if teacher is None:
            return hard, tf.zeros_like(self.soft_weight), gradient
        soft, more = self._soft(student, teacher, indices, options)
        if with_gradient:
            gradient = more if gradient is None else gradient + tf.cast(more, gradient.dtype)
        return hard, soft, gradient

    def _both(self, student: tf.Tensor, teacher: tf.Tensor, soft_weight: Any, options: dict) -> Any:
        """Hard and soft loss of one sweep, and the gradient of their weighted sum."""
        return self._kernels.compute(
            arguments.Problem(
                student,
                teacher,
                labels=self.labels,
                hard_weight=self.hard_weight,
                soft_weight=soft_weight,
                **options,
            )
        )

    def _hard(self, student: tf.Tensor, options: dict) -> tuple[tf.Tensor, Any]:
        """The cross-entropy alone: a teacher of weight zero is not read."""
        if self.labels is None:
            return tf.zeros_like(self.hard_weight), None
        zero = tf.zeros_like(self.soft_weight)
        hard, _, gradient = self._both(student, student, zero, options)
        return hard, gradient if options["with_gradient"] else None

    def _soft(
        self, student: tf.Tensor, teacher: tf.Tensor, indices: Any, options: dict
    ) -> tuple[tf.Tensor, Any]:
        """The divergence alone: from a sparse teacher, or over the words that both have."""
        if indices is not None:
            return self._kernels.compute_sparse(
                arguments.SparseProblem(
                    student,
                    teacher,
                    indices=indices,
                    tail=self.take("tail"),
                    soft_weight=self.soft_weight,
                    **options,
                )
            )
        words = min(student.shape[-1], teacher.shape[-1])
        problem = arguments.Problem(
            student[:, :words], teacher[:, :words], soft_weight=self.soft_weight, **options
        )
        _, soft, gradient = self._kernels.compute(problem)
        if options["with_gradient"]:
            gradient = tf.pad(gradient, [[0, 0], [0, student.shape[-1] - words]])
        return soft, gradient

    def _or_zeros(self, hard: Any) -> tf.Tensor:
        return tf.zeros_like(self.hard_weight) if self.labels is None else hard

    def is_correct(self, logits: tf.Tensor) -> tf.Tensor:
        """Whether the largest logit is the label's, where the row counts."""
        if self.labels is None:
            return tf.zeros_like(self.hard_weight, tf.bool)
        predicted = tf.argmax(logits, axis=-1, output_type=self.labels.dtype)
        return (predicted == self.labels) & ((self.hard_weight != 0) | (self.soft_weight != 0))
