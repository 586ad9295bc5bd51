"""A layer that prepares images for an application of Keras whose channels change places."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_kd")
class ApplicationPreprocessing(keras.layers.Layer):
    """`preprocess_input` of the applications that take blue, green, red without their means.

    These are ResNet, VGG and their kin. The others scale each channel by itself, which
    `keras.layers.Rescaling` does.
    """

    def call(self, inputs: Any) -> Any:
        return keras.applications.resnet.preprocess_input(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
