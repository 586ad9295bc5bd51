"""`OnnxTeacher`: a model in ONNX's file format."""

import os

import keras
import numpy as np

from keras_kd import models
from keras_kd.teachers import host


@keras.saving.register_keras_serializable(package="keras_kd")
class OnnxTeacher(host.HostTeacher):
    """An ONNX model, run by ONNX Runtime (`pip install 'keras-kd[onnx]'`).

    Args:
        path: The `.onnx` file.
        output: The name of the output that teaches, where there are several. The others can be
            tapped by their names.
        preprocess: As of `Teacher`.
        providers: ONNX Runtime's execution providers; default: the CPU's.
        threads: Threads of ONNX Runtime; 0: its own choice.
        name: As of `Teacher`.

    Raises:
        ImportError: ONNX Runtime is missing.
        ValueError: There is no such file; an output must be chosen; the inputs do not fit.

    Example:

    ```python
    def distiller(path, student):  # path: an .onnx file
        import keras_kd as kd

        return kd.Distiller(kd.teachers.OnnxTeacher(path), student)
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
        **kwargs,
    ):
        runtime = host.needs("onnxruntime", "OnnxTeacher", "onnx")
        if not os.path.isfile(path):
            raise ValueError(f"`path` must be an .onnx file. Received: path={path!r}")
        super().__init__(preprocess, name or "onnx_teacher", **kwargs)
        self.file, self.output_key = os.fspath(path), output
        self.providers, self.threads = list(providers), int(threads)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = runtime.InferenceSession(self.file, options, providers=self.providers)
        host.pick({x.name: None for x in session.get_outputs()}, output, self.name)
        self._session = models.Untracked(session)

    def predict(self, inputs, layers=()):
        session = self._session.model
        names = [x.name for x in session.get_outputs()]
        output = names[0] if self.output_key is None else self.output_key
        found = session.run([output, *layers], _feed(session, inputs))
        return found[0], dict(zip(layers, found[1:], strict=True))

    def resolve(self, layer):
        names = [x.name for x in self._session.model.get_outputs()]
        if layer not in names:
            raise ValueError(
                f"The ONNX model has no output {str(layer)!r} that could be tapped. It has "
                f"{names}; inner values must be outputs of the graph."
            )
        return layer

    def fingerprint(self):
        """The digest of the file."""
        return host.of_files([self.file])

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "path": self.file,
                "output": self.output_key,
                "providers": self.providers,
                "threads": self.threads,
            }
        )
        return config


_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_DTYPES |= {"tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


def _feed(session, inputs):
    """The inputs by the names, and in the types, of the model."""
    wanted = {x.name: _DTYPES.get(x.type) for x in session.get_inputs()}
    flat = keras.tree.flatten(inputs)
    given = inputs if isinstance(inputs, dict) else dict(zip(wanted, flat, strict=False))
    if set(given) != set(wanted) or len(flat) != len(wanted):
        have = sorted(inputs) if isinstance(inputs, dict) else f"{len(flat)} without names"
        raise ValueError(
            f"The ONNX model takes the inputs {list(wanted)}; the batch has {have}. Rearrange them "
            "with `preprocess`."
        )
    return {name: np.asarray(given[name], dtype) for name, dtype in wanted.items()}
