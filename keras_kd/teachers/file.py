"""`FileTeacher`: what the teachers of `.onnx` and `.tflite` files share."""

import keras
import numpy as np

from keras_kd import models
from keras_kd.teachers import host
from keras_kd.teachers.file_outputs import FileOutputs


class FileTeacher(host.HostTeacher):
    """A file that teaches, run as `keras_kd.measure` runs it.

    Args:
        file: A `keras_kd.measurement.runtimes.ModelFile`.
        output: Name or index of the output that teaches, or `None`.
        preprocess: As of `Teacher`.
        name: As of `Teacher`.
    """

    def __init__(self, file, output=None, preprocess=None, name=None, **kwargs):
        super().__init__(preprocess, name, **kwargs)
        self.output_key = output
        self._runtime = models.Untracked(file)
        self._choice = FileOutputs([info.name for info in file.outputs], output, self.name)

    def predict(self, inputs, layers=()):
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.measurement.runtimes import matching

        file, names = self._runtime.model, self._choice.wanted(layers)
        found = file.run(matching.by_name(inputs, file.inputs), outputs=names)
        return self._choice.split(dict(zip(names, found, strict=True)), layers)

    def _spec(self, inputs, layers):
        from keras_kd.measurement.runtimes import probing

        def described(tensor):
            shape = None if tensor.shape.rank is None else tuple(tensor.shape)
            return probing.Described(shape, np.dtype(tensor.dtype.as_numpy_dtype))

        names = self._choice.wanted(layers)
        given = keras.tree.map_structure(described, inputs)
        with self._turn.model:
            shapes = probing.output_shapes(self._runtime.model, given, names)
        specs = [host.Shape(shape) for shape in shapes]
        return self._choice.split(dict(zip(names, specs, strict=True)), layers)

    def input_specs(self):
        """That of its only input, whatever it is called; of several only the data tells."""
        inputs = self._runtime.model.inputs
        if self.preprocess is not None or len(inputs) != 1:
            return None
        info = inputs[0]
        return {"": keras.KerasTensor((None, *info.shape[1:]), info.dtype)}

    @property
    def output_names(self):
        """Those of the file, unless its exporter counted them."""
        return self._choice.given_names

    def last_activation(self, output=None):
        """That of the file's last operator, where it is plain."""
        name = self._choice.name_of(output)
        return None if name is None else self._runtime.model.last_activation(name)

    def resolve(self, layer):
        return self._choice.resolve(layer)

    def fingerprint(self):
        """The digest of the file, of those that hold its data, and of what it is asked."""
        file = self._runtime.model
        return host.of_files(file.files, _asked(file, self._choice.chosen))

    def get_config(self):
        config = super().get_config()
        file = self._runtime.model
        constants = {name: each.value for name, each in file.constants.items()}
        config.update(
            {
                "path": file.path,
                "output": self.output_key,
                "threads": file.threads,
                "constants": keras.saving.serialize_keras_object(constants) or None,
                "channels_first": file.channels_first,
            }
        )
        return config


def _asked(file, chosen):
    """What else than the file decides what it says; nothing where that is plain."""
    parts = []
    for name, each in sorted(file.constants.items()):
        parts.append(f"{name} {each.value.dtype} {each.value.shape}".encode())
        parts.append(np.ascontiguousarray(each.value).tobytes())
    if len(chosen) < len(file.outputs):
        parts.append(repr(chosen).encode())
    if file.channels_first:
        parts.append(b"channels first")
    return parts
