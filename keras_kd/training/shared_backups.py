"""`SharedBackups`: workers that train in step back up once, and go on at the same batch.

Keras' `BackupAndRestore` knows one process. Of several that have one folder each would write the
same files there, and all but one would fail when they remove them at the end. With a folder each
they would go on at different batches, and their steps would no longer belong together.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_kd.training import distribution

# Seconds until a folder that another machine has made is seen at the latest.
_PATIENCE = 30.0
# Where workers meet.
_BEGIN, _FIRST_EPOCH, _END = range(3)
_REMEDY = (
    "BackupAndRestore needs one folder that all workers share. Remove what is in it on each "
    "machine, and begin again in one."
)


class SharedBackups:
    """The `BackupAndRestore`s of one `fit` in several workers; each worker has its own of these.

    Worker 0 writes and removes the files, all read them. The methods are called by all workers, or
    each would wait for the others.

    Args:
        strategy: The strategy that connects the workers.
        backups: The callbacks of this worker.

    Attributes:
        writes: Whether this is worker 0.
    """

    def __init__(self, strategy: tf.distribute.Strategy, backups: list) -> None:
        self._strategy, self._backups = strategy, list(backups)
        self.writes = distribution.is_first_worker(strategy)

    @contextlib.contextmanager
    def during_fit(self) -> Iterator[None]:
        """While it is open, only worker 0's callbacks copy and remove files."""
        settings = [
            (each, each.delete_checkpoint, each.double_checkpoint) for each in self._backups
        ]
        for each in self._backups:
            if self.writes:
                tf.io.gfile.makedirs(each.backup_dir)  # Keras' own would fail where two make it
            else:
                each.delete_checkpoint = each.double_checkpoint = False
        try:
            yield
        finally:
            for each, deletes, doubles in settings:
                each.delete_checkpoint, each.double_checkpoint = deletes, doubles

    def begin(self) -> None:
        """Waits until all workers have come here, and so worker 0 has made the folders.

        Raises:
            ValueError: They have different callbacks, or do not see one folder.
        """
        counts = [count for count, _ in self._meet(_BEGIN, len(self._backups))]
        if len(set(counts)) > 1:
            raise ValueError(
                "Workers have different numbers of keras.callbacks.BackupAndRestore: "
                f"{counts}, in their order. Pass the same callbacks in each worker; only worker 0 "
                "writes."
            )
        if not self._backups:
            return
        folders = [str(each.backup_dir) for each in self._backups]
        sees = self._meet(_BEGIN, int(all(map(_is_seen, folders))))
        blind = [index for index, (each, _) in enumerate(sees) if not each]
        if blind:
            raise ValueError(
                f"Workers {blind} do not see the folder of BackupAndRestore that worker 0 has "
                f"made, {folders}. Name one on a drive or in a bucket that all workers share."
            )

    def check_same(self, epoch: int, batches: int) -> None:
        """Raises where the workers have not restored the same backup.

        Args:
            epoch: With which this worker goes on.
            batches: The batches of it that its weights have seen.
        """
        if not self._backups:
            return
        positions = self._meet(_FIRST_EPOCH, epoch, batches)
        if len(set(positions)) > 1:
            raise ValueError(
                "Workers have restored different backups: they would go on at (epoch, batch) "
                f"{positions}, in their order. {_REMEDY}"
            )

    def end(self) -> None:
        """Waits until all workers have trained and saved to the end; then files may be removed."""
        if self._backups:
            self._meet(_END)

    def _meet(self, place: int, first: int = 0, second: int = 0) -> list[tuple[int, int]]:
        """The numbers of all workers, which have come to the same place of `fit`."""
        met = distribution.gathered(self._strategy, [place, first, second])
        if any(each[0] != place for each in met):
            raise ValueError(
                "Workers have restored different backups: some have trained to the end, others "
                f"have not. {_REMEDY}"
            )
        return [(each[1], each[2]) for each in met]

    def is_others(self, filepath: Any) -> bool:
        """Whether a file is one that worker 0 writes, and this is another one."""
        if self.writes:
            return False
        folder = os.path.dirname(str(filepath))
        return any(folder == str(each.backup_dir).rstrip("/") for each in self._backups)


def save_nowhere(write: Callable, filepath: Any, **options: Any) -> None:
    """Saves as others do, without a file that stays: to read a metric, all workers sum it up."""
    with tempfile.TemporaryDirectory() as folder:
        write(os.path.join(folder, os.path.basename(str(filepath))), **options)


def _is_seen(folder: Any) -> bool:
    begin = time.monotonic()
    while not tf.io.gfile.exists(folder):
        if time.monotonic() - begin > _PATIENCE:
            return False
        time.sleep(0.2)
    return True
