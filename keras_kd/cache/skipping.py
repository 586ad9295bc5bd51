"""`Skipped`: batches of a resumed run that need not be asked about again."""

import pathlib

from keras_kd.cache import fingerprints, records
from keras_kd.cache import format as cache_format


class Skipped:
    """Batches that need not be asked about; their inputs must be those that were.

    Args:
        folder: The cache.
    """

    def __init__(self, folder):
        self._folder, self._whole = pathlib.Path(folder), {}
        self._name, self._prints = None, []

    def is_whole(self, name):
        """Whether the shard has been written, by an earlier run or by another process."""
        if name not in self._whole:
            self._whole[name] = (self._folder / f"{name}.json").exists()
        return self._whole[name]

    def add(self, name, marks):
        """Notes a batch of the shard `name`; `marks()` gives its fingerprints."""
        if name != self._name:
            self.check()
            self._name = name
        if self.is_whole(name):
            self._prints.append(marks()[records.FINGERPRINTS].numpy().tobytes())

    def check(self):
        """Raises if a shard that was written before is one of other inputs."""
        prints, self._prints = self._prints, []
        if not prints:
            return
        note = cache_format.read_json(self._folder / f"{self._name}.json")
        if fingerprints.of_bytes(prints) != note["inputs"]:
            raise cache_format.CacheError(
                f"The inputs of shard {self._name} are others than when it was written: the "
                "dataset is shuffled, augmented without a fixed seed, or has changed. Give it a "
                f"fixed order, or remove {self._folder} and write the cache again."
            )
