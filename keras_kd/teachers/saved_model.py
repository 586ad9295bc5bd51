"""`SavedModelTeacher`: TensorFlow's own file format."""

import os
import pathlib

import keras

from keras_kd.teachers import base
from keras_kd.teachers.host import of_files, pick


@keras.saving.register_keras_serializable(package="keras_kd")
class SavedModelTeacher(base.Teacher):
    """A TensorFlow SavedModel, such as `model.export(path)` writes, as a teacher.

    It runs inside of the training step as a Keras model does.

    Args:
        path: The SavedModel's folder.
        endpoint: Which of its functions is called; `"serve"` is Keras' own,
            `"serving_default"` that of other programs.
        output: The name of the output, where the function gives several.
        preprocess: As of `Teacher`.
        name: As of `Teacher`.

    Raises:
        ValueError: There is no such folder or function; or an output must be chosen.

    Example:

    ```python
    import tempfile
    import keras
    import keras_kd as kd

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    folder = tempfile.mkdtemp()
    model.export(folder, verbose=False)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(kd.teachers.SavedModelTeacher(folder), student)
    ```
    """

    def __init__(self, path, endpoint="serve", output=None, preprocess=None, name=None, **kwargs):
        if not os.path.exists(os.path.join(path, "saved_model.pb")):
            raise ValueError(
                "`path` must be the folder of a TensorFlow SavedModel (it holds saved_model.pb). "
                f"Received: path={path!r}"
            )
        super().__init__(preprocess, name or "saved_model_teacher", **kwargs)
        self.folder, self.endpoint, self.output_key = os.fspath(path), endpoint, output
        self.layer = keras.layers.TFSMLayer(self.folder, call_endpoint=endpoint)

    def call(self, inputs):
        outputs = self.layer(inputs)
        return pick(outputs, self.output_key, self.name) if isinstance(outputs, dict) else outputs

    def answer(self, lesson):
        return self.call(self.prepared(lesson.inputs))

    def resolve(self, layer):
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but a SavedModel has "
            "outputs only."
        )

    def fingerprint(self):
        """The digest of the files."""
        files = pathlib.Path(self.folder).rglob("*")
        return of_files(sorted(file for file in files if file.is_file()))

    def get_config(self):
        config = super().get_config()
        config.update({"path": self.folder, "endpoint": self.endpoint, "output": self.output_key})
        return config
