"""`TokenKD`: soft targets of language models, without their logits."""

from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd.losses import shapes
from keras_kd.ops import linear
from keras_kd.taps.heads import DeferredLogits

# What other losses on logits choose.
_FIXED = {
    "from_logits": True,
    "teacher_from_logits": None,
    "output": None,
    "teacher_output": None,
    "teacher_layer": None,
    "student_layer": None,
}


@keras.saving.register_keras_serializable(package="keras_kd")
class TokenKD(shapes.LogitsLoss):
    """Divergence between the next-token distributions of two language models, in chunks.

    `T^2 KL(softmax(teacher / T) || softmax(student / T))` for each position, as `SoftTargets`; but
    the logits of a batch, `[batch, time, vocabulary]`, never exist. The distiller runs both models
    up to the hidden states, and `keras_kd.ops.linear_soft_target_loss` takes some positions at a
    time through both heads. The hard loss comes out of the same chunks, in `evaluate` too, and so
    do `token_accuracy` and `perplexity`, the exponential of the mean cross-entropy; both are
    reported beside the losses, over the positions that count, weighted as the hard loss is.

    The student's head, the last layer that makes its one output, is found in KerasHub's `CausalLM`
    and `Seq2SeqLM` and in any model that ends in a `Dense`, `EinsumDense` or `ReversibleEmbedding`:
    tied or not, with bias or soft cap. So is the teacher's, if it is a `keras.Model` or a
    `KerasTeacher`; other teachers (caches, ensembles, functions) give logits. The models stay what
    they are: the student is saved, and predicts and generates, with its head.

    Positions count where the distiller's `mask_input` (or Keras' mask) says so, and where the label
    is not `ignore_class`. A distiller takes one `TokenKD`, beside losses on inner layers, and
    `compile` takes `keras.losses.SparseCategoricalCrossentropy(from_logits=True)` or no loss, and
    no metrics.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        divergence: `"forward_kl"`, `"reverse_kl"` (MiniLLM) or `"jsd"`; see
            `keras_kd.ops.soft_target_loss`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`, between 0 and 1.
        ignore_class: The label of positions that count nowhere, such as prompts; `None`: all count.
        vocabulary: `"same"`: both have the same words. `"common"`: the first ones are the same, and
            the rest is padding (151,936 and 152,064 rows); the divergence is that over the common
            ones, the hard loss over all of the student's.
        memory_mb: Megabytes that the logits of a chunk may take; `"auto"`: 64.
        student_head: Name or path of the layer that makes the student's logits; default: found.
        teacher_head: The same for the teacher.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        mask_input: See `DistillationLoss`.

    Raises:
        ValueError: An argument is out of its range; or, when the distiller is built: no head is
            found (the message lists which there are), or the vocabularies differ.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    def language_model(width):
        ids = keras.Input((None,), dtype="int32")
        hidden = keras.layers.GRU(width, return_sequences=True)(
            keras.layers.Embedding(1000, width)(ids)
        )
        return keras.Model(ids, keras.layers.Dense(1000, name="head")(hidden))

    distiller = kd.Distiller(language_model(16), language_model(8), kd.losses.TokenKD(2.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss=loss)
    ids = np.random.randint(1000, size=(8, 13))
    history = distiller.fit(ids[:, :-1], ids[:, 1:], verbose=0).history
    assert set(history) >= {"hard_loss", "token_kd", "token_accuracy", "perplexity"}
    ```

    References:
        Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models",
        https://arxiv.org/abs/2306.08543
        Agarwal et al., "On-Policy Distillation of Language Models",
        https://arxiv.org/abs/2306.13649
    """

    has_temperature = True
    takes_sparse = True
    takes_infinite = True

    def __init__(
        self,
        temperature: float = 1.0,
        divergence: str = "forward_kl",
        mixing_weight: float = 0.5,
        ignore_class: int | None = -100,
        vocabulary: str = "same",
        memory_mb: float | str = "auto",
        student_head: str | None = None,
        teacher_head: str | None = None,
        weight: float = 1.0,
        name: str | None = "token_kd",
        mask_input: str | None = None,
        **kwargs: Any,
    ) -> None:
        for fixed, usual in _FIXED.items():
            if kwargs.pop(fixed, usual) is not usual:
                raise ValueError(
                    f"TokenKD reads the logits of the one output of both models: `{fixed}` cannot "
                    "be chosen. Leave it out; `student_head` and `teacher_head` name the layers "
                    "that make the logits."
                )
        super().__init__(
            temperature=temperature, weight=weight, name=name, mask_input=mask_input, **kwargs
        )
        self.divergence, self.mixing_weight = shapes.check_divergence(divergence, mixing_weight)
        self.ignore_class = ignore_class
        if ignore_class is not None:
            self.ignore_class = validation.integer("ignore_class", ignore_class, -(2**31))
        self.vocabulary = validation.one_of("vocabulary", vocabulary, linear.VOCABULARIES)
        linear.chunk_rows(memory_mb, 1)  # raises
        self.memory_mb = memory_mb
        what = "the name or path of a layer"
        self.student_head = validation.text("student_head", student_head, what, optional=True)
        self.teacher_head = validation.text("teacher_head", teacher_head, what, optional=True)
        self.built = True

    def build(self, *shapes: Any) -> None:
        del shapes  # nothing depends on them
        self.built = True

    def call(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        kept = self.positions(student_outputs, labels)
        weight = 1.0 if kept is None else tf.cast(kept, tf.float32)
        return self.losses(teacher_outputs, student_outputs, soft_weight=weight).soft

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        self.check_is_deferred(student_outputs)
        rows = keras.ops.zeros(keras.ops.shape(student_outputs.hidden)[:-1])
        kept = self.positions(student_outputs, context.get("labels"))
        if kept is not None:
            mask = kept if mask is None else kept & tf.cast(mask, tf.bool)
        weight, count = self.valid_rows(rows, row_weight, mask)
        weight = 1.0 if weight is None else weight
        found = self.losses(teacher_outputs, student_outputs, soft_weight=weight, reduction=None)
        return found.loss, count

    def losses(self, teacher: Any, student: DeferredLogits, **options: Any) -> ops.LinearLosses:
        """`keras_kd.ops.linear_soft_target_loss` of both models' outputs.

        Args:
            teacher: `DeferredLogits`, logits, a `SparseLogits`, or `None`.
            student: `DeferredLogits`.
            **options: Of the operation, beside those that the loss was made with.
        """
        self.check_is_deferred(student)
        hidden, head = teacher, None
        if isinstance(teacher, DeferredLogits):
            hidden, head = teacher.hidden, teacher.head
        return ops.linear_soft_target_loss(
            student.hidden,
            student.head,
            hidden,
            head,
            temperature=self.temperature_variable,
            divergence=self.divergence,
            mixing_weight=self.mixing_weight,
            vocabulary=self.vocabulary,
            memory_mb=self.memory_mb,
            **options,
        )

    def positions(self, student: Any, labels: Any) -> Any:
        """Which positions have a label that counts, boolean `[batch, ...]`; `None`: all."""
        if labels is None or self.ignore_class is None:
            return None
        labels = shapes.class_indices(labels, student)
        return labels != tf.cast(self.ignore_class, labels.dtype)

    def check_is_deferred(self, student: Any) -> None:
        """Raises where something else than a `Distiller` calls it, with logits that exist."""
        if not isinstance(student, DeferredLogits):
            raise ValueError(
                f"Distillation loss {self.name!r} is of a keras_kd.Distiller, which leaves the "
                "logits out. With logits that exist (a MutualDistiller, a loop of one's own) use "
                f"keras_kd.losses.SoftTargets. Received: {type(student).__name__}"
            )

    def compute_output_shape(self, teacher_shape: Any, student_shape: Any) -> tuple:
        del teacher_shape
        return tuple(student_shape[:-1])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config = {key: value for key, value in config.items() if key not in _FIXED}
        for name in (
            "divergence",
            "mixing_weight",
            "ignore_class",
            "vocabulary",
            "memory_mb",
            "student_head",
            "teacher_head",
        ):
            config[name] = getattr(self, name)
        return config
