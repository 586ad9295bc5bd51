"""`TfmotStudent`: what came of `distil`."""

import keras
import numpy as np

from keras_kd import files
from keras_kd.export import comparison, judging, representative, students
from keras_kd.ops import arguments
from keras_kd.quantization.tfmot import exporting, feeding

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
        found = [self.model(batch, training=False) for batch in feeding.in_batches(arrays)]
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
                raise arguments.invalid(name, f"one of {_DTYPES}", repr(dtype))
        rows = self._rows
        if data is not None:
            read = representative.read(data, self._signature, "data", max_rows=None)
            rows = comparison.Rows(*read)
        bounds = judging.Bounds(min_agreement, max_accuracy_drop)
        names = students.input_names(self._signature)
        return exporting.written(path, self, names, rows, (input_dtype, output_dtype), bounds)


def signature_of(model):
    """A Keras 3 model with the inputs of a tf_keras one, that says what they are."""
    inputs = [
        keras.Input(tuple(tensor.shape[1:]), dtype=tensor.dtype.name, name=tensor.name)
        for tensor in model.inputs
    ]
    return keras.Model(inputs, inputs, name=model.name)
