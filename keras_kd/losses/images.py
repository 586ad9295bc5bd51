"""Features of images: `[batch, height, width, channels]`."""

import keras

from keras_kd.ops.arguments import invalid


def check_images(loss, teacher_shape, student_shape):
    """Raises unless both are `[batch, height, width, channels]`."""
    data_format = keras.config.image_data_format()
    if data_format != "channels_last" or {len(teacher_shape), len(student_shape)} != {4}:
        raise ValueError(
            f"Distillation loss {loss.name!r} compares images and expects features of shape "
            "[batch, height, width, channels], channels last. Received: teacher "
            f"{tuple(teacher_shape)}, student {tuple(student_shape)}, "
            f"image_data_format={data_format!r}."
        )


def refuse_mask(loss):
    """Raises if a loss over whole images was given a mask of positions."""
    if loss.mask_input is not None:
        raise invalid(
            "mask_input",
            f"None: {type(loss).__name__} compares whole images and has no positions of a "
            "sequence that could be padding",
            repr(loss.mask_input),
        )


def channel_maps(features):
    """`[batch, height, width, channels]` as `[batch, channels, positions]`."""
    batch, height, width, channels = keras.ops.shape(features)
    positions = keras.ops.reshape(features, (batch, height * width, channels))
    return keras.ops.transpose(positions, (0, 2, 1))
