"""`TFLiteTeacher`: a model in TensorFlow Lite's file format."""

import os

import keras

from keras_kd import models
from keras_kd.teachers import host


@keras.saving.register_keras_serializable(package="keras_kd")
class TFLiteTeacher(host.HostTeacher):
    """A `.tflite` model, run by LiteRT (`pip install 'keras-kd[litert]'`).

    Integer inputs and outputs are quantized and dequantized by the file's own scales. Several
    inputs go by their names (a dict) where their shapes do not tell them apart. With several
    outputs all of them teach, as a list in the order of their names.

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
        host.needs("ai_edge_litert.interpreter", "TFLiteTeacher", "litert")
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.measurement import runtimes
        from keras_kd.measurement.runtimes import matching

        if not os.path.isfile(path):
            raise ValueError(f"`path` must be a .tflite file. Received: path={path!r}")
        super().__init__(preprocess, name or "tflite_teacher", **kwargs)
        self.file, self.threads = os.fspath(path), int(threads)
        self._runtime = models.Untracked(runtimes.TFLiteFile(self.file, self.threads))
        self._by_name = matching.by_name

    def predict(self, inputs, layers=()):
        file = self._runtime.model
        outputs = file.run(self._by_name(inputs, file.inputs))
        return (outputs[0] if len(outputs) == 1 else outputs), {}

    def fingerprint(self):
        """The digest of the file."""
        return host.of_files([self.file])

    def get_config(self):
        config = super().get_config()
        config.update({"path": self.file, "threads": self.threads})
        return config
