"""`TFLiteTeacher`: a model in TensorFlow Lite's file format."""

import os

import keras
import numpy as np

from keras_kd import models
from keras_kd.teachers import host


@keras.saving.register_keras_serializable(package="keras_kd")
class TFLiteTeacher(host.HostTeacher):
    """A `.tflite` model, run by LiteRT (`pip install 'keras-kd[litert]'`).

    Integer inputs and outputs are quantized and dequantized by the file's own scales. With several
    outputs all of them teach, as a list.

    Args:
        path: The `.tflite` file.
        preprocess: As of `Teacher`.
        threads: Threads of the interpreter.
        name: As of `Teacher`.

    Raises:
        ImportError: LiteRT is missing.
        ValueError: There is no such file, or the inputs do not fit.

    Example:

    ```python
    def distiller(path, student):  # path: a .tflite file
        import keras_kd as kd

        return kd.Distiller(kd.teachers.TFLiteTeacher(path), student)
    ```
    """

    def __init__(self, path, preprocess=None, threads=1, name=None, **kwargs):
        litert = host.needs("ai_edge_litert.interpreter", "TFLiteTeacher", "litert")
        if not os.path.isfile(path):
            raise ValueError(f"`path` must be a .tflite file. Received: path={path!r}")
        super().__init__(preprocess, name or "tflite_teacher", **kwargs)
        self.file, self.threads = os.fspath(path), int(threads)
        interpreter = litert.Interpreter(model_path=self.file, num_threads=self.threads)
        self._interpreter = models.Untracked(interpreter)

    def predict(self, inputs, layers=()):
        interpreter = self._interpreter.model
        _set_inputs(interpreter, keras.tree.flatten(inputs))
        interpreter.invoke()
        outputs = [
            _dequantized(interpreter.get_tensor(x["index"]), x)
            for x in interpreter.get_output_details()
        ]
        return (outputs[0] if len(outputs) == 1 else outputs), {}

    def fingerprint(self):
        """The digest of the file."""
        return host.of_files([self.file])

    def get_config(self):
        config = super().get_config()
        config.update({"path": self.file, "threads": self.threads})
        return config


def _set_inputs(interpreter, inputs):
    details = interpreter.get_input_details()
    if len(details) != len(inputs):
        raise ValueError(
            f"The .tflite model takes {len(details)} inputs; the batch has {len(inputs)}. "
            "Rearrange them with `preprocess`."
        )
    for detail, value in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != value.shape:
            interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], _quantized(value, detail))


def _quantized(values, detail):
    scale, zero = detail["quantization"]
    dtype = detail["dtype"]
    if scale == 0 or np.issubdtype(values.dtype, np.integer):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(dtype)


def _dequantized(values, detail):
    scale, zero = detail["quantization"]
    if scale == 0:
        return values.astype(np.float32)
    return (values.astype(np.float32) - zero) * np.float32(scale)
