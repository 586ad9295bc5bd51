"""Knowledge distillation for Keras 3 on TensorFlow.

`Distiller` trains a student from a teacher with `compile` and `fit`; `MutualDistiller`, `BornAgain`
and `distill_chain` train more than one model. `teachers` are what can teach, `losses` what is
compared, `cache_teacher` lets a teacher run once, `cache.sources` cuts data into shards, `students`
makes a student of it, `diagnose` looks for what would spoil it, `tune` searches settings, `measure`
says what came of it and `report` what distillation brought. `taps` reads inner layers, `weighting`
weighs rows, `data` mixes them, `callbacks` and `schedules` change a run while it goes on, `ops` are
the losses as functions, `language` makes data for models of text and scores what they write.
`quantization_aware` trains for integers, `compression` prunes and clusters weights, `export` writes
the student for devices and other runtimes. `scale` trains on many workers.
"""

try:
    import tensorflow
except ImportError as error:
    raise ImportError(
        "keras_kd needs TensorFlow, which comes under several names: install one of them, for "
        "instance with `pip install tensorflow-cpu`, or with `pip install tensorflow` where a GPU "
        "is to be used."
    ) from error
else:
    from keras_kd import version
    from keras_kd._utils import triton

    version.check_tensorflow(getattr(tensorflow, "__version__", None))
    triton.keep_apart()

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_kd works on Keras' TensorFlow backend; this process uses "
        f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow "
        "before Keras is imported."
    )

from keras_kd import (
    cache,
    callbacks,
    compression,
    data,
    diagnosis,
    export,
    language,
    losses,
    measurement,
    ops,
    quantization,
    recipes,
    runtimes,
    scale,
    schedules,
    students,
    taps,
    teachers,
    tuning,
    weighting,
)
from keras_kd.compression import cluster, sparsify
from keras_kd.diagnosis import diagnose
from keras_kd.pairing import pair_layers
from keras_kd.quantization import quantization_aware
from keras_kd.reporting import report
from keras_kd.schemes import BornAgain, MutualDistiller, distill_chain
from keras_kd.teachers.cache import CacheError, cache_teacher, load_cache
from keras_kd.training.distiller import Distiller
from keras_kd.tuning import tune
from keras_kd.version import __version__

__all__ = [
    "BornAgain",
    "CacheError",
    "Distiller",
    "MutualDistiller",
    "Report",
    "__version__",
    "cache",
    "cache_teacher",
    "callbacks",
    "cluster",
    "compression",
    "data",
    "diagnose",
    "diagnosis",
    "distill_chain",
    "export",
    "language",
    "load_cache",
    "losses",
    "measure",
    "measurement",
    "ops",
    "pair_layers",
    "quantization",
    "quantization_aware",
    "recipes",
    "report",
    "runtimes",
    "scale",
    "schedules",
    "sparsify",
    "students",
    "taps",
    "teachers",
    "tune",
    "tuning",
    "weighting",
]


_ELSEWHERE = {"Report": "reporting.result", "measure": "measurement.api"}


def __getattr__(name):
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    # Loaded on first use: training alone does not need it.
    return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)


def __dir__():
    return sorted({*globals(), *_ELSEWHERE} - {"__getattr__", "__dir__"})
