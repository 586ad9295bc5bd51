"""`Waiting`: says when `fit` mostly waits for its teacher."""

import time

import keras

from keras_kd import user_warnings

# Steps and seconds of waiting before anything is said: a short fit is over sooner than a cache is
# written. The first steps are left out, in which functions are traced.
_STEPS, _SECONDS, _LEFT_OUT = 20, 10.0, 2
# From this share of waiting on, training from a cache takes less than half of the time.
_SHARE = 0.5


class TeacherWaitWarning(UserWarning):
    """`fit` waits for its teacher for most of the time."""


class Waiting(keras.callbacks.Callback):
    """Measures how long the steps of the first epoch wait for batches that a teacher answers.

    A step has waited from the end of the one before it until its batch is delivered, of which
    `ahead.with_teacher(distiller, dataset, waiting.delivered)` tells. What `keras_kd.cache_teacher`
    would save is told once.

    Args:
        clock: A function that gives seconds.
    """

    def __init__(self, clock=time.perf_counter):
        super().__init__()
        self._clock = clock
        self._delivered = None  # since the last step: when the first batch was
        self._begin, self._free = None, None
        self._waited, self._is_done = 0.0, False

    def delivered(self):
        """A batch is handed to its step."""
        if self._delivered is None:
            self._delivered = self._clock()

    def on_train_batch_end(self, batch, logs=None):
        if self._is_done:
            return
        now, steps = self._clock(), batch + 1
        if steps <= _LEFT_OUT or self._begin is None:
            self._begin = now
        elif self._delivered is not None:
            self._waited += max(self._delivered - self._free, 0.0)
        self._free, self._delivered = now, None
        if steps >= _LEFT_OUT + _STEPS and self._waited >= _SECONDS:
            self._tell(now - self._begin)

    def on_epoch_end(self, epoch, logs=None):
        self._is_done = True

    def _tell(self, passed):
        share = self._waited / passed
        if share < _SHARE:
            return
        self._is_done = True
        user_warnings.warn(
            f"keras_kd: fit waits for the teacher for {share:.0%} of the time ({self._waited:.0f} "
            f"of {passed:.0f} seconds). Ask it once, and train from what it said in about "
            f"{1 - share:.0%} of the time: keras_kd.cache_teacher(teacher, dataset, path), then "
            "Distiller(keras_kd.teachers.Cached(path), student).fit(keras_kd.load_cache(path, "
            "dataset)).",
            TeacherWaitWarning,
        )
