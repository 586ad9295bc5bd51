"""Batches that are too small for a loss between rows, which would be 0 without a word."""

import keras

from keras_kd.live import traced_value


def check(losses, rows):
    """Raises if batches of `rows` rows on each replica are too small for one of the losses."""
    for loss in losses:
        if rows < loss.least_rows:
            raise _too_small(loss, f"batches of {rows}")


def rows_of(data, batch_size):
    """How many rows the largest batches have; `None` where the data does not say it."""
    spec = getattr(data, "element_spec", None)
    first = keras.tree.flatten(data if spec is None else spec)[0]
    shape = getattr(first, "shape", None)
    if shape is None or len(shape) == 0:
        return batch_size
    return shape[0] if spec is not None else min(shape[0], batch_size or 32)


class Watch(keras.callbacks.Callback):
    """Raises after the first epoch if no batch of it was large enough.

    Args:
        loss: The loss that needs most rows.
        rows: A variable: the rows of the epoch so far.
    """

    def __init__(self, loss, rows):
        super().__init__()
        self._loss, self._rows = loss, rows
        self._before = self._largest = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._before = 0

    def on_train_batch_end(self, batch, logs=None):
        if self._largest < self._loss.least_rows:  # usually for the first batch only
            rows = int(traced_value(self._rows))
            self._largest = max(self._largest, rows - self._before)
            self._before = rows

    def on_epoch_end(self, epoch, logs=None):
        if self._largest < self._loss.least_rows:
            raise _too_small(self._loss, f"an epoch whose largest batch has {self._largest}")


def _too_small(loss, received):
    return ValueError(
        f"Distillation loss {loss.name!r} compares the rows of a batch and needs at least "
        f"{loss.least_rows} of them on each replica. Received: {received}. Use a larger batch_size."
    )
