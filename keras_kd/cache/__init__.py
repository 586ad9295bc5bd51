"""Teacher outputs on disk: `cache_teacher` on one machine, `plan` where many machines write.

A job (`plan`) takes its data from one of `sources`, shard by shard; `on_ray` and `beam.Write` give
its shards to the machines of a cluster.
"""

from keras_kd.cache import sources
from keras_kd.cache.on_ray import FleetSummary, on_ray
from keras_kd.teachers.cache import CacheError, cache_teacher, load_cache
from keras_kd.teachers.cache.job import Job, Shard, Written
from keras_kd.teachers.cache.planning import plan

__all__ = [
    "CacheError",
    "FleetSummary",
    "Job",
    "Shard",
    "Written",
    "cache_teacher",
    "load_cache",
    "on_ray",
    "plan",
    "sources",
]
