"""A `.tflite` or `.onnx` file that is measured."""

from keras_kd.measurement.runtimes import feeding
from keras_kd.measurement.runtimes.matching import by_name
from keras_kd.measurement.size import of_files
from keras_kd.measurement.subjects import base


class FileSubject(base.Subject):
    """Runs a file.

    Args:
        file: A `TFLiteFile` or `OnnxFile`.
        kind: `"tflite"` or `"onnx"`.
        name: A name; default: the file's.
    """

    def __init__(self, file, kind, name=None):
        self.file, self.kind, self.name = file, kind, name or file.name

    def promised(self, inputs):
        given = by_name(inputs, self.file.inputs)
        for info in self.file.inputs:
            feeding.check_fit(info, tuple(given[info.name].shape))
        return {info.name: (None, *info.shape[1:]) for info in self.file.outputs}

    def predict(self, inputs):
        outputs = self.file.run(by_name(inputs, self.file.inputs))
        return {info.name: x for info, x in zip(self.file.outputs, outputs, strict=True)}

    def size(self, inputs):
        if self.kind == "onnx":
            return of_files.of_onnx(self.file)
        return of_files.of_tflite(self.file, by_name(inputs, self.file.inputs))

    def timed(self, inputs):
        arrays = self.file.one_batch(by_name(inputs, self.file.inputs))
        self.file.set_inputs(arrays)
        facts = {
            "runtime": self.file.runtime,
            "threads": self.file.threads,
            "batch_size": len(arrays[0]),
        }
        return self.file.invoke, facts, []
