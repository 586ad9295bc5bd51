"""`TFLiteTeacher`: a model in TensorFlow Lite's file format."""

import os

import keras

from keras_kd.teachers import host
from keras_kd.teachers.file import FileTeacher


@keras.saving.register_keras_serializable(package="keras_kd")
class TFLiteTeacher(FileTeacher):
    """A `.tflite` model, run by LiteRT (`pip install 'keras-kd[litert]'`).

    Integer inputs and outputs are quantized and dequantized by the file's own scales. Several
    inputs go by their names (a dict) where their shapes and types do not tell them apart; a file of
    a fixed number of rows is given that many at once.

    Args:
        path: The `.tflite` file.
        preprocess: As of `Teacher`.
        threads: Threads of the interpreter.
        name: As of `Teacher`.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list in the file's order (of a signature: that of its names), which belong to
            the student's outputs of the same names. The others can be tapped by their names.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            state of zeros. A size of 1 where the file leaves it open is repeated to the rows of
            the batch.
        channels_first: Whether the file has images as `[rows, channels, height, width]`: inputs,
            outputs and taps of rank 4 are then turned from and to Keras' order.

    Raises:
        ImportError: LiteRT is missing.
        ValueError: There is no such file, output or input; the inputs do not fit.

    Example:

    ```python
    def distiller(path, student):  # path: a .tflite file
        import keras_kd as kd

        return kd.Distiller(kd.teachers.TFLiteTeacher(path), student)
    ```
    """

    def __init__(
        self,
        path,
        preprocess=None,
        threads=1,
        name=None,
        *,
        output=None,
        constants=None,
        channels_first=False,
        **kwargs,
    ):
        host.needs("ai_edge_litert.interpreter", "TFLiteTeacher", "litert")
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.measurement import runtimes

        if not os.path.isfile(path):
            raise ValueError(f"`path` must be a .tflite file. Received: path={path!r}")
        file = runtimes.TFLiteFile(
            path, threads, constants=constants, channels_first=channels_first
        )
        super().__init__(file, output, preprocess, name or "tflite_teacher", **kwargs)
