"""Labels in the forms in which data has them."""

import keras


def classes(labels, logits):
    """The class of each row: `[batch, ...]`, int32.

    Args:
        labels: Class indices `[batch, ...]` or `[batch, ..., 1]`, or a probability for each class,
            `[batch, ..., classes]`, of which the largest counts; a row of zeros has no class: -1.
        logits: `[batch, ..., classes]`.

    Raises:
        ValueError: The labels have another shape.
    """
    rank, count = len(logits.shape), logits.shape[-1]
    labels = keras.ops.convert_to_tensor(labels)
    if len(labels.shape) == rank - 1:
        return keras.ops.cast(labels, "int32")
    if len(labels.shape) == rank and labels.shape[-1] == 1 and count != 1:
        return keras.ops.cast(keras.ops.squeeze(labels, -1), "int32")
    if len(labels.shape) == rank and labels.shape[-1] == count:
        largest = keras.ops.cast(keras.ops.argmax(labels, axis=-1), "int32")
        return keras.ops.where(keras.ops.any(labels != 0, axis=-1), largest, -1)
    raise ValueError(
        f"Expected labels as class indices of shape {tuple(logits.shape[:-1])} or one number for "
        f"each class, of shape {tuple(logits.shape)}. Received: shape {tuple(labels.shape)}."
    )
