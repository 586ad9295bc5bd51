"""`TfmotStudent`: what came of `distil`."""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import files, validation
from keras_kd._utils.files import renamed
from keras_kd.export import comparison, judging, representative, source
from keras_kd.export.tflite import conversion, metadata, verify
from keras_kd.quantization.tfmot import setup
from keras_kd.version import __version__

_DTYPES = ("int8", "uint8", "float32")


class TfmotStudent:
    """A student that tensorflow-model-optimization made and `distil` trained for integers.

    It is no Keras 3 model: `Distiller`, `measure` and `keras_kd.export` do not take it; they take
    the file that `to_tflite` writes, where they take files.

    Args:
        model: The tf_keras model of `quantize_model`.
        signature: A Keras 3 model with the same inputs.
        rows: `comparison.Rows` to compare files on by default.

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
    done = tfmot.distil(teacher, student, (x, y), epochs=1)
    logits = done.predict(x)  # float32 [64, 3]
    ```
    """

    def __init__(self, model, signature, rows):
        self.model = model
        self.history = []
        self._signature, self._rows = signature, rows

    def predict(self, inputs):
        """The logits of inputs, as the integers of the file give them.

        Args:
            inputs: Arrays `[rows, ...]` in the structure of the student's inputs.

        Returns:
            Logits, float32 `[rows, classes]`.
        """
        arrays, _ = representative.read([inputs], self._signature, "inputs", max_rows=None)
        return self.of(arrays)

    def of(self, arrays):
        """The logits of a list of arrays, one for each input."""
        found = [self.model(batch, training=False) for batch in setup.in_batches(arrays)]
        return np.concatenate([np.asarray(logits) for logits in found])

    def to_tflite(
        self,
        path,
        *,
        data=None,
        input_dtype="int8",
        output_dtype="int8",
        min_agreement=None,
        max_accuracy_drop=None,
        overwrite=False,
    ):
        """Writes the int8 `.tflite` file, for one row at once, with the ranges that were trained.

        No representative data is needed. The file is read back and compared with `predict`.

        Args:
            path: Where to.
            data: As of `keras_kd.export.to_tflite`; by default rows of the training data.
            input_dtype: The type of inputs that are real numbers: `"int8"`, `"uint8"` or
                `"float32"`.
            output_dtype: The same of the output.
            min_agreement: As of `keras_kd.export.to_tflite`.
            max_accuracy_drop: Likewise.
            overwrite: Whether an existing file is replaced.

        Returns:
            A `keras_kd.export.TFLiteExport`.

        Raises:
            ExportError: An operator is left in float, or the file is too far from the student;
                nothing was written.
            FileExistsError: The file exists.
        """
        path = files.free(path, overwrite)
        for name, dtype in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
            if dtype not in _DTYPES:
                raise validation.invalid(name, f"one of {_DTYPES}", repr(dtype))
        rows = self._rows
        if data is not None:
            read = representative.read(data, self._signature, "data", max_rows=None)
            rows = comparison.Rows(*read)
        bounds = judging.Bounds(min_agreement, max_accuracy_drop)
        names = source.input_names(self._signature)
        return written(path, self, names, rows, (input_dtype, output_dtype), bounds)


def signature_of(model):
    """A Keras 3 model with the inputs of a tf_keras one, that says what they are."""
    inputs = [
        keras.Input(tuple(tensor.shape[1:]), dtype=tensor.dtype.name, name=tensor.name)
        for tensor in model.inputs
    ]
    return keras.Model(inputs, inputs, name=model.name)


# Writes the int8 file of a model that tfmot quantized, and holds it against the model.


_OUTPUT = "logits"


def written(path, student, names, rows, dtypes, bounds):
    """Writes the file at `path`; returns its `TFLiteExport`.

    Args:
        path: Where to.
        student: The `TfmotStudent`.
        names: A name for each input.
        rows: The `comparison.Rows`.
        dtypes: `(of inputs that are real numbers, of the outputs)`.
        bounds: The `judging.Bounds`.

    Raises:
        ExportError: It cannot be converted, or does not hold what it must; nothing was written.
    """
    content = _converted(student.model, names, dtypes)
    noted = {"student": student.model.name, "keras_kd": __version__, "user": {}}
    content = metadata.added(content, noted)
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        made = pathlib.Path(folder) / path.name
        made.write_bytes(content)
        result = _examined(path, made, student, names, rows, dtypes, bounds)
    with renamed(path) as partial:
        partial.write_bytes(content)
    return result


def check(model, names):
    """Raises `ExportError` unless the model's file is integer throughout, whatever its numbers."""
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        made = pathlib.Path(folder) / "trial.tflite"
        made.write_bytes(_converted(model, names, ("int8", "int8")))
        comparison.check_requirements(verify.opened(made), "int8", "int8", "int8")


def _converted(model, names, dtypes):
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        path = pathlib.Path(folder) / "saved_model"
        # Not `from_keras_model`, which would take it for a Keras 3 model and fail. Nor is the model
        # itself saved: with it go the functions of its layers, which takes longer and cannot be
        # done for all.
        module = tf.Module()
        module.state, module.serve = model.variables, _serve(model, names)
        with conversion.quiet():
            tf.saved_model.save(module, str(path), {conversion.SIGNATURE: module.serve})
        return conversion.convert(path, lambda converter: _optimize(converter, dtypes))


def _serve(model, names):
    # One row: the operators of some layers are integer only where the shapes are known.
    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, names, strict=True)
    ]

    @tf.function(input_signature=specs)
    def serve(*arrays):
        return {_OUTPUT: model(list(arrays), training=False)}

    return serve


def _optimize(converter, dtypes):
    # The ranges are those that were trained. TFLITE_BUILTINS_INT8 would ask for representative data
    # nevertheless; whether all operators are integer is looked at in the file.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type, converter.inference_output_type = map(tf.as_dtype, dtypes)


def _examined(path, made, student, names, rows, dtypes, bounds):
    file = verify.opened(made)
    comparison.check_requirements(file, "int8", *dtypes)
    found = file.run(dict(zip(names, rows.arrays, strict=True)))
    expected = [student.of(rows.arrays)]
    judged = judging.of(
        student.model, [_OUTPUT], expected, rows.labels, "multiclass", bounds, rows.are_promised
    )
    compared = comparison.compare(found, expected, rows, judged)
    comparison.check(compared, "int8", bounds)
    notes = list(comparison.notes(compared))
    return verify.told(path, file, "int8", "converter", compared, judged, notes)
