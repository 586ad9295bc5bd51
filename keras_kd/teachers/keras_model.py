"""Teachers in Keras and TensorFlow: a model, a function, a SavedModel."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.files import digest_files
from keras_kd._utils.serialization import serialized
from keras_kd.losses.activation import last_activation
from keras_kd.models import matching
from keras_kd.runtimes import TensorInfo, tensors
from keras_kd.runtimes.base import bind_constants
from keras_kd.runtimes.outputs import FileOutputs, sort_names
from keras_kd.taps import tap
from keras_kd.teachers import protocol


@keras.saving.register_keras_serializable(package="keras_kd")
class KerasTeacher(protocol.Teacher):
    """A Keras model as a teacher, with a preprocessing of its own.

    A model alone may be passed wherever a teacher is taken; this is for one of several teachers
    that expects other inputs. It runs with `training=False` and is not changed.

    Args:
        model: A `keras.Model`.
        preprocess: See `Teacher`.
        name: See `Teacher`.

    Raises:
        ValueError: `model` is not a Keras model.

    Example:

    ```python
    import keras
    import keras_kd as kd

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)])
    teacher = kd.teachers.KerasTeacher(model, preprocess=lambda x: keras.ops.tile(x, (1, 2)))
    distiller = kd.Distiller(teacher, student)
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        preprocess: Callable | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        validation.model("model", model)
        super().__init__(preprocess, name or model.name, **kwargs)
        self.model = model
        self.supports_jit = all(layer.supports_jit for layer in models.layers(model))

    def call(self, inputs: Any) -> Any:
        return self.model(models.own_inputs(self.model, inputs), training=False)

    def input_specs(self) -> dict[str, Any] | None:
        specs = models.input_specs(self.model)
        if self.preprocess is not None or specs is None:
            return None
        if models.input_names(self.model) is None:
            return {"": specs}  # a Sequential model has one input, under any name
        return models.named_inputs(self.model, specs)

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        # Not through the layer's own `__call__`, which would cast and trace a second time.
        return self.call(self.prepared(batch.inputs))

    def resolve(self, layer: Any) -> Any:
        return tap.resolve(self.model, layer)[0]

    def with_taps(self, layers: list) -> protocol.Forward:
        return protocol.record_layers(self.model, layers, self.predict_batch)

    @property
    def output_names(self) -> list[str] | None:
        """Those of the model, if all of them were given by its author."""
        return matching.given_names(self.model)

    def last_activation(self, output: str | int | None = None) -> str | None:
        return last_activation(self.model, output)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["model"] = serialized("teacher", self.model)
        return config


class FunctionTeacher(protocol.Teacher):
    """A function of the inputs, in TensorFlow operations, as a teacher.

    Args:
        function: Maps a batch of inputs to outputs.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__(name=getattr(function, "__name__", None))
        self.function = models.Untracked(function)

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        return self.function.value(batch.inputs)

    def resolve(self, layer: Any) -> Any:
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but the teacher is a "
            "callable without layers. Use a keras.Model."
        )


def adapt(teacher: Any) -> protocol.Teacher:
    """A `Teacher` for whatever a distiller takes as one.

    Raises:
        ValueError: It cannot teach.
    """
    if isinstance(teacher, protocol.Teacher):
        return teacher
    if isinstance(teacher, keras.Model):
        return KerasTeacher(teacher)
    if isinstance(teacher, type) or not callable(teacher):
        raise ValueError(
            "`teacher` must be a keras.Model, a keras_kd.teachers.Teacher or a callable that maps "
            "a batch of inputs to outputs. "
            f"Received: teacher={teacher!r} of type {type(teacher).__name__}"
        )
    return FunctionTeacher(teacher)


@keras.saving.register_keras_serializable(package="keras_kd")
class SavedModelTeacher(protocol.Teacher):
    """A TensorFlow SavedModel, such as `model.export(path)` writes, as a teacher.

    It runs inside of the training step as a Keras model does.

    Args:
        path: The SavedModel's folder.
        endpoint: Which of its functions is called; `"serve"` is Keras' own,
            `"serving_default"` that of other programs.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list (of names: in their order), matched by name with the student's outputs.
            The others can be tapped by their names.
        preprocess: See `Teacher`.
        name: See `Teacher`.
        constants: `{name of an input: value}` for inputs that the data does not have, of a function
            whose inputs have names, such as `"serving_default"`. A dimension of 1 where the file
            leaves it open is repeated for each sample of the batch.

    Raises:
        ValueError: There is no such folder, function, output or input; the inputs do not fit.

    Example:

    ```python
    import tempfile
    import keras
    import keras_kd as kd

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    folder = tempfile.mkdtemp()
    model.export(folder, verbose=False)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(kd.teachers.SavedModelTeacher(folder), student)
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike,
        endpoint: str = "serve",
        output: str | int | None = None,
        preprocess: Callable | None = None,
        name: str | None = None,
        *,
        constants: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not os.path.exists(os.path.join(path, "saved_model.pb")):
            raise ValueError(
                "`path` must be the folder of a TensorFlow SavedModel (it holds saved_model.pb). "
                f"Received: path={path!r}"
            )
        super().__init__(preprocess, name or "saved_model_teacher", **kwargs)
        self.folder, self.endpoint, self.output_key = os.fspath(path), endpoint, output
        self.layer = _load_endpoint(self.folder, endpoint)
        input_specs, output_specs = _signature_of(self.layer.call_endpoint_fn)
        self._choice = FileOutputs(_output_names(output_specs, self.name), output, self.name)
        self._inputs = models.Untracked(_EndpointInputs(input_specs, constants, endpoint))

    def call(self, inputs: Any) -> Any:
        return self._run(inputs, [])[0]

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        return self.call(self.prepared(batch.inputs))

    def with_taps(self, layers: list) -> protocol.Forward:
        return lambda batch: self._run(self.prepared(batch.inputs), list(layers))

    def _run(self, inputs: Any, layers: list) -> tuple[Any, dict]:
        endpoint_inputs = self._inputs.value
        if endpoint_inputs.infos is None:
            outputs = self.layer(inputs)
        else:
            outputs = self.layer.call_endpoint_fn(**endpoint_inputs.by_name(inputs))
        if isinstance(outputs, dict):
            by_name = outputs
        else:
            by_name = dict(zip(self._choice.names, keras.tree.flatten(outputs), strict=True))
        return self._choice.split(by_name, layers)

    @property
    def output_names(self) -> list[str] | None:
        """Those of the file, unless its exporter numbered them."""
        return self._choice.given_names

    def resolve(self, layer: Any) -> Any:
        return self._choice.resolve(layer)

    def fingerprint(self) -> str:
        """The digest of the files, of the constants and of the chosen outputs."""
        files = pathlib.Path(self.folder).rglob("*")
        more = self._inputs.value.constant_bytes()
        if len(self._choice.chosen) < len(self._choice.names):
            more.append(repr(self._choice.chosen).encode())
        return digest_files(sorted(file for file in files if file.is_file()), more)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        constants = self._inputs.value.constant_arrays()
        config.update(
            {
                "path": self.folder,
                "endpoint": self.endpoint,
                "output": self.output_key,
                "constants": keras.saving.serialize_keras_object(constants) or None,
            }
        )
        return config


