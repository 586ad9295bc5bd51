"""How long a model takes in its float `.tflite` file, for `keras_kd.students.shrink`.

`students` is a room below this one, and measurement: it is given the function, so that a budget of
latency is what `keras_kd.measure` reports of the exported file.
"""

import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd.export.student import ExportableModel
from keras_kd.export.tflite import conversion
from keras_kd.runtimes import TFLiteFile

_WARMUP, _RUNS = 10, 100


def tflite_milliseconds(model: keras.Model, sample: Any) -> float:
    """The median time of one sample in the float `.tflite` file of a model, in one thread.

    Args:
        model: A Keras model.
        sample: Inputs of one sample, in its structure.

    Raises:
        ImportError: LiteRT is missing.
        ExportError: TensorFlow cannot convert the model.
    """
    validation.needs("ai_edge_litert", "A budget of 'latency_ms'", "litert")
    # Loaded on first use, as everything of `measure`.
    from keras_kd.measurement.api import measure_latency

    arrays = keras.tree.map_structure(np.asarray, sample)
    exportable = ExportableModel.from_keras(model, "shrink").with_inputs_like(arrays)
    with tempfile.TemporaryDirectory(prefix="keras_kd_timing_") as folder:
        path = pathlib.Path(folder) / "student.tflite"
        path.write_bytes(conversion.float_tflite(exportable))
        file = TFLiteFile(path)
        file.set_inputs(file.one_batch(exportable.feed(keras.tree.flatten(arrays))))
        return measure_latency(file.invoke, _WARMUP, _RUNS)["median_us"] / 1000
