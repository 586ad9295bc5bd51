"""Looks whether a cache's files are those that were written."""

import pathlib

from keras_kd.cache import format as cache_format


def checked(folder, thorough):
    """The manifest of a whole cache.

    Args:
        folder: The cache.
        thorough: Whether the files' contents are compared with their checksums; else their sizes.

    Raises:
        CacheError: A file is missing, cut off or changed; it is named.
    """
    folder = pathlib.Path(folder)
    manifest = cache_format.read_manifest(folder)
    for shards in manifest["shards"]:
        for shard in shards:
            _check_shard(folder, shard, thorough)
    return manifest


def _check_shard(folder, shard, thorough):
    path = folder / f"{shard['name']}.tfrecord"
    remedy = (
        "Restore it from a copy; or remove it, its .json file and manifest.json, and run "
        "keras_kd.cache_teacher again: it writes that shard alone."
    )
    if not path.is_file():
        raise cache_format.CacheError(f"{path} is missing. {remedy}")
    size = path.stat().st_size
    if size != shard["bytes"]:
        raise cache_format.CacheError(
            f"{path} is damaged: it has {size} bytes, and had {shard['bytes']}. {remedy}"
        )
    if thorough and cache_format.sha256(path) != shard["sha256"]:
        raise cache_format.CacheError(
            f"{path} is damaged: its contents are not those that were written (the checksum "
            f"differs). {remedy}"
        )
