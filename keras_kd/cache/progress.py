"""Shows how far `cache_teacher` is: batches, rows a second, bytes, and what was there already."""

import time

import keras
import tensorflow as tf


class Progress:
    """A bar over the batches of all views, and a line about what came out.

    Args:
        datasets: Of the views. Where one does not know its length there is no end to show.
        shown: Whether anything is.
    """

    def __init__(self, datasets, shown):
        self._shown, self._bar = shown, None
        lengths = [int(data.cardinality()) for data in datasets]
        known = all(length != tf.data.UNKNOWN_CARDINALITY for length in lengths)
        self._total = sum(lengths) if known else None
        self._batches = self._asked = self._rows = self._bytes = 0
        self._start = time.monotonic()

    def waits(self, folder):
        """Says that another run is waited for."""
        if self._shown:
            print(f"{folder}: another run is writing this cache; waiting for it to end.")

    def add(self, rows, size):
        """Counts a batch.

        Args:
            rows: How many the teacher was asked about; 0 for a batch that was left out.
            size: Bytes written until now.
        """
        self._batches += 1
        self._asked += rows > 0
        self._rows += rows
        self._bytes = size
        if not self._shown:
            return
        if self._bar is None:
            self._bar = keras.utils.Progbar(
                self._total, unit_name="batch", stateful_metrics=["rows/s", "MB"]
            )
        self._bar.update(self._batches, self._figures())

    def _figures(self):
        seconds = max(time.monotonic() - self._start, 1e-3)
        return [("rows/s", self._rows / seconds), ("MB", self._bytes / 1e6)]

    def end(self, folder, manifest):
        """Ends the bar, and says what the cache is.

        Args:
            folder: The cache.
            manifest: Its manifest; `None`: it waits for other processes.
        """
        if not self._shown:
            return
        if self._bar is not None and self._total is None:
            self._bar.update(self._batches, self._figures(), finalize=True)
        left_out = self._batches - self._asked
        if manifest is None:
            print(
                f"{folder}: {self._asked} batches written; the other {left_out} are there or of "
                "other processes. Whoever comes last finishes the cache."
            )
            return
        print(f"{folder}: {summary(manifest)}{self._of_before(left_out)}.")

    def _of_before(self, left_out):
        if not self._batches:
            return "; it was whole already"
        return f"; {left_out} of {self._batches} batches were there already" if left_out else ""


def summary(manifest):
    """Rows, batches and bytes of a cache, as a text."""
    shards = [shard for view in manifest["shards"] for shard in view]
    rows, batches, size = (
        sum(shard[name] for shard in shards) for name in ("rows", "batches", "bytes")
    )
    return (
        f"{rows:,} rows in {batches:,} batches, {size / 1e6:,.2f} MB "
        f"({size / max(rows, 1):,.0f} bytes a row)"
    )