class _EndpointInputs:
    """The inputs of a function of a SavedModel.

    Args:
        specs: `{name: tf.TensorSpec}`, or `None` for a function whose inputs have no names.
        constants: See `SavedModelTeacher`.
        endpoint: Its name, for messages.
    """

    def __init__(
        self, specs: dict[str, tf.TensorSpec] | None, constants: dict | None, endpoint: str
    ) -> None:
        if specs is None and constants is not None:
            raise ValueError(
                f"`constants` go by the names of inputs, and those of the function {endpoint!r} "
                "have none. Pass endpoint='serving_default', if the file has it. "
                f"Received: constants={constants!r}"
            )
        self.infos: list | None = None
        self.constants: dict = {}
        if specs is not None:
            infos = [
                TensorInfo(name, tuple(spec.shape), np.dtype(spec.dtype.as_numpy_dtype).name)
                for name, spec in specs.items()
            ]
            self.constants = bind_constants(constants, infos)
            self.infos = [info for info in infos if info.name not in self.constants]

    def by_name(self, inputs: Any) -> dict[str, tf.Tensor]:
        """The inputs of a batch and the constants: `{name: tensor}`."""
        infos = self.infos or []
        given = tensors.match_inputs(keras.tree.map_structure(tf.convert_to_tensor, inputs), infos)
        for info in infos:
            tensor = given[info.name]
            if tensor.shape.rank is not None:
                tensors.check_fit(info, tuple(tensor.shape))
            given[info.name] = _cast_input(info, tensor)
        samples = tf.shape(given[infos[0].name])[0]
        for name, each in self.constants.items():
            shape = list(each.value.shape)
            if each.rows is not None:
                shape[each.rows] = samples
            given[name] = tf.broadcast_to(tf.constant(each.value), shape)
        return given

    def constant_arrays(self) -> dict[str, np.ndarray]:
        """The constants: `{name: array}`."""
        return {name: each.value for name, each in self.constants.items()}

    def constant_bytes(self) -> list[bytes]:
        """The bytes of the constants, for a digest."""
        return [
            part
            for name, value in sorted(self.constant_arrays().items())
            for part in (f"{name} {value.dtype} {value.shape}".encode(), value.tobytes())
        ]


