"""What a model or a file of one is worth: quality, size, speed.

`keras_kd.measure` makes a `Measurement`; `runtimes` runs `.tflite` and `.onnx` files over arrays.
"""

from keras_kd import runtimes

__all__ = ["Measurement", "measure", "runtimes"]

_ELSEWHERE = {"Measurement": "result", "measure": "api"}


def __getattr__(name):
    # Thirty modules, a sixth of the time of `import keras_kd`, which those who only train need not.
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}")
    return getattr(module, name)


def __dir__():
    return sorted({*globals(), *_ELSEWHERE} - {"__getattr__", "__dir__"})
