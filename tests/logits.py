"""Made-up logits for the tests."""

import ml_dtypes
import numpy as np

FLOAT_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
DTYPE_PAIRS = [(student, teacher) for student in FLOAT_DTYPES for teacher in FLOAT_DTYPES]
# The shapes of the tests that run in every mode, so that they share what XLA compiled. 40 rows are
# two vectors of 16 and a rest; 10 classes are short rows to the native kernel, 150 long ones.
ROWS, SHORT, LONG = 40, 10, 150
# Times the temperature, the noise that makes divergences of about 1, 1e-2, 1e-4 and 1e-6.
NOISE = (1.4, 0.14, 0.014, 0.0014)


def near_teacher(rows, classes, temperature=1.0, seed=0, dtypes=("float32", "float32")):
    """Student and teacher logits `[rows, classes]`; rows go in turn through `NOISE`."""
    rng = np.random.default_rng([seed, rows, classes])
    teacher = 3.0 * rng.standard_normal((rows, classes), np.float32)
    noise = temperature * np.resize(NOISE, rows).astype(np.float32)[:, None]
    student = teacher + noise * rng.standard_normal((rows, classes), np.float32)
    return student.astype(FLOAT_DTYPES[dtypes[0]]), teacher.astype(FLOAT_DTYPES[dtypes[1]])


def far_apart(rows, classes, seed=0, scale=3.0):
    """Student and teacher logits `[rows, classes]` that have nothing to do with each other."""
    rng = np.random.default_rng([seed, rows, classes])
    return scale * rng.standard_normal((2, rows, classes), np.float32)


def keep_largest(teacher, kept, temperature=1.0, seed=0, index_dtype=np.int32):
    """The `kept` largest logits of each row, their indices, both shuffled, and the log of the rest.

    As `sparse_soft_target_loss` takes them: the rest is `log sum exp(t / temperature)`, float32.
    """
    order = np.argsort(-teacher.astype(np.float64), axis=-1, kind="stable")[..., :kept]
    indices = np.random.default_rng(seed).permuted(order, axis=-1).astype(index_dtype)
    others = np.array(teacher, np.float64)
    np.put_along_axis(others, indices, -np.inf, axis=-1)
    tail = np.logaddexp.reduce(others / temperature, axis=-1)
    return np.take_along_axis(teacher, indices, axis=-1), indices, tail.astype(np.float32)
