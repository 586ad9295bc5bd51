"""`ScoreMatrixKD`: match how a batch's queries score the batch's documents."""

from typing import Any

import keras

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd.losses import base, named_outputs


@keras.saving.register_keras_serializable(package="keras_kd")
class ScoreMatrixKD(base.DistillationLoss):
    """Divergence between two bi-encoders' scores of each query with all documents of the batch.

    `l_i = T^2 KL(softmax_j(S^t_ij / T) || softmax_j(S^s_ij / T))` with `S_ij = q_i . d_j`, by the
    fused kernel. The diagonal, a query and its own document, is one of the columns. Widths may
    differ: no projector is needed. Unlike embeddings, scores leave the student free to turn its
    space as it likes.

    A row of weight 0, such as one that fills up a batch, is left out as a query and as a document.
    All other rows of the batch on one replica are compared; a row's weight is that of its `l_i`.

    Args:
        temperature: `T`, a positive number. Live, as `weight`. Cosines need a small one, such as
            0.05.
        query: Name of the output that embeds the queries, of both models, which return dicts.
        document: Name of the output that embeds the documents.
        similarity: `"dot"` or `"cosine"`.
        **kwargs: `weight` and `name`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, dicts that have `[batch, width]` for
    both names, and `rows`: which rows count, boolean `[batch]`, or `None` for all. Returns
    `[batch]`, float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: a model has no such output,
            or one of another shape; in `fit`: batches of a single row.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    def embeddings(width):
        names = "query", "document"
        return {name: np.random.normal(size=(8, width)).astype("float32") for name in names}

    loss = kd.losses.ScoreMatrixKD(temperature=0.05, similarity="cosine")
    assert loss(embeddings(32), embeddings(6)).shape == (8,)
    ```

    Reference: Lin, Yang, Lin, "Distilling Dense Representations for Ranking using Tightly-Coupled
    Teachers", https://arxiv.org/abs/2010.11386
    """

    min_batch_size = 2
    temperature = base.live_temperature()

    def __init__(
        self,
        temperature: float = 1.0,
        query: str = "query",
        document: str = "document",
        similarity: str = "dot",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        temperature = base.check_temperature(temperature)
        self.temperature_variable = self.add_scalar("temperature", temperature)
        base.refuse_mask(self, named_outputs.WHOLE_SAMPLES)
        self.query = validation.text("query", query, "the name of an output")
        self.document = validation.text("document", document, "the name of an output")
        self.similarity = validation.one_of("similarity", similarity, named_outputs.SIMILARITIES)
        named_outputs.refuse_others(self, "`query` and `document`")

    @property
    def reads_structure(self) -> bool:
        """It reads two outputs of each model."""
        return True

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes = {"teacher": teacher_outputs_shape, "student": student_outputs_shape}
        for role, given in shapes.items():
            names = (self.query, self.document)
            named = {name: named_outputs.take(self, role, given, name) for name in names}
            named_outputs.check_embeddings(self, role, named)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any, rows: Any = None) -> Any:
        scores = [
            self._scores(role, outputs)
            for role, outputs in (("student", student_outputs), ("teacher", teacher_outputs))
        ]
        if rows is not None:
            # Where no row counts nothing is learned; the values must be finite.
            counts = keras.ops.logical_or(rows, keras.ops.logical_not(keras.ops.any(rows)))
            scores = [keras.ops.where(counts[None], each, -float("inf")) for each in scores]
        return ops.soft_target_loss(*scores, self.temperature_variable)

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        rows = None if row_weight is None else base.mean_weight(row_weight) != 0
        return super().weighted(
            teacher_outputs, student_outputs, row_weight, mask, rows=rows, **context
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["temperature"] = float(self.temperature)
        config["query"], config["document"] = self.query, self.document
        config["similarity"] = self.similarity
        return config

    def _scores(self, role, outputs):
        """`[batch, batch]`: of each query with each document."""
        query, document = (
            named_outputs.prepared(named_outputs.take(self, role, outputs, name), self.similarity)
            for name in (self.query, self.document)
        )
        return keras.ops.matmul(query, keras.ops.transpose(document))
