"""Teacher outputs on disk: written once, read in each epoch."""

from keras_kd.cache.format import CacheError
from keras_kd.cache.reading import load_cache
from keras_kd.cache.writing import cache_teacher

__all__ = ["CacheError", "cache_teacher", "load_cache"]
