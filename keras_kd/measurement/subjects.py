"""`Subject`: what can be measured: a Keras model, a file, a function or its texts."""

import os
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import validation
from keras_kd.measurement import sizes
from keras_kd.models import symbolic_pass
from keras_kd.runtimes import ModelFile, registry, tensors
from keras_kd.runtimes.tensors import match_inputs


class Subject:
    """Base class: whatever is measured, with one interface.

    Attributes:
        kind: The kind of a `Measurement`.
        name: The name of a `Measurement`.
    """

    kind = ""
    name = ""

    def output_shapes(self, inputs: Any) -> dict[str, tuple] | None:
        """`{name: shape}` of the outputs for such inputs, or `None` where only a run shows them.

        Args:
            inputs: `keras.KerasTensor`s in the structure of the data.

        Raises:
            ValueError: The model cannot take them.
        """
        del inputs
        return None

    def convert(self, inputs: Any) -> Any:
        """A batch of arrays in the structure of the data, as the model takes it."""
        return inputs

    def predict(self, inputs: Any) -> dict[str, Any]:
        """Outputs of a batch, `{name: array}` in their order.

        Args:
            inputs: Arrays in the structure of the data.
        """
        raise NotImplementedError

    def measure_size(self, sample: Any) -> tuple[dict[str, Any], list[str]]:
        """`(size, notes)` of a `Measurement`.

        Args:
            sample: Inputs of one sample, from `convert`.
        """
        del sample
        return {}, [f"size: left out; a {self.kind} has none that is known."]

    def prepare_run(self, sample: Any) -> tuple[Callable | None, dict[str, Any], list[str]]:
        """What runs one sample, to be timed.

        Args:
            sample: Inputs of one sample, from `convert`.

        Returns:
            `(call, facts, notes)`: a function, and `runtime`, `threads`, `batch_size`; the function
            is `None` where nothing can be timed.
        """
        del sample
        return None, {}, [f"latency: left out; that of a {self.kind} is not measured."]


class KerasSubject(Subject):
    """Runs a Keras model in inference, as a TensorFlow function.

    Args:
        model: A `keras.Model`.
        name: A name; default: the model's.
    """

    kind = "keras"

    def __init__(self, model: keras.Model, name: str | None = None):
        self.model, self.name = model, name or model.name
        self._forward = tf.function(
            lambda x: model(x, training=False), autograph=False, reduce_retracing=True
        )

    def output_shapes(self, inputs: Any) -> dict[str, tuple] | None:
        outputs = symbolic_pass.trace_outputs("data", inputs, "model", self.model)
        if outputs is None:
            return None
        return {name: tuple(x.shape) for name, x in outputs_by_name(self.model, outputs).items()}

    def convert(self, inputs: Any) -> Any:
        return as_tensors(inputs)

    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        given = self.convert(inputs)
        # Called directly, several models look to TensorFlow like one that is retraced again and
        # again, and it warns.
        return named(self.model, self._forward.get_concrete_function(given)(given))

    def measure_size(self, sample: Any) -> tuple[dict[str, Any], list[str]]:
        return sizes.measure_keras(self.model, sample)

    def prepare_run(self, sample: Any) -> tuple[Callable | None, dict[str, Any], list[str]]:
        fixed = tf.function(self._forward.python_function, autograph=False)
        forward = fixed.get_concrete_function(sample)
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
        facts = {"runtime": "keras", "threads": threads, "batch_size": 1}
        notes = [f"latency: of TensorFlow's own {threads} threads; `threads` is for files."]
        if tf.config.list_logical_devices("GPU"):
            notes.append("latency: TensorFlow sees a GPU, and may run the model there.")
        return lambda: keras.tree.map_structure(np.asarray, forward(sample)), facts, notes


def as_tensors(inputs: Any) -> Any:
    """Arrays as the model takes them; NumPy's own float64 is taken for an accident, as by `fit`."""

    def tensor(x):
        x = tf.convert_to_tensor(x)
        return tf.cast(x, keras.config.floatx()) if x.dtype == tf.float64 else x

    return keras.tree.map_structure(tensor, inputs)


def named(model: Any, outputs: Any) -> dict[str, np.ndarray]:
    """`{name: array}` of a model's outputs in any structure; a dict in the order of its names."""
    return {name: np.asarray(x) for name, x in outputs_by_name(model, outputs).items()}


