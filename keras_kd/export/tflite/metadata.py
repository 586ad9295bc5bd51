"""`TFLiteExport`, and what a `.tflite` file says of itself."""

import dataclasses
import json
import os
import pathlib

import numpy as np

from keras_kd._utils import validation
from keras_kd.export.source import ExportError
from keras_kd.runtimes import TensorInfo, tflite

# What a `.tflite` file says of itself: a JSON text among its metadata.


NAME = "keras_kd"


def added(content, values):
    """The bytes of a file with `values` (a dict that JSON can hold) among its metadata."""
    from keras_kd.export.tflite import flatbuffer  # which needs flatbuffers, of the extra

    schema = tflite.schema()
    model = flatbuffer.unpacked(content)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(values, sort_keys=True).encode("utf-8"), np.uint8)
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return flatbuffer.packed(model, len(content))


def read(path):
    """What `to_tflite` noted in a file.

    Args:
        path: A `.tflite` file.

    Returns:
        A dict: the student's name, the version of keras_kd, and under `"user"` what was passed as
        `user_metadata`.

    Raises:
        ExportError: The file has no such note.
        FileNotFoundError: There is no such file.
        ValueError: It is no `.tflite` file.

    Example:

    ```python
    def classes_of(path):  # path: a file that was written with user_metadata={"classes": [...]}
        import keras_kd as kd

        return kd.export.read_metadata(path)["user"]["classes"]
    ```
    """
    if not isinstance(path, (str, os.PathLike)):
        raise validation.invalid("path", "the name of a .tflite file", repr(path))
    if pathlib.Path(path).is_dir():
        raise validation.invalid("path", "the name of a .tflite file", f"{str(path)!r}, a folder")
    tflite.check(path)
    model = tflite.parsed(path)
    for entry in model.metadata or []:
        if tflite.text(entry.name) == NAME:
            return json.loads(bytes(model.buffers[entry.buffer].data).decode("utf-8"))
    raise ExportError(f"{path} has no metadata of keras_kd: it was not written by to_tflite.")


# `TFLiteExport`: what `to_tflite` wrote, and how it compares with the model.


@dataclasses.dataclass(frozen=True)
class TFLiteExport:
    """A `.tflite` file that was written, read back and compared with its model.

    Args:
        path: The file.
        bytes: Its size.
        quantization: As asked for.
        route: What made it: `"converter"` (TensorFlow's) or `"edge_quantizer"`.
        operators: `{name: count}`.
        float_operators: Names of operators that compute in floats.
        inputs: A `TensorInfo` for each input: name, shape, dtype, scale, zero point.
        outputs: Likewise.
        rows: Rows on which it was compared.
        agreement: Fraction of these with the same answer as the model: class (argmax), or side of
            the threshold of a logit (0) or a sigmoid (0.5), of several labels each; the least of
            the outputs. `None` where there are no classes, or the rows were made up.
        worst_difference: Largest absolute difference of an output from the model's.
        accuracy: Of the file on `data`, where that has labels of classes, else `None`; of several
            outputs that which lost most.
        model_accuracy: Of the model on the same.
        notes: What else is to be known, in words.
        tasks: `{output: task}`, by which it was compared: `"multiclass"`, `"binary"`,
            `"multilabel"` or `"regression"`.
        supposed: Names of the outputs of which only shape and layer tell the task.
        error: Root mean squared difference in standard deviations of the model's output, but for
            the tenth of the rows that lies farthest from the mean; the largest of the outputs.
            `None` where the rows were made up.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import keras_kd as kd

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    done = kd.export.to_tflite(student, pathlib.Path(tempfile.mkdtemp()) / "student.tflite")
    print(done)
    ```
    """

    path: pathlib.Path
    bytes: int
    quantization: str | None
    route: str
    operators: dict
    float_operators: list
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    rows: int
    agreement: float | None
    worst_difference: float
    accuracy: float | None = None
    model_accuracy: float | None = None
    notes: list = dataclasses.field(default_factory=list)
    tasks: dict = dataclasses.field(default_factory=dict)
    supposed: list = dataclasses.field(default_factory=list)
    error: float | None = None

    def __str__(self):
        lines = [
            f"{self.path.name}: {self.bytes:,} bytes, {self.quantization or 'float32'}, by the "
            f"{self.route.replace('_', ' ')}",
            f"  operators: {', '.join(f'{n} x {name}' for name, n in self.operators.items())}",
            *(f"  input {_words(info)}" for info in self.inputs),
            *(f"  output {_words(info)}" for info in self.outputs),
            f"  worst difference from the model over {self.rows} rows: {self.worst_difference:.3g}",
        ]
        if self.error is not None:
            lines.append(f"  error in standard deviations of the output: {self.error:.3g}")
        if self.agreement is not None:
            lines.append(f"  same answer as the model: {self.agreement:.2%}")
        if self.accuracy is not None:
            lines.append(f"  accuracy {self.accuracy:.2%}, the model's {self.model_accuracy:.2%}")
        if self.tasks:
            lines.append(f"  compared as {', '.join(map(self._task, self.tasks))}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _task(self, name):
        supposed = " (supposed; `task` tells)" if name in self.supposed else ""
        return f"{name}: {self.tasks[name]}{supposed}"


def _words(info):
    scaled = f", (value - {info.zero_point}) * {info.scale:.6g}" if info.scale else ""
    return f"{info.name}: {info.dtype} {list(info.shape)}{scaled}"
