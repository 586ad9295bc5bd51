"""Data sets cut into shards, for caches that several machines write.

Each worker reads only the files, or the part of a file, that belong to the shards that it writes:
all workers together read the data once. A source travels to them by pickle (cloudpickle, where it
holds functions of a program), or each worker makes its own and their descriptions are compared. The
shards, one after another, are the whole data in order; a shard has the same batches in the same
order in every process.

`augment`, which all of these sources take, is a function `(inputs, seed)`, `(inputs, labels, seed)`
or `(inputs, labels, weights, seed)` of one sample that returns the sample that takes its place. It
runs in the graph of `tf.data.Dataset.map`. Its `seed` is an int64 tensor `[2]` for stateless
operations such as `tf.image.stateless_random_flip_left_right`, made from the argument `seed`, the
view and the sample's place in the data, whichever shard and batch it is in. Without `augment` all
views are the same.

Paths are of this machine, or of a file system that all workers have; `Parquet` also takes
addresses of stores, such as `s3://`.
"""

from keras_kd.cache.sources.arrays import Arrays
from keras_kd.cache.sources.base import Source
from keras_kd.cache.sources.images import Images
from keras_kd.cache.sources.indexed import Indexed
from keras_kd.cache.sources.parquet import Parquet
from keras_kd.cache.sources.records import TFRecords
from keras_kd.cache.sources.texts import Texts

__all__ = ["Arrays", "Images", "Indexed", "Parquet", "Source", "TFRecords", "Texts"]
