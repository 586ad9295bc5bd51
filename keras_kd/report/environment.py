"""With what the models were measured."""

import os
import pathlib
import platform

import keras
import tensorflow as tf

from keras_kd import version

_PROCESSORS = pathlib.Path("/proc/cpuinfo")


def facts():
    """`{name: text}`; no name and no path of the machine."""
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "System": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "keras_kd": version.__version__,
    }


def _processor():
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
