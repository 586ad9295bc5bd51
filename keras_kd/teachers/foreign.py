"""Teachers of other frameworks: PyTorch modules, `.onnx` and `.tflite` files."""

import contextlib
import difflib
import hashlib
import os

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import validation
from keras_kd.runtimes.outputs import FileOutputs
from keras_kd.teachers import host

# `TorchTeacher`: a PyTorch module, of Hugging Face or any other.


class TorchTeacher(host.HostTeacher):
    """A PyTorch module as a teacher (`pip install 'keras-kd[torch]'`).

    It runs in evaluation mode without gradients, and is left in the mode in which it was. Its
    inner modules are tapped by their names, as `module.named_modules()` gives them, such as
    `"encoder.layer.3"`; of a module that returns a tuple the first part is read.

    The PyTorch that PyPI has for Linux comes with triton, which `torch.compile` and every model of
    Hugging Face's transformers import. Its copy of LLVM meets TensorFlow's, and with a recent
    TensorFlow the process dies (segmentation fault). Once `keras_kd` is imported the two are kept
    apart, whatever is imported next. It can do nothing for a process that dies earlier: import
    `keras_kd` (or triton) before a model of transformers wherever TensorFlow comes first.
    Where `LD_PRELOAD` replaces malloc (jemalloc, tcmalloc) they cannot be kept apart: triton is
    refused with an ImportError, and PyTorch works without it, except `torch.compile` on a GPU.
    `python -m keras_kd doctor` tells which of the two it is.

    Args:
        module: A `torch.nn.Module`. A dict of inputs is passed as keyword arguments (as Hugging
            Face's models take them), a list as positional ones.
        output: Which output teaches, where the module returns several: a key, an attribute or an
            index. Default: `logits` where there is one, else the only one.
        channels_first: Whether images are given as `[batch, channels, height, width]`, and tapped
            feature maps and outputs turned back to Keras' order: for those of rank 4.
        preprocess: As of `Teacher`, in TensorFlow operations.
        device: Where inputs are put; the module must be there. Default: where its weights are.
        name: As of `Teacher`.

    Raises:
        ImportError: PyTorch is missing.
        ValueError: `module` is no module, an output must be chosen, or a tapped name is wrong.

    Example:

    ```python
    def distiller(module, student):  # module: a torch.nn.Module
        import keras_kd as kd

        return kd.Distiller(kd.teachers.TorchTeacher(module, channels_first=True), student)
    ```
    """

    def __init__(
        self,
        module,
        output=None,
        channels_first=False,
        preprocess=None,
        device=None,
        name=None,
        **kwargs,
    ):
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
    def module(self):
        """The PyTorch module."""
        return self._torch.value[1]

    # Shapes are found out while TensorFlow traces: AutoGraph would rewrite the module's own code.
    def predict(self, inputs, layers=()):
        torch, module = self._torch.value
        tapped = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(_evaluating(module))
            for layer in layers:
                handle = module.get_submodule(layer).register_forward_hook(_hook(tapped, layer))
                stack.callback(handle.remove)
            outputs = self._forward(torch, module, inputs)
        taps = {layer: self._array(_one_call(layer, tapped), True) for layer in layers}
        return self._array(self._picked(outputs), True), taps

    def _forward(self, torch, module, inputs):
        def tensor(array):
            array = np.ascontiguousarray(array)
            if self.channels_first and array.ndim == 4:
                array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
            return torch.from_numpy(array).to(self.device)

        given = keras.tree.map_structure(tensor, inputs)
        if isinstance(given, dict):
            return module(**given)
        return module(*given) if isinstance(given, (list, tuple)) else module(given)

    def _picked(self, outputs):
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
        return host.pick(dict(outputs), key, self.name)

    def _array(self, tensor, is_tap):
        array = tensor.detach().to("cpu", self._torch.value[0].float32).numpy()
        if is_tap and self.channels_first and array.ndim == 4:
            array = array.transpose(0, 2, 3, 1)
        return array

    def resolve(self, layer):
        names = [name for name, _ in self.module.named_modules() if name]
        if layer not in names:
            close = difflib.get_close_matches(str(layer), names, n=5, cutoff=0.4) or names[:20]
            raise ValueError(
                f"The PyTorch module has no inner module {str(layer)!r}. Close to it: {close}. "
                "`module.named_modules()` lists them."
            )
        return layer

    def fingerprint(self):
        """The digest of the module's structure and weights."""
        digest = hashlib.sha256(repr(self.module).encode())
        for name, value in self.module.state_dict().items():
            array = self._array(value, False)
            digest.update(f"{name} {value.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def get_config(self):
        raise ValueError(
            "The distiller cannot be saved: its teacher is a PyTorch module, which Keras does not "
            "know. Save the student alone: distiller.student.save(path); or cache what the teacher "
            "says with keras_kd.cache_teacher."
        )


@contextlib.contextmanager
def _evaluating(module):
    """Evaluation mode meanwhile; then each inner module has the mode that it had."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


def _hook(tapped, layer):
    def record(module, inputs, output):
        first = output[0] if isinstance(output, (list, tuple)) else output
        tapped.setdefault(layer, []).append(first)

    return record


def _one_call(layer, tapped):
    calls = tapped.get(layer, [])
    if len(calls) != 1:
        raise ValueError(
            f"Module {layer!r} was called {len(calls)} times in one forward pass; a tapped one "
            "must be called once."
        )
    return calls[0]


# `FileTeacher`: what the teachers of `.onnx` and `.tflite` files share.


class FileTeacher(host.HostTeacher):
    """A file that teaches, run as `keras_kd.measure` runs it.

    Args:
        file: A `keras_kd.measurement.runtimes.ModelFile`.
        output: Name or index of the output that teaches, or `None`.
        preprocess: As of `Teacher`.
        name: As of `Teacher`.
    """

    def __init__(self, file, output=None, preprocess=None, name=None, **kwargs):
        super().__init__(preprocess, name, **kwargs)
        self.output_key = output
        self._runtime = models.Untracked(file)
        self._choice = FileOutputs([info.name for info in file.outputs], output, self.name)

    def predict(self, inputs, layers=()):
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.runtimes import tensors

        file, names = self._runtime.value, self._choice.wanted(layers)
        found = file.run(tensors.by_name(inputs, file.inputs), outputs=names)
        return self._choice.split(dict(zip(names, found, strict=True)), layers)

    def _spec(self, inputs, layers):
        from keras_kd.runtimes import outputs

        def described(tensor):
            shape = None if tensor.shape.rank is None else tuple(tensor.shape)
            return outputs.Described(shape, np.dtype(tensor.dtype.as_numpy_dtype))

        names = self._choice.wanted(layers)
        given = keras.tree.map_structure(described, inputs)
        with self._turn.value:
            shapes = outputs.output_shapes(self._runtime.value, given, names)
        specs = [host.Shape(shape) for shape in shapes]
        return self._choice.split(dict(zip(names, specs, strict=True)), layers)

    def input_specs(self):
        """That of its only input, whatever it is called; of several only the data tells."""
        inputs = self._runtime.value.inputs
        if self.preprocess is not None or len(inputs) != 1:
            return None
        info = inputs[0]
        return {"": keras.KerasTensor((None, *info.shape[1:]), info.dtype)}

    @property
    def output_names(self):
        """Those of the file, unless its exporter counted them."""
        return self._choice.given_names

    def last_activation(self, output=None):
        """That of the file's last operator, where it is plain."""
        name = self._choice.name_of(output)
        return None if name is None else self._runtime.value.last_activation(name)

    def resolve(self, layer):
        return self._choice.resolve(layer)

    def fingerprint(self):
        """The digest of the file, of those that hold its data, and of what it is asked."""
        file = self._runtime.value
        return host.of_files(file.files, _asked(file, self._choice.chosen))

    def get_config(self):
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


def _asked(file, chosen):
    """What else than the file decides what it says; nothing where that is plain."""
    parts = []
    for name, each in sorted(file.constants.items()):
        parts.append(f"{name} {each.value.dtype} {each.value.shape}".encode())
        parts.append(np.ascontiguousarray(each.value).tobytes())
    if len(chosen) < len(file.outputs):
        parts.append(repr(chosen).encode())
    if file.channels_first:
        parts.append(b"channels first")
    return parts


# `OnnxTeacher`: a model in ONNX's file format.


@keras.saving.register_keras_serializable(package="keras_kd")
class OnnxTeacher(FileTeacher):
    """An ONNX model, run by ONNX Runtime (`pip install 'keras-kd[onnx]'`).

    Several inputs go by their names (a dict) where their shapes and types do not tell them apart; a
    file of a fixed number of rows is given that many at once.

    Args:
        path: The `.onnx` file.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list in the file's order, which belong to the student's outputs of the same
            names. The others can be tapped by their names.
        preprocess: As of `Teacher`.
        providers: ONNX Runtime's execution providers; default: the CPU's.
        threads: Threads of ONNX Runtime; 0: its own choice.
        name: As of `Teacher`.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            sample rate or a state of zeros. A size of 1 where the file leaves it open is repeated
            to the rows of the batch.
        channels_first: Whether the file has images as `[rows, channels, height, width]`: inputs,
            outputs and taps of rank 4 are then turned from and to Keras' order.

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
        path,
        output=None,
        preprocess=None,
        providers=("CPUExecutionProvider",),
        threads=0,
        name=None,
        *,
        constants=None,
        channels_first=False,
        **kwargs,
    ):
        validation.needs("onnxruntime", "OnnxTeacher", "onnx")
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.runtimes.registry import runtime_of

        if not os.path.isfile(path):
            raise ValueError(f"`path` must be an .onnx file. Received: path={path!r}")
        file = runtime_of(".onnx")(
            path, threads, providers=providers, constants=constants, channels_first=channels_first
        )
        super().__init__(file, output, preprocess, name or "onnx_teacher", **kwargs)

    def get_config(self):
        return {**super().get_config(), "providers": self._runtime.value.providers}


# `TFLiteTeacher`: a model in TensorFlow Lite's file format.


@keras.saving.register_keras_serializable(package="keras_kd")
class TFLiteTeacher(FileTeacher):
    """A `.tflite` model, run by LiteRT (`pip install 'keras-kd[litert]'`).

    Integer inputs and outputs are quantized and dequantized by the file's own scales. Several
    inputs go by their names (a dict) where their shapes and types do not tell them apart; a file of
    a fixed number of rows is given that many at once.

    Args:
        path: The `.tflite` file.
        preprocess: As of `Teacher`.
        threads: Threads of the interpreter.
        name: As of `Teacher`.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list in the file's order (of a signature: that of its names), which belong to
            the student's outputs of the same names. The others can be tapped by their names.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            state of zeros. A size of 1 where the file leaves it open is repeated to the rows of
            the batch.
        channels_first: Whether the file has images as `[rows, channels, height, width]`: inputs,
            outputs and taps of rank 4 are then turned from and to Keras' order.

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
        path,
        preprocess=None,
        threads=1,
        name=None,
        *,
        output=None,
        constants=None,
        channels_first=False,
        **kwargs,
    ):
        validation.needs("ai_edge_litert.interpreter", "TFLiteTeacher", "litert")
        # Imported here: the package around it, which measures, imports teachers itself.
        from keras_kd.runtimes.registry import runtime_of

        if not os.path.isfile(path):
            raise ValueError(f"`path` must be a .tflite file. Received: path={path!r}")
        file = runtime_of(".tflite")(
            path, threads, constants=constants, channels_first=channels_first
        )
        super().__init__(file, output, preprocess, name or "tflite_teacher", **kwargs)