def _cast_input(info: TensorInfo, tensor: tf.Tensor) -> tf.Tensor:
    wanted = tf.as_dtype(info.dtype)
    if wanted.is_integer and not (tensor.dtype.is_integer or tensor.dtype.is_bool):
        raise ValueError(
            f"Input {info.name!r} of the file is of type {info.dtype}, such as ids or indices. "
            f"Received a tensor of type {tensor.dtype.name}, whose fractions would be cut off. "
            "Cast it with `preprocess`, if its numbers are whole."
        )
    return tf.cast(tensor, wanted) if tensor.dtype != wanted else tensor


def _load_endpoint(folder: str, endpoint: str) -> keras.layers.TFSMLayer:
    try:
        return keras.layers.TFSMLayer(folder, call_endpoint=endpoint)
    except ValueError as error:
        raise ValueError(
            f"The SavedModel has no callable function {endpoint!r}; choose one with "
            f"`endpoint`. Keras says: {error}"
        ) from error


def _signature_of(function: Any) -> tuple[dict[str, tf.TensorSpec] | None, Any]:
    """`({name: spec} of the inputs, structure of specs of the outputs)` of a function."""
    traced = getattr(function, "concrete_functions", None)
    if not traced:  # a signature, whose inputs have names
        return function.structured_input_signature[1], function.structured_outputs
    return None, traced[0].structured_outputs


def _output_names(spec: Any, who: str) -> list[str]:
    """The names of outputs; in a list their positions."""
    if any(keras.tree.is_nested(x) for x in _top_level(spec)):
        shapes = keras.tree.map_structure(lambda x: tuple(x.shape), spec)
        raise ValueError(
            f"The outputs of {who} must be one tensor, a list or a dict of them. Received: {shapes}"
        )
    if isinstance(spec, dict):
        return sort_names(spec)
    return [str(index) for index in range(len(_top_level(spec)))]


def _top_level(spec: Any) -> list:
    if isinstance(spec, dict):
        return list(spec.values())
    return list(spec) if isinstance(spec, (list, tuple)) else [spec]
