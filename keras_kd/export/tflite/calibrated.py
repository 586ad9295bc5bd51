"""Full integer conversion by TensorFlow, which calibrates in a process of its own.

TensorFlow's calibrator can take the whole process down (issues 75140 and 87468 of TensorFlow: a
segmentation fault in the body of any loop), which no `try` catches.
"""

import json
import pathlib
import signal
import subprocess
import sys

import numpy as np

from keras_kd.export import source
from keras_kd.export.source import ExportError
from keras_kd.export.tflite import conversion

# Enough for a thousand rows of a large network; one that hangs is told from one that works.
_TIMEOUT_S = 3600
# `-m` alone would put the current folder before all others: a numpy.py there would be run.
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module('keras_kd.export.tflite.calibrated', run_name='__main__', alter_sys=True)"
)


def convert(path, quantization, arrays, names, batch_size, input_dtype, output_dtype):
    """Converts the SavedModel at `path` with calibration.

    Args:
        path: A folder of `conversion.saved`.
        quantization: `"int8"` or `"int16x8"`.
        arrays: The representative data, an array `[rows, ...]` for each input.
        names: The names of the inputs in the signature.
        batch_size: Rows of a batch in the SavedModel.
        input_dtype: `"float32"`, `"int8"`, `"uint8"` or `"int16"`: of inputs that are floats.
        output_dtype: The same for the outputs.

    Returns:
        The bytes of the file.

    Raises:
        ExportError: It fails, or the process that calibrates dies.
    """
    folder = pathlib.Path(path).absolute().parent
    np.savez(folder / "rows.npz", **{f"input_{i}": array for i, array in enumerate(arrays)})
    request = {
        "quantization": quantization,
        "names": names,
        "batch_size": batch_size,
        "input_dtype": input_dtype,
        "output_dtype": output_dtype,
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    try:
        done = _run(folder, path)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"TensorFlow's calibrator was stopped after {error.timeout:,.0f} s. Pass fewer rows as "
            "`representative_data` (some hundred), or use route='edge_quantizer'."
        ) from error
    result = folder / "model.tflite"
    if done.returncode == 0 and result.exists():
        return result.read_bytes()
    raise ExportError(_failure(done))


def _run(folder, path):
    """The process of its own, which imports what this one does, and nothing from where it is."""
    empty = folder / "empty"
    empty.mkdir()
    safe = ["-P"] if sys.version_info >= (3, 11) else []  # "" is the empty folder in any case
    return subprocess.run(
        [sys.executable, *safe, "-c", _START, json.dumps(_places()), str(path)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        cwd=empty,
    )


def _places():
    """Where modules are looked for: as here, but for the current folder; then this package's."""
    found = [str(pathlib.Path(place).absolute()) for place in sys.path if place]
    return list(dict.fromkeys([*found, str(pathlib.Path(__file__).absolute().parents[3])]))


def _failure(done):
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return (
            f"TensorFlow's calibrator crashed ({name}). It does so for loops: recurrent layers "
            "need unroll=True, or quantization='dynamic' or 'float16'."
        )
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return (last or ["TensorFlow's converter failed without a word."])[0][:800]


def _set(converter, request, rows):
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
    converter.target_spec.supported_ops = sets[request["quantization"]]
    converter.representative_dataset = lambda: _samples(request, rows)
    if any(array.dtype.kind == "f" for array in rows):
        converter.inference_input_type = tf.as_dtype(request["input_dtype"])
    converter.inference_output_type = tf.as_dtype(request["output_dtype"])


def _samples(request, rows):
    for batch in source.batches(rows, request["batch_size"]):
        yield conversion.SIGNATURE, dict(zip(request["names"], batch, strict=True))


def _main(path):
    """What the process of its own does."""
    folder = pathlib.Path(path).parent
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    with np.load(folder / "rows.npz") as stored:
        rows = [stored[f"input_{i}"] for i in range(len(stored.files))]
    content = conversion.convert(path, lambda converter: _set(converter, request, rows))
    (folder / "model.tflite").write_bytes(content)


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except ExportError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
