"""Imports tensorflow-model-optimization without what that does to the process."""

import dataclasses
import os
import warnings
from typing import Any

import tensorflow as tf

_LEGACY = "TF_USE_LEGACY_KERAS"


@dataclasses.dataclass(frozen=True)
class Libraries:
    """What the engine works with: the modules `tensorflow_model_optimization` and `tf_keras`."""

    tfmot: Any
    tf_keras: Any


def load():
    """The two libraries.

    The import sets `TF_USE_LEGACY_KERAS=1`, with which `tf.keras`, if it is first looked at
    afterwards, and every process that is started from this one, would be Keras 2. So `tf.keras` is
    looked at before, and the variable is put back.

    Raises:
        ImportError: One of them, or `distutils`, is missing.
    """
    tf.keras.version()
    before = os.environ.get(_LEGACY)
    try:
        with warnings.catch_warnings():
            # It compares versions with distutils' classes, which are deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            import tensorflow_model_optimization as tfmot
            import tf_keras
    except ImportError as error:
        raise ImportError(
            f"This needs tensorflow-model-optimization and tf-keras ({error}): pip install "
            "'keras-kd[tfmot]'. tf-keras asks for the distribution `tensorflow`; beside another "
            "one (tensorflow-cpu) install the three with --no-deps: pip install --no-deps "
            "tensorflow-model-optimization tf-keras setuptools (and dm-tree, absl-py, six)."
        ) from error
    finally:
        if before is None:
            os.environ.pop(_LEGACY, None)
        else:
            os.environ[_LEGACY] = before
    return Libraries(tfmot, tf_keras)
