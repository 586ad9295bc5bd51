"""`Skipped`: batches of a resumed run that need not be asked about again."""

import pathlib

from keras_kd.cache import fingerprints, records, shards


class Skipped:
    """Batches that need not be asked about; their inputs must be those that were.

    Args:
        folder: The cache.
    """

    def __init__(self, folder):
        self._folder, self._notes = pathlib.Path(folder), {}
        self._name, self._prints = None, []

    def is_whole(self, name):
        """Whether the shard has been written, by an earlier run or by another process."""
        if name not in self._notes:
            self._notes[name] = shards.note_of(self._folder, name)
        return self._notes[name] is not None

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
        if prints and fingerprints.of_bytes(prints) != self._notes[self._name]["inputs"]:
            raise shards.other_inputs(self._folder, self._name)
