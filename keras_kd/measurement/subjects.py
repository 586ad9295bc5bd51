"""What can be measured: a Keras model, a file, a function or its texts."""

import os
import zipfile

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models, runtimes
from keras_kd._utils import validation
from keras_kd.measurement import sizes
from keras_kd.models import symbolic_pass
from keras_kd.runtimes import tensors
from keras_kd.runtimes.tensors import by_name

# `Subject`: what `measure` asks of whatever is measured.


class Subject:
    """Base class.

    Attributes:
        kind: As of `Measurement`.
        name: Likewise.
    """

    kind = ""
    name = ""

    def promised(self, inputs):
        """`{name: shape}` of the outputs for such inputs, or `None` where only running it tells.

        Args:
            inputs: `keras.KerasTensor`s in the structure of the data.

        Raises:
            ValueError: It cannot take them.
        """
        del inputs

    def predict(self, inputs):
        """Outputs of a batch, `{name: array}` in their order.

        Args:
            inputs: Arrays in the structure of the data.
        """
        raise NotImplementedError

    def size(self, inputs):
        """`(size, notes)` as of `Measurement`, from inputs of one row."""
        del inputs
        return {}, [f"size: left out; a {self.kind} has none that is known."]

    def timed(self, inputs):
        """What runs one row, to be timed.

        Args:
            inputs: Inputs of one row.

        Returns:
            `(call, facts, notes)`: a function, and `runtime`, `threads`, `batch_size`; the function
            is `None` where nothing can be timed.
        """
        del inputs
        return None, {}, [f"latency: left out; that of a {self.kind} is not measured."]


# A Keras model that is measured.


class KerasSubject(Subject):
    """Runs a Keras model in inference, as a TensorFlow function.

    Args:
        model: A `keras.Model`.
        name: A name; default: the model's.
    """

    kind = "keras"

    def __init__(self, model, name=None):
        self.model, self.name = model, name or model.name
        self._forward = tf.function(
            lambda x: model(x, training=False), autograph=False, reduce_retracing=True
        )

    def promised(self, inputs):
        outputs = symbolic_pass.check("data", inputs, "model", self.model)
        if outputs is None:
            return None
        return {name: tuple(x.shape) for name, x in outputs_by_name(self.model, outputs).items()}

    def predict(self, inputs):
        given = as_tensors(inputs)
        # Called by itself, TensorFlow takes several models for one that is traced again and again,
        # and warns of it.
        return named(self.model, self._forward.get_concrete_function(given)(given))

    def size(self, inputs):
        return sizes.of_keras(self.model, as_tensors(inputs))

    def timed(self, inputs):
        given = as_tensors(inputs)
        fixed = tf.function(self._forward.python_function, autograph=False)
        forward = fixed.get_concrete_function(given)
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
        facts = {"runtime": "keras", "threads": threads, "batch_size": 1}
        notes = [f"latency: of TensorFlow's own {threads} threads; `threads` is for files."]
        if tf.config.list_logical_devices("GPU"):
            notes.append("latency: TensorFlow sees a GPU, and may run the model there.")
        return lambda: keras.tree.map_structure(np.asarray, forward(given)), facts, notes


def as_tensors(inputs):
    """Arrays as the model takes them; NumPy's own float64 is taken for an accident, as by `fit`."""

    def tensor(x):
        x = tf.convert_to_tensor(x)
        return tf.cast(x, keras.config.floatx()) if x.dtype == tf.float64 else x

    return keras.tree.map_structure(tensor, inputs)


def named(model, outputs):
    """`{name: array}` of a model's outputs in any structure; a dict in the order of its names."""
    return {name: np.asarray(x) for name, x in outputs_by_name(model, outputs).items()}


