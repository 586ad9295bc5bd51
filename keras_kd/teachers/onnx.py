"""`OnnxTeacher`: a model in ONNX's file format."""

import os

import keras

from keras_kd.teachers import host
from keras_kd.teachers.file import FileTeacher


@keras.saving.register_keras_serializable(package="keras_kd")
class OnnxTeacher(FileTeacher):
    """An ONNX model, run by ONNX Runtime (`pip install 'keras-kd[onnx]'`).

    Several inputs go by their names (a dict) where their shapes and types do not tell them apart; a
    file of a fixed number of rows is given that many at once.

    Args:
        path: The `.onnx` file.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list in the file's order, which belong to the student's outputs of the same
            names. The others can be tapped by their names.
        preprocess: As of `Teacher`.
        providers: ONNX Runtime's execution providers; default: the CPU's.
        threads: Threads of ONNX Runtime; 0: its own choice.
        name: As of `Teacher`.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            sample rate or a state of zeros. A size of 1 where the file leaves it open is repeated
            to the rows of the batch.
        channels_first: Whether the file has images as `[rows, channels, height, width]`: inputs,
            outputs and taps of rank 4 are then turned from and to Keras' order.

    Raises:
        ImportError: ONNX Runtime is missing.
        ValueError: There is no such file, output or input; the inputs do not fit.

    Example:

    ```python
    def distiller(path, student):  # path: an .onnx file that detects speech
        import numpy as np
        import keras_kd as kd

        constants = {"sr": 16000, "state": np.zeros((2, 1, 128))}
        teacher = kd.teachers.OnnxTeacher(path, output="output", constants=constants)
        return kd.Distiller(teacher, student, kd.losses.RegressionKD(), alpha=0.0)
    ```
    """

    def __init__(
        self,
        path,
        output=None,
        preprocess=None,
        providers=("CPUExecutionProvider",),
        threads=0,
        name=None,
        *,
        constants=None,
        channels_first=False,
        **kwargs,
    ):
        host.needs("onnxruntime", "OnnxTeacher", "onnx")
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.measurement import runtimes

        if not os.path.isfile(path):
            raise ValueError(f"`path` must be an .onnx file. Received: path={path!r}")
        file = runtimes.OnnxFile(
            path, threads, providers=providers, constants=constants, channels_first=channels_first
        )
        super().__init__(file, output, preprocess, name or "onnx_teacher", **kwargs)

    def get_config(self):
        return {**super().get_config(), "providers": self._runtime.model.providers}
