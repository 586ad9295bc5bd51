"""`TorchTeacher`: a PyTorch module, of Hugging Face or any other."""

import contextlib
import difflib
import hashlib

import keras
import numpy as np

from keras_kd import models
from keras_kd.teachers import host


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
        torch = host.needs("torch", "TorchTeacher", "torch")
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
        return self._torch.model[1]

    # Shapes are found out while TensorFlow traces: AutoGraph would rewrite the module's own code.
    def predict(self, inputs, layers=()):
        torch, module = self._torch.model
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
        torch, key = self._torch.model[0], self.output_key
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
        array = tensor.detach().to("cpu", self._torch.model[0].float32).numpy()
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
