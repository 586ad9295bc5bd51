"""Teacher outputs on disk: written once, read in each epoch."""

from keras_kd.teachers.cache.format import CacheError
from keras_kd.teachers.cache.reader import load_cache
from keras_kd.teachers.cache.writer import cache_teacher

__all__ = ["CacheError", "cache_teacher", "load_cache"]
