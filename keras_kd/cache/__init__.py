"""Teacher outputs on disk: the public names of `keras_kd.teachers.cache`, and sources of data."""

from keras_kd.cache import sources
from keras_kd.teachers.cache import CacheError, cache_teacher, load_cache

__all__ = ["CacheError", "cache_teacher", "load_cache", "sources"]
