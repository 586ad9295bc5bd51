"""Writes the int8 file of a model that tfmot quantized, and holds it against the model."""

import pathlib
import tempfile

import tensorflow as tf

from keras_kd.export import comparison, conversion, examining, judging, metadata, promises
from keras_kd.files import renamed
from keras_kd.version import __version__

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
        promises.check(examining.opened(made), "int8", "int8", "int8")


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
    file = examining.opened(made)
    promises.check(file, "int8", *dtypes)
    found = file.run(dict(zip(names, rows.arrays, strict=True)))
    expected = [student.of(rows.arrays)]
    judged = judging.of(
        student.model, [_OUTPUT], expected, rows.labels, "multiclass", bounds, rows.are_promised
    )
    compared = comparison.compare(found, expected, rows, judged)
    comparison.check(compared, "int8", bounds)
    notes = list(comparison.notes(compared))
    return examining.told(path, file, "int8", "converter", compared, judged, notes)
