"""`TFLiteExport`, the result of `to_tflite`, and the metadata in a `.tflite` file."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.export.student import ExportError
from keras_kd.runtimes import TensorInfo, tflite


@dataclasses.dataclass(frozen=True)
class TFLiteExport:
    """A `.tflite` file that was written, read back and compared with its model.

    Args:
        path: The file.
        bytes: Its size.
        quantization: Its quantization.
        route: `"converter"` (TensorFlow's) or `"edge_quantizer"`.
        operators: `{name: count}`.
        float_operators: Names of operators that compute with floats.
        inputs: A `TensorInfo` for each input: name, shape, dtype, scale, zero point.
        outputs: A `TensorInfo` for each output.
        rows: The number of samples on which it was compared.
        agreement: Fraction of samples with the same answer as the model: class (argmax), or side of
            the threshold of a logit (0) or a sigmoid (0.5), of several labels each; the least of
            the outputs. `None` where there are no classes, or the samples were made up.
        worst_difference: Largest absolute difference of an output from the model's.
        accuracy: The file's on `data`, where that has labels of classes, else `None`; of several
            outputs, that of the one that lost most.
        model_accuracy: The model's on the same.
        notes: What else the user should know.
        tasks: `{output: task}`, by which it was compared: `"multiclass"`, `"binary"`,
            `"multilabel"` or `"regression"`.
        supposed: Names of the outputs whose task is assumed from their shape and layer.
        error: Root mean squared difference in standard deviations of the model's output, without
            the tenth of the samples that lies farthest from the mean; the largest of the outputs.
            `None` where the samples were made up.

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
    operators: dict[str, int]
    float_operators: list[str]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    rows: int
    agreement: float | None
    worst_difference: float
    accuracy: float | None = None
    model_accuracy: float | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    tasks: dict[str, str] = dataclasses.field(default_factory=dict)
    supposed: list[str] = dataclasses.field(default_factory=list)
    error: float | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.path.name}: {self.bytes:,} bytes, {self.quantization or 'float32'}, by the "
            f"{self.route.replace('_', ' ')}",
            f"  operators: {', '.join(f'{n} x {name}' for name, n in self.operators.items())}",
            *(f"  input {_words(info)}" for info in self.inputs),
            *(f"  output {_words(info)}" for info in self.outputs),
            f"  worst difference from the model over {self.rows} samples: "
            f"{self.worst_difference:.3g}",
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
        supposed = " (assumed; pass `task`)" if name in self.supposed else ""
        return f"{name}: {self.tasks[name]}{supposed}"


def _words(info):
    scaled = f", (value - {info.zero_point}) * {info.scale:.6g}" if info.scale else ""
    return f"{info.name}: {info.dtype} {list(info.shape)}{scaled}"


# The name of keras_kd's entry, a JSON text, in the metadata of a file.
NAME = "keras_kd"


def add_metadata(content: bytes, values: Mapping[str, Any]) -> bytes:
    """The content of a file with `values` (a dict that JSON can hold) in its metadata."""
    from keras_kd.export.tflite import flatbuffer  # which needs flatbuffers, of the extra

    schema = tflite.schema()
    model = flatbuffer.unpacked(content)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(values, sort_keys=True).encode("utf-8"), np.uint8)
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return flatbuffer.packed(model, len(content))


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that `to_tflite` wrote into a file.

    Args:
        path: A `.tflite` file.

    Returns:
        A dict: the student's name, the version of keras_kd, and under `"user"` the
        `user_metadata`.

    Raises:
        ExportError: The file was not written by `to_tflite`.
        FileNotFoundError: The file does not exist.
        ValueError: It is not a `.tflite` file.

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
    tflite.check_format(path)
    model = tflite.parse_file(path)
    for entry in model.metadata or []:
        if tflite.decode_name(entry.name) == NAME:
            return json.loads(bytes(model.buffers[entry.buffer].data).decode("utf-8"))
    raise ExportError(f"{path} has no metadata of keras_kd: it was not written by to_tflite.")
