"""Full integer conversion by TensorFlow, which calibrates in a process of its own.

TensorFlow's calibrator can take the whole process down (issues 75140 and 87468 of TensorFlow: a
segmentation fault in the body of any loop), which no `try` catches.
"""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd.export import representative
from keras_kd.export.student import ExportError
from keras_kd.export.tflite import conversion

# Enough for a thousand samples of a large network; a process that takes longer hangs.
_TIMEOUT_S = 3600
# `-m` alone would put the current folder before all others: a numpy.py there would be run.
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module('keras_kd.export.tflite.calibrated', run_name='__main__', alter_sys=True)"
)


@dataclasses.dataclass(frozen=True)
class Request:
    """What the process is to do with a SavedModel.

    Attributes:
        quantization: `"int8"` or `"int16x8"`.
        names: The names of the inputs in the signature.
        batch_size: The batch size of the SavedModel.
        input_dtype: `"float32"`, `"int8"`, `"uint8"` or `"int16"`: of inputs that are floats.
        output_dtype: The same for the outputs.
    """

    quantization: str
    names: list[str]
    batch_size: int
    input_dtype: str
    output_dtype: str


def convert(path: str | pathlib.Path, request: Request, arrays: Sequence[np.ndarray]) -> bytes:
    """Converts the SavedModel at `path` with calibration; returns the content of the file.

    Args:
        path: The folder of `conversion.saved`.
        request: The `Request`.
        arrays: The representative data, an array `[samples, ...]` for each input.

    Raises:
        ExportError: It fails, or the process that calibrates dies.
    """
    folder = pathlib.Path(path).absolute().parent
    inputs: dict[str, Any] = {f"input_{i}": array for i, array in enumerate(arrays)}
    np.savez(folder / "samples.npz", **inputs)
    text = json.dumps(dataclasses.asdict(request))
    (folder / "request.json").write_text(text, encoding="utf-8")
    try:
        done = _run(folder, path)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"TensorFlow's calibrator was stopped after {error.timeout:,.0f} s. Pass fewer samples "
            "as `representative_data` (some hundred), or use route='edge_quantizer'."
        ) from error
    result = folder / "model.tflite"
    if done.returncode == 0 and result.exists():
        return result.read_bytes()
    raise ExportError(_failure(done))


def _run(folder, path):
    """Runs the process: it imports from where this one does, and not from its own folder."""
    empty = folder / "empty"
    empty.mkdir()
    safe = ["-P"] if sys.version_info >= (3, 11) else []  # "" is the empty folder in any case
    return subprocess.run(
        [sys.executable, *safe, "-c", _START, json.dumps(_import_paths()), str(path)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        cwd=empty,
    )


def _import_paths():
    """This process' import paths without the current folder, then this package's."""
    found = [str(pathlib.Path(path).absolute()) for path in sys.path if path]
    return list(dict.fromkeys([*found, str(pathlib.Path(__file__).absolute().parents[3])]))


def _failure(done):
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return (
            f"TensorFlow's calibrator crashed ({name}). It does so for loops: recurrent layers "
            "need unroll=True, or quantization='dynamic' or 'float16'."
        )
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return (last or ["TensorFlow's converter failed and printed nothing."])[0][:800]


def _configure(converter, request, arrays):
    import tensorflow as tf

    sets = {
        "int8": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
        # With the float operators as a fallback: HARD_SWISH has no kernel of 16 bits.
        "int16x8": [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ],
    }
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = sets[request.quantization]
    converter.representative_dataset = lambda: _samples(request, arrays)
    if any(array.dtype.kind == "f" for array in arrays):
        converter.inference_input_type = tf.as_dtype(request.input_dtype)
    converter.inference_output_type = tf.as_dtype(request.output_dtype)


def _samples(request, arrays):
    for batch in representative.batches(arrays, request.batch_size):
        yield conversion.SIGNATURE, dict(zip(request.names, batch, strict=True))


def _main(path):
    """The work of the process."""
    folder = pathlib.Path(path).parent
    request = Request(**json.loads((folder / "request.json").read_text(encoding="utf-8")))
    with np.load(folder / "samples.npz") as stored:
        arrays = [stored[f"input_{i}"] for i in range(len(stored.files))]
    content = conversion.convert(path, lambda converter: _configure(converter, request, arrays))
    (folder / "model.tflite").write_bytes(content)


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except ExportError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
