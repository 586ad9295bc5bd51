"""Projectors: layers that bring a student's features to the teacher's shape.

A projector belongs to the loss: it is trained and saved with the distiller, and does not become
part of the student.
"""

import inspect
from typing import Any

import keras

from keras_kd._utils.validation import invalid


def is_layer(projector: Any) -> bool:
    """Whether the argument `projector` is a layer."""
    return isinstance(projector, keras.layers.Layer)


def check(projector: Any) -> Any:
    """Returns the argument `projector`: `"auto"`, `"linear"`, `None` or a layer."""
    if not is_layer(projector) and projector not in ("auto", "linear", None):
        raise invalid("projector", "'auto', 'linear', None or a Keras layer", repr(projector))
    return projector


def make_projector(student_shape: Any, teacher_shape: Any, always: bool = False) -> list:
    """Makes the smallest projector from one shape of features to another.

    | features | where sizes differ |
    |---|---|
    | `[batch, width]`, `[batch, time, width]` | a dense layer |
    | `[batch, height, width, channels]` | pooling or resizing, and a 1x1 convolution |

    Args:
        student_shape: Shape with the batch; only its last size must be known.
        teacher_shape: The same for the teacher.
        always: Whether to project also where the widths agree.

    Returns:
        A list of layers, empty where the shapes agree.

    Raises:
        ValueError: No projector can bridge the shapes: their ranks or their lengths differ, or a
            width is not known.
    """
    student_shape, teacher_shape = tuple(student_shape), tuple(teacher_shape)
    if len(student_shape) != len(teacher_shape) or len(student_shape) not in (2, 3, 4):
        raise _unbridgeable(
            student_shape,
            teacher_shape,
            "Both must be [batch, width], [batch, time, width] or [batch, height, width, channels]",
        )
    if student_shape[-1] is None or teacher_shape[-1] is None:
        raise _unbridgeable(student_shape, teacher_shape, "The last size must be known")
    layers = []
    if len(student_shape) == 4:
        layers += _resize(student_shape, teacher_shape)
    elif len(student_shape) == 3 and not shapes_agree(student_shape[1:2], teacher_shape[1:2]):
        raise _unbridgeable(student_shape, teacher_shape, "Their lengths differ")
    width = teacher_shape[-1]
    if always or student_shape[-1] != width:
        is_image = len(student_shape) == 4
        layers.append(
            keras.layers.Conv2D(width, 1, name="projection")
            if is_image
            else keras.layers.Dense(width, name="projection")
        )
    return layers


def build(layers: Any, shape: Any) -> Any:
    """Builds a chain of layers for an input shape; returns the last one's output shape."""
    shape = tuple(shape)
    for layer in layers:
        if not layer.built:
            layer.build(shape)
        shape = tuple(layer.compute_output_shape(shape))
    return shape


def apply(layers: Any, features: Any, training: bool | None = None) -> Any:
    """The features after a chain of layers."""
    for layer in layers:
        takes = "training" in inspect.signature(layer.call).parameters
        features = layer(features, training=training) if takes else layer(features)
    return features


def _resize(student_shape, teacher_shape):
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Projectors of images need keras.config.image_data_format() == 'channels_last'. Pass a "
            "layer of your own as `projector`."
        )
    have, want = student_shape[1:3], teacher_shape[1:3]
    if shapes_agree(have, want):
        return []
    if None in have or None in want:
        raise _unbridgeable(student_shape, teacher_shape, "Height and width must be known")
    # In float32 under every policy, as the maps that are compared; nothing is trained here.
    if all(a % b == 0 for a, b in zip(have, want, strict=True)):
        factors = tuple(a // b for a, b in zip(have, want, strict=True))
        return [keras.layers.AveragePooling2D(factors, name="pooling", dtype="float32")]
    return [keras.layers.Resizing(*want, name="resizing", dtype="float32")]


def shapes_agree(shape: Any, other: Any) -> bool:
    """Whether two shapes may be the same: of one rank, and equal where both sizes are known."""
    return len(shape) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(shape, other, strict=True)
    )


def _unbridgeable(student_shape, teacher_shape, reason):
    return ValueError(
        f"No projector leads from the student's features of shape {student_shape} to the teacher's "
        f"of shape {teacher_shape}. {reason}. Choose other layers, or pass a layer as `projector`."
    )