def outputs_by_name(model, outputs):
    """`{name: output}` of a model's outputs; a dict in the order of its names."""
    if isinstance(outputs, dict):  # a file has this order too, and an index means the same
        return {name: outputs[name] for name in sorted(outputs)}
    flat = keras.tree.flatten(outputs)
    names = models.output_names(model, outputs) or [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


# A `.tflite` or `.onnx` file that is measured.


class FileSubject(Subject):
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
            tensors.check_fit(info, tuple(given[info.name].shape))
        return {info.name: (None, *info.shape[1:]) for info in self.file.outputs}

    def predict(self, inputs):
        outputs = self.file.run(by_name(inputs, self.file.inputs))
        return {info.name: x for info, x in zip(self.file.outputs, outputs, strict=True)}

    def size(self, inputs):
        if self.kind == "onnx":
            return sizes.of_onnx(self.file)
        return sizes.of_tflite(self.file, by_name(inputs, self.file.inputs))

    def timed(self, inputs):
        arrays = self.file.one_batch(by_name(inputs, self.file.inputs))
        self.file.set_inputs(arrays)
        facts = {
            "runtime": self.file.runtime,
            "threads": self.file.threads,
            "batch_size": len(arrays[0]),
        }
        return self.file.invoke, facts, []


# Generated text that is measured: of a function, or as it is.


class FunctionSubject(Subject):
    """A function from a batch of inputs to outputs or strings.

    Args:
        function: The function.
        name: A name; default: the function's.
    """

    kind = "function"

    def __init__(self, function, name=None):
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def predict(self, inputs):
        return {"output": self.function(inputs)}


class TextsSubject(Subject):
    """Strings that were generated before, one for each row of the data in its order.

    Args:
        texts: A list of strings.
        name: A name.
    """

    kind = "texts"

    def __init__(self, texts, name=None):
        self.texts, self.name = list(texts), name or "texts"
        self.rows_given, self._used = len(self.texts), 0

    def predict(self, inputs):
        start = self._used
        self._used += len(keras.tree.flatten(inputs)[0])
        return {"output": self.texts[start : self._used]}


class Decoded(Subject):
    """A subject of which a function makes strings.

    Args:
        subject: A `Subject`.
        decode: From the outputs of a batch, an array, to a list of strings.
    """

    def __init__(self, subject, decode):
        self.subject, self.decode = subject, decode
        self.kind, self.name = subject.kind, subject.name

    def predict(self, inputs):
        return {name: self._decoded(x) for name, x in self.subject.predict(inputs).items()}

    def _decoded(self, outputs):
        found = self.decode(outputs)
        if not isinstance(found, (list, tuple, np.ndarray)) or len(found) != len(outputs):
            raise ValueError(
                f"`decode` must return a list with a string for each of {len(outputs)} rows. "
                f"Received: {found!r}"
            )
        return found

    def size(self, inputs):
        return self.subject.size(inputs)

    def timed(self, inputs):
        return self.subject.timed(inputs)


# Finds out what is to be measured.


_KINDS: dict[type, str] = {runtimes.TFLiteFile: "tflite", runtimes.OnnxFile: "onnx"}


def subject_of(given, threads=1, name=None, decode=None):
    """The `Subject` that stands for whatever `measure` was given.

    Args:
        given: A Keras model; the path of a `.tflite`, `.onnx` or `.keras` file; a `TFLiteFile` or
            `OnnxFile`; a function; a list of strings.
        threads: Of the runtime of a file.
        name: A name in place of its own.
        decode: A function from outputs to strings, or `None`.

    Raises:
        ValueError: It is none of these.
    """
    validation.text("name", name, "a name", optional=True)
    tensors.positive("threads", threads)  # 0, any number, would time nothing
    validation.function("decode", decode, ["outputs"], optional=True)
    found = _found(given, threads, name)
    return found if decode is None else Decoded(found, decode)


def _found(given, threads, name):
    if isinstance(given, keras.Model):
        symbolic_pass.check_built("model_or_file", given)
        return KerasSubject(given, name)
    if isinstance(given, tuple(_KINDS)):
        return FileSubject(given, _KINDS[type(given)], name)
    if isinstance(given, (str, os.PathLike)):
        return _of_path(os.fspath(given), threads, name)
    if isinstance(given, (list, np.ndarray)) and all(isinstance(x, str) for x in given):
        return TextsSubject(given, name)
    if callable(given) and not isinstance(given, type):
        return FunctionSubject(given, name)
    raise ValueError(
        "`model_or_file` must be a keras.Model, the path of a .tflite, .onnx or .keras file, or, "
        "of generated text, a function or a list of strings. "
        f"Received: {given!r} of type {type(given).__name__}"
    )


def _of_path(path, threads, name):
    ending = os.path.splitext(path)[1]
    if ending == ".tflite":
        return FileSubject(runtimes.TFLiteFile(path, threads), "tflite", name)
    if ending == ".onnx":
        return FileSubject(runtimes.OnnxFile(path, threads), "onnx", name)
    if ending != ".keras":
        raise ValueError(f"Expected a .tflite, .onnx or .keras file. Received: {path!r}")
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r}. Expected the path of a .keras file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{os.path.basename(path)} is no .keras file, or only a part of one. Save the model "
            "again: model.save(path)."
        )
    model = keras.models.load_model(path, compile=False)
    return KerasSubject(model, name or os.path.basename(path))


__all__ = ["subject_of"]
