"""Knowledge distillation for Keras 3 on TensorFlow.

`Distiller` trains a student from a teacher with `compile` and `fit`; `losses` are its losses,
`ops` the same as functions on tensors.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_kd works on Keras' TensorFlow backend; this process uses "
        f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow "
        "before Keras is imported."
    )

from keras_kd import losses, ops  # noqa: E402
from keras_kd.distiller import Distiller  # noqa: E402
from keras_kd.version import __version__  # noqa: E402

__all__ = ["Distiller", "__version__", "losses", "ops"]
