"""Teachers of other frameworks: PyTorch modules, `.onnx` and `.tflite` files."""

import contextlib
import difflib
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.files import digest_files
from keras_kd.runtimes import base, outputs, tensors
from keras_kd.runtimes.outputs import FileOutputs
from keras_kd.runtimes.registry import runtime_of
from keras_kd.teachers import host


class TorchTeacher(host.HostTeacher):
    """A PyTorch module as a teacher (`pip install 'keras-kd[torch]'`).

    It runs in evaluation mode without gradients, and then returns to its own mode. Its inner
    modules are tapped by their names in `module.named_modules()`, such as `"encoder.layer.3"`;
    where a module returns a tuple, its first element is read.

    The PyTorch that PyPI has for Linux comes with triton, which `torch.compile` and every model of
    Hugging Face's transformers import. Its copy of LLVM meets TensorFlow's, and with a recent
    TensorFlow the process dies (segmentation fault). Once `keras_kd` is imported the two are kept
    apart, whatever is imported next. It cannot help a process that dies earlier: import
    `keras_kd` (or triton) before a model of transformers wherever TensorFlow comes first.
    Where `LD_PRELOAD` replaces malloc (jemalloc, tcmalloc) they cannot be kept apart: importing
    triton raises an ImportError, and PyTorch works without it, except `torch.compile` on a GPU.
    `python -m keras_kd doctor` reports which case applies.

    Args:
        module: A `torch.nn.Module`. A dict of inputs is passed as keyword arguments (as Hugging
            Face's models take them), a list as positional ones.
        output: Which output teaches, where the module returns several: a key, an attribute or an
            index. Default: `logits` where there is one, else the only one.
        channels_first: Whether images are given as `[batch, channels, height, width]`, and tapped
            feature maps and outputs transposed back to Keras' order; applies to rank 4.
        preprocess: See `Teacher`; in TensorFlow operations.
        device: Where inputs are put; the module must be there. Default: where its weights are.
        name: See `Teacher`.

    Raises:
        ImportError: PyTorch is missing.
        ValueError: `module` is not a module, an output must be chosen, or a tapped name is wrong.

    Example:

    ```python
    def distiller(module, student):  # module: a torch.nn.Module
        import keras_kd as kd

        return kd.Distiller(kd.teachers.TorchTeacher(module, channels_first=True), student)
    ```
    """

    def __init__(
        self,
        module: Any,
        output: str | int | None = None,
        channels_first: bool = False,
        preprocess: Callable | None = None,
        device: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        torch = validation.needs("torch", "TorchTeacher", "torch")
        if not isinstance(module, torch.nn.Module):
            raise ValueError(
                "`module` must be a torch.nn.Module. "
                f"Received: module={module!r} of type {type(module).__name__}"
            )
        super().__init__(preprocess, name or "torch_teacher", **kwargs)
        self._torch = models.Untracked((torch, module))
        self.output_key, self.channels_first = output, bool(channels_first)
        weight = next(module.parameters(), None)
        self.device = device or ("cpu" if weight is None else str(weight.device))

    @property
    def module(self) -> Any:
        """The PyTorch module."""
        return self._torch.value[1]

    def predict(self, inputs: Any, layers: Any = ()) -> tuple[Any, dict]:
        torch, module = self._torch.value
        recorded: dict[str, list] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(_evaluating(module))
            for layer in layers:
                handle = module.get_submodule(layer).register_forward_hook(_hook(recorded, layer))
                stack.callback(handle.remove)
            outputs = self._forward(torch, module, inputs)
        taps = {layer: self._to_keras(_only_call(layer, recorded)) for layer in layers}
        return self._to_keras(self._choose_output(outputs)), taps

    def _forward(self, torch: Any, module: Any, inputs: Any) -> Any:
        def tensor(array: np.ndarray) -> Any:
            array = np.ascontiguousarray(array)
            if self.channels_first and array.ndim == 4:
                array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
            return torch.from_numpy(array).to(self.device)

        given = keras.tree.map_structure(tensor, inputs)
        if isinstance(given, dict):
            return module(**given)
        return module(*given) if isinstance(given, (list, tuple)) else module(given)

    def _choose_output(self, outputs: Any) -> Any:
        torch, key = self._torch.value[0], self.output_key
        if isinstance(outputs, torch.Tensor):
            return outputs
        if key is None and hasattr(outputs, "logits"):
            return outputs.logits
        if isinstance(key, int):
            return outputs[key]
        if key is not None and hasattr(outputs, key):
            return getattr(outputs, key)
        if not isinstance(outputs, dict):
            outputs = dict(enumerate(outputs))
        return _choose_by_key(dict(outputs), key, self.name)

    def _to_keras(self, tensor: Any) -> np.ndarray:
        """A tensor as an array in Keras' order of axes."""
        array = self._to_numpy(tensor)
        transposes = self.channels_first and array.ndim == 4
        return array.transpose(0, 2, 3, 1) if transposes else array

    def _to_numpy(self, tensor: Any) -> np.ndarray:
        return tensor.detach().to("cpu", self._torch.value[0].float32).numpy()

    def resolve(self, layer: Any) -> str:
        names = [name for name, _ in self.module.named_modules() if name]
        if layer not in names:
            close = difflib.get_close_matches(str(layer), names, n=5, cutoff=0.4) or names[:20]
            raise ValueError(
                f"The PyTorch module has no inner module {str(layer)!r}. Close to it: {close}. "
                "`module.named_modules()` lists them."
            )
        return layer

    def fingerprint(self) -> str:
        """The digest of the module's structure and weights."""
        digest = hashlib.sha256(repr(self.module).encode())
        for name, value in self.module.state_dict().items():
            array = self._to_numpy(value)
            digest.update(f"{name} {value.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def get_config(self) -> dict[str, Any]:
        raise ValueError(
            "The distiller cannot be saved: its teacher is a PyTorch module, which Keras does not "
            "know. Save the student alone: distiller.student.save(path); or cache the teacher's "
            "outputs with keras_kd.cache_teacher."
        )


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode while it is open; each inner module then returns to its own mode."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


def _hook(recorded: dict[str, list], layer: str) -> Callable:
    def record(module: Any, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (list, tuple)) else output
        recorded.setdefault(layer, []).append(first)

    return record


def _only_call(layer: str, recorded: dict[str, list]) -> Any:
    calls = recorded.get(layer, [])
    if len(calls) != 1:
        raise ValueError(
            f"Module {layer!r} was called {len(calls)} times in one forward pass; a tapped one "
            "must be called once."
        )
    return calls[0]


def _choose_by_key(outputs: dict, key: str | int | None, who: str) -> Any:
    """One of several outputs: the one of a key, or the only one.

    Raises:
        ValueError: There are several and none is chosen, or there is none of this key.
    """
    if key is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if key not in outputs:
        raise ValueError(
            f"{who} has the outputs {list(outputs)}. Choose one of them with `output`. "
            f"Received: output={key!r}"
        )
    return outputs[key]


class FileTeacher(host.HostTeacher):
    """What teachers of `.onnx` and `.tflite` files share: they run as `keras_kd.measure` runs them.

    Args:
        file: A `keras_kd.runtimes.base.ModelFile`.
        output: Name or index of the output that teaches, or `None`.
        preprocess: See `Teacher`.
        name: See `Teacher`.
    """

    def __init__(
        self,
        file: base.ModelFile,
        output: str | int | None = None,
        preprocess: Callable | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(preprocess, name, **kwargs)
        self.output_key = output
        self._runtime = models.Untracked(file)
        self._choice = FileOutputs([info.name for info in file.outputs], output, self.name)

    def predict(self, inputs: Any, layers: Any = ()) -> tuple[Any, dict]:
        file, names = self._runtime.value, self._choice.wanted(layers)
        found = file.run(tensors.match_inputs(inputs, file.inputs), outputs=names)
        return self._choice.split(dict(zip(names, found, strict=True)), layers)

    def output_shapes(self, inputs: Any, layers: list) -> Any:
        """See `HostTeacher`; the file itself may know them."""

        def described(tensor: Any) -> outputs.Described:
            shape = None if tensor.shape.rank is None else tuple(tensor.shape)
            return outputs.Described(shape, np.dtype(tensor.dtype.as_numpy_dtype))

        names = self._choice.wanted(layers)
        given = keras.tree.map_structure(described, inputs)
        with self.prediction_slots.value:
            shapes = outputs.output_shapes(self._runtime.value, given, names)
        specs = [host.Shape(shape) for shape in shapes]
        return self._choice.split(dict(zip(names, specs, strict=True)), layers)

    def input_specs(self) -> dict[str, Any] | None:
        """That of its only input, under any name; of several only the data tells."""
        inputs = self._runtime.value.inputs
        if self.preprocess is not None or len(inputs) != 1:
            return None
        info = inputs[0]
        return {"": keras.KerasTensor((None, *info.shape[1:]), info.dtype)}

    @property
    def output_names(self) -> list[str] | None:
        """Those of the file, unless its exporter numbered them."""
        return self._choice.given_names

    def last_activation(self, output: str | int | None = None) -> str | None:
        """That of the file's last operator, where it is one."""
        name = self._choice.name_of(output)
        return None if name is None else self._runtime.value.last_activation(name)

    def resolve(self, layer: Any) -> Any:
        return self._choice.resolve(layer)

    def fingerprint(self) -> str:
        """The digest of the file, of those that hold its data, and of the arguments that count."""
        file = self._runtime.value
        return digest_files(file.files, _argument_bytes(file, self._choice.chosen))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        file = self._runtime.value
        constants = {name: each.value for name, each in file.constants.items()}
        config.update(
            {
                "path": file.path,
                "output": self.output_key,
                "threads": file.threads,
                "constants": keras.saving.serialize_keras_object(constants) or None,
                "channels_first": file.channels_first,
            }
        )
        return config


def _argument_bytes(file: base.ModelFile, chosen: list[str]) -> list[bytes]:
    """What decides its outputs beside the file itself; empty for the defaults."""
    parts: list[bytes] = []
    for name, each in sorted(file.constants.items()):
        parts.append(f"{name} {each.value.dtype} {each.value.shape}".encode())
        parts.append(np.ascontiguousarray(each.value).tobytes())
    if len(chosen) < len(file.outputs):
        parts.append(repr(chosen).encode())
    if file.channels_first:
        parts.append(b"channels first")
    return parts


@keras.saving.register_keras_serializable(package="keras_kd")
class OnnxTeacher(FileTeacher):
    """An ONNX model, run by ONNX Runtime (`pip install 'keras-kd[onnx]'`).

    Several inputs are passed by name (a dict) where their shapes and types do not tell them apart;
    a file of a fixed batch size gets that many samples at once.

    Args:
        path: The `.onnx` file.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list in the file's order, matched by name with the student's outputs. The
            others can be tapped by their names.
        preprocess: See `Teacher`.
        providers: ONNX Runtime's execution providers; default: the CPU's.
        threads: Threads of ONNX Runtime; 0: its own choice.
        name: See `Teacher`.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            sample rate or a state of zeros. A dimension of 1 where the file leaves it open is
            repeated for each sample of the batch.
        channels_first: Whether the file takes images as `[batch, channels, height, width]`: inputs,
            outputs and taps of rank 4 are then transposed from and to Keras' order.

    Raises:
        ImportError: ONNX Runtime is missing.
        ValueError: There is no such file, output or input; the inputs do not fit.

    Example:

    ```python
    def distiller(path, student):  # path: an .onnx file that detects speech
        import numpy as np
        import keras_kd as kd

        constants = {"sr": 16000, "state": np.zeros((2, 1, 128))}
        teacher = kd.teachers.OnnxTeacher(path, output="output", constants=constants)
        return kd.Distiller(teacher, student, kd.losses.RegressionKD(), alpha=0.0)
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike,
        output: str | int | None = None,
        preprocess: Callable | None = None,
        providers: Any = ("CPUExecutionProvider",),
        threads: int = 0,
        name: str | None = None,
        *,
        constants: dict[str, Any] | None = None,
        channels_first: bool = False,
        **kwargs: Any,
    ) -> None:
        validation.needs("onnxruntime", "OnnxTeacher", "onnx")
        validation.existing_file("path", path, "an .onnx file")
        file = runtime_of(".onnx")(
            path, threads, providers=providers, constants=constants, channels_first=channels_first
        )
        super().__init__(file, output, preprocess, name or "onnx_teacher", **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "providers": self._runtime.value.providers}


@keras.saving.register_keras_serializable(package="keras_kd")
class TFLiteTeacher(FileTeacher):
    """A `.tflite` model, run by LiteRT (`pip install 'keras-kd[litert]'`).

    Integer inputs and outputs are quantized and dequantized by the file's own scales. Several
    inputs are passed by name (a dict) where their shapes and types do not tell them apart; a file
    of a fixed batch size gets that many samples at once.

    Args:
        path: The `.tflite` file.
        preprocess: See `Teacher`.
        threads: Threads of the interpreter.
        name: See `Teacher`.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list in the file's order (of a signature: that of its names), matched by name
            with the student's outputs. The others can be tapped by their names.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            state of zeros. A dimension of 1 where the file leaves it open is repeated for each
            sample of the batch.
        channels_first: Whether the file takes images as `[batch, channels, height, width]`: inputs,
            outputs and taps of rank 4 are then transposed from and to Keras' order.

    Raises:
        ImportError: LiteRT is missing.
        ValueError: There is no such file, output or input; the inputs do not fit.

    Example:

    ```python
    def distiller(path, student):  # path: a .tflite file
        import keras_kd as kd

        return kd.Distiller(kd.teachers.TFLiteTeacher(path), student)
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike,
        preprocess: Callable | None = None,
        threads: int = 1,
        name: str | None = None,
        *,
        output: str | int | None = None,
        constants: dict[str, Any] | None = None,
        channels_first: bool = False,
        **kwargs: Any,
    ) -> None:
        validation.needs("ai_edge_litert.interpreter", "TFLiteTeacher", "litert")
        validation.existing_file("path", path, "a .tflite file")
        file = runtime_of(".tflite")(
            path, threads, constants=constants, channels_first=channels_first
        )
        super().__init__(file, output, preprocess, name or "tflite_teacher", **kwargs)
