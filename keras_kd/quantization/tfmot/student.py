"""`TfmotStudent`: the result of `distill`, and its int8 file."""

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import files, validation
from keras_kd.export import comparison, judging, representative
from keras_kd.export.representative import Samples
from keras_kd.export.student import ExportableModel
from keras_kd.export.tflite import conversion, metadata, verify
from keras_kd.export.tflite.metadata import TFLiteExport
from keras_kd.export.tflite.options import TFLiteOptions, writable_path
from keras_kd.quantization.tfmot import setup
from keras_kd.version import __version__

_DTYPES = ("int8", "uint8", "float32")
# The name of the output in the file.
_OUTPUT = "logits"


class TfmotStudent:
    """A student that tensorflow-model-optimization made and `distill` trained for integers.

    It is not a Keras 3 model: `Distiller`, `measure` and `keras_kd.export` do not take it; they
    take the file that `to_tflite` writes, where they take files.

    Args:
        model: The tf_keras model of `quantize_model`.
        signature: The `ExportableModel` of a Keras 3 model with the same inputs.
        rows: The `Samples` to compare files on by default.

    Attributes:
        model: The tf_keras model. It computes with rounded numbers, as the file does.
        history: The mean loss of each epoch.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd
    from keras_kd.quantization import tfmot

    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = np.arange(64) % 3
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    done = tfmot.distill(teacher, student, (x, y), epochs=1)
    logits = done.predict(x)  # float32 [64, 3]
    ```
    """

    def __init__(self, model: Any, signature: ExportableModel, rows: Samples):
        self.model = model
        self.history: list[float] = []
        self._exportable, self._samples = signature, rows

    def predict(self, inputs: Any) -> np.ndarray:
        """The logits of inputs, computed with the integers of the file.

        Args:
            inputs: Arrays `[samples, ...]` in the structure of the student's inputs.

        Returns:
            Logits, float32 `[samples, classes]`.
        """
        samples = representative.read_samples(
            [inputs], self._exportable, "inputs", max_samples=None
        )
        return self._predict(samples.arrays)

    def _predict(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        found = [self.model(batch, training=False) for batch in setup.in_batches(arrays)]
        return np.concatenate([np.asarray(logits) for logits in found])

    def to_tflite(
        self,
        path: str | os.PathLike,
        *,
        data: Any = None,
        input_dtype: str = "int8",
        output_dtype: str = "int8",
        min_agreement: float | None = None,
        max_accuracy_drop: float | None = None,
        overwrite: bool = False,
    ) -> TFLiteExport:
        """Writes the int8 `.tflite` file, with a batch size of 1 and the trained ranges.

        No representative data is needed. The file is read back and compared with `predict`.

        Args:
            path: The file to write.
            data: See `keras_kd.export.to_tflite`; by default samples of the training data.
            input_dtype: The type of inputs that are real numbers: `"int8"`, `"uint8"` or
                `"float32"`.
            output_dtype: The same of the output.
            min_agreement: See `keras_kd.export.to_tflite`.
            max_accuracy_drop: See `keras_kd.export.to_tflite`.
            overwrite: Whether an existing file is replaced.

        Returns:
            A `keras_kd.export.TFLiteExport`.

        Raises:
            ExportError: An operator is left in float, or the file is too far from the student;
                nothing was written.
            FileExistsError: The file exists.
        """
        for name, dtype in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
            if dtype not in _DTYPES:
                raise validation.invalid(name, f"one of {_DTYPES}", repr(dtype))
        options = TFLiteOptions(
            path=writable_path(path, overwrite),
            quantization="int8",
            input_dtype=input_dtype,
            output_dtype=output_dtype,
            task="multiclass",
            bounds=judging.Bounds(min_agreement, max_accuracy_drop),
        )
        samples = self._samples
        if data is not None:
            samples = representative.read_samples(data, self._exportable, "data", max_samples=None)
        return self._write(options, samples)

    def _write(self, options, samples):
        dtypes = options.input_dtype, options.output_dtype
        content = metadata.add_metadata(
            _converted(self.model, self._exportable, dtypes),
            {"student": self.model.name, "keras_kd": __version__, "user": {}},
        )
        with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
            written = pathlib.Path(folder) / options.path.name
            written.write_bytes(content)
            export = self._verify(written, options, samples)
        with files.replace_atomically(options.path) as partial:
            partial.write_bytes(content)
        return export

    def _verify(self, written, options, samples):
        """The `TFLiteExport` of a file that holds what was requested."""
        file = verify.open_file(written)
        verify.check_requirements(file, "int8", options.input_dtype, options.output_dtype)
        found = file.run(self._exportable.feed(samples.arrays))
        expected = [self._predict(samples.arrays)]
        judgment = judging.judge_outputs(
            self.model,
            [_OUTPUT],
            expected,
            samples.labels,
            options.task,
            options.bounds,
            samples.labels_must_fit,
        )
        compared = comparison.compare(found, expected, samples, judgment)
        comparison.check_bounds(compared, "int8", options.bounds)
        notes = list(comparison.notes(compared))
        return verify.summarize(options.path, file, "int8", "converter", compared, judgment, notes)


def exportable_of(model: Any) -> ExportableModel:
    """The `ExportableModel` of a Keras 3 model with the inputs of a tf_keras one."""
    inputs = [
        keras.Input(tuple(tensor.shape[1:]), dtype=tensor.dtype.name, name=tensor.name)
        for tensor in model.inputs
    ]
    return ExportableModel.from_keras(keras.Model(inputs, inputs, name=model.name), "tfmot.distill")


def check_integer_file(model: Any, exportable: ExportableModel) -> None:
    """Raises `ExportError` unless a quantized model's file has integer operators only."""
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        made = pathlib.Path(folder) / "trial.tflite"
        made.write_bytes(_converted(model, exportable, ("int8", "int8")))
        verify.check_requirements(verify.open_file(made), "int8", "int8", "int8")


def _converted(model, exportable, dtypes):
    """The content of the int8 file of a model that tfmot quantized."""
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        path = pathlib.Path(folder) / "saved_model"
        # Not `from_keras_model`, which would take it for a Keras 3 model and fail. Nor is the model
        # itself saved: the functions of its layers would be saved too, which takes longer and is
        # not possible for all.
        module = tf.Module()
        module.state, module.serve = model.variables, _serve(model, exportable)
        with conversion.quiet():
            tf.saved_model.save(module, str(path), {conversion.SIGNATURE: module.serve})
        return conversion.convert(path, lambda converter: _optimize(converter, dtypes))


def _serve(model, exportable):
    # A batch of 1: the operators of some layers are integer only where the shapes are known.
    specs = [
        tf.TensorSpec((1, *each.shape[1:]), each.dtype, name=each.name)
        for each in exportable.inputs
    ]

    @tf.function(input_signature=specs)
    def serve(*arrays):
        return {_OUTPUT: model(list(arrays), training=False)}

    return serve


def _optimize(converter, dtypes):
    # The ranges are those that were trained. TFLITE_BUILTINS_INT8 would need representative data
    # all the same; whether all operators are integer is checked in the file.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type, converter.inference_output_type = map(tf.as_dtype, dtypes)
