"""What a `.tflite` file says of itself: a JSON text among its metadata."""

import json
import os
import pathlib

import numpy as np

from keras_kd import checks
from keras_kd.export.errors import ExportError
from keras_kd.measurement.runtimes import tflite_format

NAME = "keras_kd"


def added(content, values):
    """The bytes of a file with `values` (a dict that JSON can hold) among its metadata."""
    from keras_kd.export import packing  # which needs flatbuffers, of the extra

    schema = tflite_format.schema()
    model = packing.unpacked(content)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(values, sort_keys=True).encode("utf-8"), np.uint8)
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return packing.packed(model, len(content))


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
        raise checks.invalid("path", "the name of a .tflite file", repr(path))
    if pathlib.Path(path).is_dir():
        raise checks.invalid("path", "the name of a .tflite file", f"{str(path)!r}, a folder")
    tflite_format.check(path)
    model = tflite_format.parsed(path)
    for entry in model.metadata or []:
        if tflite_format.text(entry.name) == NAME:
            return json.loads(bytes(model.buffers[entry.buffer].data).decode("utf-8"))
    raise ExportError(f"{path} has no metadata of keras_kd: it was not written by to_tflite.")