def outputs_by_name(model: Any, outputs: Any) -> dict[str, Any]:
    """`{name: output}` of a model's outputs; a dict in the order of its names."""
    if isinstance(outputs, dict):  # a file has this order too, and an index means the same
        return {name: outputs[name] for name in sorted(outputs)}
    flat = keras.tree.flatten(outputs)
    names = models.output_names(model, outputs) or [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


class FileSubject(Subject):
    """Runs a file of any registered runtime.

    Args:
        file: The file.
        name: A name; default: the file's.
    """

    def __init__(self, file: ModelFile, name: str | None = None):
        self.file, self.kind, self.name = file, file.kind, name or file.name

    def convert(self, inputs: Any) -> dict[str, Any]:
        return match_inputs(inputs, self.file.inputs)

    def output_shapes(self, inputs: Any) -> dict[str, tuple] | None:
        given = self.convert(inputs)
        for info in self.file.inputs:
            tensors.check_fit(info, tuple(given[info.name].shape))
        return {info.name: (None, *info.shape[1:]) for info in self.file.outputs}

    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        outputs = self.file.run(self.convert(inputs))
        return {info.name: x for info, x in zip(self.file.outputs, outputs, strict=True)}

    def measure_size(self, sample: Any) -> tuple[dict[str, Any], list[str]]:
        return sizes.measure_file(self.file, sample)

    def prepare_run(self, sample: Any) -> tuple[Callable | None, dict[str, Any], list[str]]:
        arrays = self.file.one_batch(sample)
        self.file.set_inputs(arrays)
        facts = {
            "runtime": self.file.runtime,
            "threads": self.file.threads,
            "batch_size": len(arrays[0]),
        }
        return self.file.invoke, facts, []


class FunctionSubject(Subject):
    """A function from a batch of inputs to outputs or strings.

    Args:
        function: The function.
        name: A name; default: the function's.
    """

    kind = "function"

    def __init__(self, function: Callable, name: str | None = None):
        self.function = function
        self.name = str(name or getattr(function, "__name__", type(function).__name__))

    def predict(self, inputs: Any) -> dict[str, Any]:
        return {"output": self.function(inputs)}


class TextsSubject(Subject):
    """Strings that were generated before, one for each sample of the data in its order.

    Args:
        texts: A list of strings.
        name: A name.
    """

    kind = "texts"

    def __init__(self, texts: Any, name: str | None = None):
        self.texts, self.name = list(texts), name or "texts"
        self.rows_given, self._used = len(self.texts), 0

    def predict(self, inputs: Any) -> dict[str, Any]:
        start = self._used
        self._used += len(keras.tree.flatten(inputs)[0])
        return {"output": self.texts[start : self._used]}


class Decoded(Subject):
    """A subject whose outputs a function turns into strings.

    Args:
        subject: A `Subject`.
        decode: From the outputs of a batch, an array, to a list of strings.
    """

    def __init__(self, subject: Subject, decode: Callable):
        self.subject, self.decode = subject, decode
        self.kind, self.name = subject.kind, subject.name

    def convert(self, inputs: Any) -> Any:
        return self.subject.convert(inputs)

    def predict(self, inputs: Any) -> dict[str, Any]:
        return {name: self._decoded(x) for name, x in self.subject.predict(inputs).items()}

    def _decoded(self, outputs):
        return require_texts("decode", self.decode(outputs), len(outputs))

    def measure_size(self, sample: Any) -> tuple[dict[str, Any], list[str]]:
        return self.subject.measure_size(sample)

    def prepare_run(self, sample: Any) -> tuple[Callable | None, dict[str, Any], list[str]]:
        return self.subject.prepare_run(sample)


class Generated(Subject):
    """A model, or a file, whose texts a function of the user's has it write.

    Args:
        subject: A `KerasSubject` or a `FileSubject`.
        model: The model or the opened file, for the function.
        generate: From the model and the inputs of a batch to a list of strings.
    """

    def __init__(self, subject: Subject, model: Any, generate: Callable):
        self.subject, self.model, self.generate = subject, model, generate
        self.kind, self.name = subject.kind, subject.name

    def convert(self, inputs: Any) -> Any:
        return keras.tree.map_structure(_strings, inputs)

    def predict(self, inputs: Any) -> dict[str, Any]:
        count = len(keras.tree.flatten(inputs)[0])
        found = self.generate(self.model, self.convert(inputs))
        return {"output": require_texts("generate", found, count)}

    def measure_size(self, sample: Any) -> tuple[dict[str, Any], list[str]]:
        return self.subject.measure_size(None)

    def prepare_run(self, sample: Any) -> tuple[Callable | None, dict[str, Any], list[str]]:
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
        facts = {"runtime": f"{self.kind}, generate", "threads": threads, "batch_size": 1}
        notes = ["latency: of `generate` for one sample, whose text is as long as it is."]
        return lambda: self.generate(self.model, sample), facts, notes


def _strings(array: Any) -> Any:
    """Strings of Python for an array of strings; a batch of others as it is."""
    array = np.asarray(array)
    if array.dtype.kind not in "OSU":
        return array
    return [x.decode("utf-8") if isinstance(x, bytes) else x for x in array.tolist()]


def require_texts(name: str, found: Any, count: int) -> Any:
    """What a function of the user's returned, if it is as many texts as samples."""
    if not isinstance(found, (list, tuple, np.ndarray)) or len(found) != count:
        raise ValueError(
            f"`{name}` must return a list with a string for each of {count} samples. "
            f"Received: {found!r}"
        )
    return found


def subject_of(
    given: Any,
    threads: int = 1,
    name: str | None = None,
    decode: Callable | None = None,
    generate: Callable | None = None,
) -> Subject:
    """The `Subject` for whatever `measure` was given.

    Args:
        given: A Keras model; the path of a `.keras` file or of one that a runtime is registered
            for; a `ModelFile`; a function; a list of strings.
        threads: Threads of the runtime of a file.
        name: A name in place of its own.
        decode: A function from outputs to strings, or `None`.
        generate: A function of a model and inputs to strings, or `None`.

    Raises:
        ValueError: It is none of these.
    """
    validation.text("name", name, "a name", optional=True)
    tensors.positive("threads", threads)  # 0, any number, would time nothing
    validation.function("decode", decode, ["outputs"], optional=True)
    validation.function("generate", generate, ["model", "inputs"], optional=True)
    if generate is not None and decode is not None:
        raise ValueError(
            "`generate` returns texts, and `decode` makes texts of outputs: pass one of them."
        )
    found = _open(given, threads, name)
    if generate is not None:
        return _generated(found, generate)
    return found if decode is None else Decoded(found, decode)


def _generated(subject, generate):
    if isinstance(subject, KerasSubject):
        return Generated(subject, subject.model, generate)
    if isinstance(subject, FileSubject):
        return Generated(subject, subject.file, generate)
    raise ValueError(
        f"`generate` has a model write texts, and {subject.name!r} gives texts by itself "
        f"({subject.kind}). Leave `generate` out."
    )


def _open(given, threads, name):
    if isinstance(given, keras.Model):
        symbolic_pass.check_built("model_or_file", given)
        return KerasSubject(given, name)
    if isinstance(given, ModelFile):
        return FileSubject(given, name)
    if isinstance(given, (str, os.PathLike)):
        return _open_path(os.fspath(given), threads, name)
    if isinstance(given, (list, np.ndarray)) and all(isinstance(x, str) for x in given):
        return TextsSubject(given, name)
    if callable(given) and not isinstance(given, type):
        return FunctionSubject(given, name)
    raise ValueError(
        f"`model_or_file` must be a keras.Model, the path of a {_extensions()} file, or, of "
        "generated text, a function or a list of strings. "
        f"Received: {given!r} of type {type(given).__name__}"
    )


def _extensions():
    return registry.listed_extensions(".keras")


def _open_path(path, threads, name):
    extension = os.path.splitext(path)[1]
    if extension in registry.extensions():
        return FileSubject(registry.open_file(path, threads), name)
    if extension != ".keras":
        raise ValueError(f"Expected a {_extensions()} file. Received: {path!r}")
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r}. Expected the path of a .keras file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{os.path.basename(path)} is no .keras file, or only a part of one. Save the model "
            "again: model.save(path)."
        )
    model = keras.models.load_model(path, compile=False)
    return KerasSubject(model, name or os.path.basename(path))
