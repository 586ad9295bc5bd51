"""Features of images: `[batch, height, width, channels]`."""

import keras

# Why a loss takes no `mask_input`.
WHOLE_IMAGES = "compares whole images and has no positions of a sequence that could be padding"


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


def channel_maps(features):
    """`[batch, height, width, channels]` as `[batch, channels, positions]`."""
    batch, height, width, channels = keras.ops.shape(features)
    positions = keras.ops.reshape(features, (batch, height * width, channels))
    return keras.ops.transpose(positions, (0, 2, 1))
