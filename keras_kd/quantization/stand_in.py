"""A student's stand-in: a copy whose weights are as training leaves them, for a look at its file.

A converter leaves out what a bias of zeros adds and a scale of ones multiplies by, as fresh layers
have them. Once trained they are in the file, with tensors of their own: what is asked of the file
of fresh weights does not hold for that of trained ones.
"""

import numpy as np

from keras_kd import copies

# Far from what rounding in float32 changes, and near to what was there.
_SPREAD = 0.05


def of(student):
    """A copy of a student in which no trainable weight is the same number everywhere.

    Raises:
        ValueError: Keras cannot copy it.
    """
    copy, rng = copies.with_weights(student), np.random.default_rng(0)
    for ours, variable in zip(student.weights, copy.weights, strict=True):
        if not ours.trainable or "float" not in str(variable.dtype):
            continue
        values = np.asarray(variable.numpy(), np.float32)
        if values.size and np.ptp(values) == 0 and values.flat[0] in (0.0, 1.0, -1.0):
            variable.assign(values + _SPREAD * rng.uniform(0.5, 1.5, values.shape))
    return copy
