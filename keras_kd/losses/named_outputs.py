"""Losses that read several outputs of each model at once, by their names."""

from typing import Any

import keras

from keras_kd._utils.validation import invalid
from keras_kd.losses import relations

SIMILARITIES = ("dot", "cosine")

# Why a loss takes no `mask_input`.
WHOLE_SAMPLES = "compares scores of whole samples, which have no positions that could be padding"


def refuse_others(loss: Any, how: str) -> None:
    """Raises if a loss of named outputs names something else to read, too.

    Args:
        loss: A `DistillationLoss`.
        how: Which arguments name the outputs.
    """
    for name, value in (
        ("output", loss.output_key),
        ("teacher_output", loss.teacher_output),
        ("teacher_layer", loss.teacher_layer),
        ("student_layer", loss.student_layer),
    ):
        if value is not None:
            raise invalid(name, f"None: {how} name the outputs that are read", repr(value))


def take(loss: Any, role: str, outputs: Any, name: str) -> Any:
    """An output of a model by its name.

    Args:
        loss: The loss, for the message.
        role: `"teacher"` or `"student"`.
        outputs: Of the model: tensors, or in `build` shapes.
        name: Of the output.
    """
    if isinstance(outputs, dict) and name in outputs:
        return outputs[name]
    have = (
        f"the outputs {sorted(outputs)}" if isinstance(outputs, dict) else "outputs without names"
    )
    raise ValueError(
        f"Distillation loss {loss.name!r} reads output {name!r} of the {role}, which has {have}. "
        "Let the model return a dict that has it; a teacher may be a function that does: "
        f"`lambda x: {{{name!r}: teacher(x)}}`."
    )


def check_embeddings(loss: Any, role: str, shapes: dict[str, Any]) -> None:
    """Raises unless all are `[batch, width]`, of one width.

    Args:
        loss: The loss, for the message.
        role: `"teacher"` or `"student"`.
        shapes: `{output: shape}`.
    """
    listed = {name: tuple(shape) for name, shape in shapes.items()}
    widths = {shape[-1] for shape in listed.values() if len(shape) == 2}
    if len(widths) != 1 or any(len(shape) != 2 for shape in listed.values()):
        raise ValueError(
            f"Distillation loss {loss.name!r} expects embeddings of shape [batch, width] from the "
            f"{role}, all of one width. Received: {listed}. Pool a sequence in the model."
        )


def prepared(embeddings: Any, similarity: str) -> Any:
    """Embeddings whose products are the similarities: for `"cosine"` of length 1."""
    return embeddings if similarity == "dot" else relations.unit(embeddings)


def similarity_of(one: Any, other: Any, similarity: str) -> Any:
    """`[batch]`: how alike two embeddings of each row are."""
    return keras.ops.sum(prepared(one, similarity) * prepared(other, similarity), axis=-1)
