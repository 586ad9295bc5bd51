"""`PyDataset`s around the user's, and generators likewise: a batch is drawn once, and looked at."""

import keras


class WrappedBatches(keras.utils.PyDataset):
    """Gives what another `PyDataset` gives.

    Args:
        batches: The `PyDataset`.
    """

    def __init__(self, batches):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches

    @property
    def num_batches(self):
        return self.batches.num_batches

    def __getitem__(self, index):
        return self.batches[index]

    def on_epoch_begin(self):
        self.batches.on_epoch_begin()

    def on_epoch_end(self):
        self.batches.on_epoch_end()


class PeekedBatches(WrappedBatches):
    """A `PyDataset` whose first batch was looked at: Keras gets that very batch.

    A batch that is drawn twice may be two: data that is augmented at random, or counted.

    Args:
        batches: The `PyDataset`; not empty.
    """

    def __init__(self, batches):
        super().__init__(batches)
        self.first = self._kept = batches[0]

    def __getitem__(self, index):
        if index != 0 or self._kept is None:
            return self.batches[index]
        kept, self._kept = self._kept, None
        return kept


class WatchedBatches(WrappedBatches):
    """A `PyDataset` that shows the first batch that passes; in worker processes none passes here.

    Args:
        batches: The `PyDataset`.
        show: A function of the batch.
    """

    def __init__(self, batches, show):
        super().__init__(batches)
        self._show = None if batches.use_multiprocessing else show

    def __getitem__(self, index):
        batch = self.batches[index]
        show, self._show = self._show, None
        if show is not None:
            show(batch)
        return batch


def watched_generator(generator, show):
    """A generator that shows its first batch when it is drawn."""
    is_first = True
    for batch in generator:
        if is_first:
            show(batch)
            is_first = False
        yield batch
