"""`MarginMSE`: by how much a passage is the better one, from a cross-encoder."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.losses import base, named_outputs


@keras.saving.register_keras_serializable(package="keras_kd")
class MarginMSE(base.DistillationLoss):
    """Squared difference of the margins between scores of a positive and of negative passages.

    `l = mean_n ((t_p - t_n) - (s_p - s_n))^2`, with the scores `t` of the teacher and `s` of the
    student, of a query with its positive passage `p` and with each negative one `n`. Only
    differences are compared, so that the student's scores may have another range.

    What holds the scores:

    - **Columns** of one output, `[batch, passages]`, for both models: `MarginMSE()` takes column 0
      as the positive passage and every other one as a negative; `MarginMSE(2, [0, 1])` chooses.
    - **Outputs by their names**, `[batch]` or `[batch, 1]` each: `MarginMSE("positive",
      "negative")`. Both models return dicts that have them.
    - **Embeddings** of a bi-encoder student, `[batch, width]`, whose scores are computed here:
      `MarginMSE("positive", "negative", query="query")` compares the student's outputs of the
      passages with that of the query. The teacher, a cross-encoder, still gives scores under the
      passages' names. `teacher_query` names the query of a teacher that is a bi-encoder, too.

    Args:
        positive: The positive passage: a column, or the name of an output.
        negative: The negative passage, or a list of several. Default for columns: all others.
        query: Name of the student's output that embeds the query, or `None`: it gives scores.
        teacher_query: The same for the teacher.
        similarity: Score of two embeddings: `"dot"`, as in the paper, or `"cosine"`.
        **kwargs: `weight` and `name`, see `DistillationLoss`; for columns also `output`,
            `teacher_output`, `teacher_layer` and `student_layer`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, passages]` or dicts of
    outputs. Returns `[batch]`, float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such column or
            output, or it has another shape.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.MarginMSE("positive", "negative", query="query")
    scores = {"positive": np.float32([5.0, 1.0]), "negative": np.float32([1.0, 0.0])}
    names = "query", "positive", "negative"
    embeddings = {name: np.random.normal(size=(2, 8)).astype("float32") for name in names}
    assert loss(scores, embeddings).shape == (2,)
    ```

    Reference: Hofstaetter et al., "Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation", https://arxiv.org/abs/2010.02666
    """

    def __init__(
        self,
        positive: int | str = 0,
        negative: int | str | Sequence | None = None,
        query: str | None = None,
        teacher_query: str | None = None,
        similarity: str = "dot",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.refuse_mask(self, named_outputs.WHOLE_SAMPLES)
        if not _is_name(positive) and not _is_column(positive):
            raise invalid(
                "positive", "a column, at least 0, or the name of an output", repr(positive)
            )
        self.positive, self.negative = positive, _checked_negative(positive, negative)
        self.query = validation.text("query", query, "the name of an output", optional=True)
        self.teacher_query = validation.text(
            "teacher_query", teacher_query, "the name of an output", optional=True
        )
        self.similarity = validation.one_of("similarity", similarity, named_outputs.SIMILARITIES)
        self._check_queries()
        if self.reads_structure:
            named_outputs.refuse_others(self, "`positive` and `negative`")

    @property
    def reads_structure(self) -> bool:
        """Whether the scores are in several outputs."""
        return isinstance(self.positive, str)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes = {"teacher": teacher_outputs_shape, "student": student_outputs_shape}
        for role, given in shapes.items():
            if self.reads_structure:
                self._check_named(role, given)
            else:
                self._check_columns(role, tuple(given))
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        margins = [
            self._margins(role, outputs)
            for role, outputs in (("teacher", teacher_outputs), ("student", student_outputs))
        ]
        return keras.ops.mean(keras.ops.square(margins[0] - margins[1]), axis=-1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["positive"], config["negative"] = self.positive, self.negative
        config["query"], config["teacher_query"] = self.query, self.teacher_query
        config["similarity"] = self.similarity
        return config

    def _check_queries(self):
        given = {"query": self.query, "teacher_query": self.teacher_query}
        named = {name: value for name, value in given.items() if value is not None}
        if named and not self.reads_structure:
            raise ValueError(
                "`query` and `teacher_query` name outputs, and then so do `positive` and "
                f"`negative`. Received: positive={self.positive!r}, {named}."
            )
        if not named and self.similarity != "dot":
            raise ValueError(
                "`similarity` is that of embeddings, and without `query` or `teacher_query` both "
                f"models give scores. Received: similarity={self.similarity!r}. Leave it out."
            )

    def _query(self, role):
        return self.query if role == "student" else self.teacher_query

    def _negatives(self, columns=None):
        """A list of the negative passages."""
        if self.negative is None:
            return [column for column in range(columns) if column != self.positive]
        return self.negative if isinstance(self.negative, list) else [self.negative]

    def _check_columns(self, role, shape):
        columns = [self.positive, *(self._negatives() if self.negative is not None else [1])]
        if len(shape) != 2 or shape[-1] is None or max(columns) >= shape[-1]:
            raise ValueError(
                f"Distillation loss {self.name!r} compares columns {self.positive} and "
                f"{'all others' if self.negative is None else self.negative} and expects scores of "
                f"shape [batch, passages]. Received: shape {shape} from the {role}. Name outputs "
                "in `positive` and `negative` where each passage has one of its own."
            )

    def _check_named(self, role, outputs):
        names = [self.positive, *self._negatives()]
        shapes = {name: named_outputs.take(self, role, outputs, name) for name in names}
        query = self._query(role)
        if query is not None:
            shapes[query] = named_outputs.take(self, role, outputs, query)
            named_outputs.check_embeddings(self, role, shapes)
            return
        wrong = {x: tuple(s) for x, s in shapes.items() if len(s) != 1 and tuple(s)[1:] != (1,)}
        if wrong:
            argument = "query" if role == "student" else "teacher_query"
            raise ValueError(
                f"Distillation loss {self.name!r} expects scores of shape [batch] or [batch, 1] "
                f"from the {role}. Received: {wrong}. Where these are embeddings name that of the "
                f"query in `{argument}`."
            )

    def _margins(self, role, outputs):
        """`[batch, negatives]`."""
        if not self.reads_structure:
            columns = self._negatives(outputs.shape[-1])
            others = [outputs[:, column] for column in columns]
            return keras.ops.stack([outputs[:, self.positive] - x for x in others], axis=-1)
        positive = self._score(role, outputs, self.positive)
        others = [self._score(role, outputs, name) for name in self._negatives()]
        return keras.ops.stack([positive - x for x in others], axis=-1)

    def _score(self, role, outputs, name):
        """`[batch]`: of a passage."""
        value, query = named_outputs.take(self, role, outputs, name), self._query(role)
        if query is None:
            return keras.ops.reshape(value, (-1,))
        other = named_outputs.take(self, role, outputs, query)
        return named_outputs.similarity_of(value, other, self.similarity)


def _is_column(value):
    return validation.is_integer(value) and value >= 0


def _checked_negative(positive, negative):
    """The negative passages, as `positive` is named."""
    kind, what = (_is_column, "columns") if not isinstance(positive, str) else (_is_name, "outputs")
    if negative is None and kind is _is_column:
        return None
    is_list = isinstance(negative, (list, tuple))
    listed = list(negative) if is_list else [negative]
    fits = listed and all(map(kind, listed)) and len(set(listed)) == len(listed)
    if not fits or positive in listed:
        raise invalid(
            "negative",
            f"one or several different {what}, other than positive={positive!r}",
            repr(negative),
        )
    return listed if is_list else negative


def _is_name(value):
    return isinstance(value, str) and bool(value)
