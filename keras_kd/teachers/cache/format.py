"""What a cache of teacher outputs looks like on disk.

```
plan.json                      what is to be written, from the first moment on
view-000/shard-00000.tfrecord  a record for each batch (`schema.encode`)
view-000/shard-00000.json      its note: size, checksum, batches, samples, a digest of its inputs
manifest.json                  all of that, once everything is written: the cache is complete
by-key-<identity>/view-000/    samples by number; `load_cache(key=...)` makes them from the shards
locks/                         empty files
```

Every file is written under another name, synced and then renamed, so that under each of these names
there is a whole file or none. In a store of objects, which has no rename, each is uploaded at once;
a shard counts where its note is there, which follows it. Nothing in them depends on time, process
or path: a cache that was resumed, or written by many machines, equals one written in one go.

Whatever is read back is under a digest: shards in the manifest, each file of JSON in its own field
`digest`, the SHA-256 of its canonical text without that field. Version 1 had no digests in files of
JSON; such caches can still be read. Version 3 is that of `dtype="compact"`; a cache of another
dtype is still written as version 2, which an earlier keras_kd reads and continues. Version 4 is
that of a job (`job.Job`): its source says where shards end, so each has as many batches as it has.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from keras_kd._utils import storage
from keras_kd._utils.files import replace_atomically
from keras_kd.teachers.cache import contents, schema

VERSION = 4
_OF_COMPACT, _OF_OTHERS = 3, 2
_VERSIONS = (1, _OF_OTHERS, _OF_COMPACT, VERSION)
PLAN, MANIFEST = "plan.json", "manifest.json"
_DIGEST = "digest"
_CHUNK = 1 << 20


def version_of(dtype: str | None) -> int:
    """The first version that holds outputs of this dtype, and digests."""
    return _OF_COMPACT if dtype == contents.COMPACT else _OF_OTHERS


class CacheError(ValueError):
    """A cache is damaged, unfinished, or of another dataset or teacher."""


def shard_name(view: int, shard: int) -> str:
    """Path of a shard within the cache, without its ending."""
    return f"{view_name(view)}/shard-{shard:05d}"


def view_name(view: int) -> str:
    """The folder of a view's shards within the cache."""
    return f"view-{view:03d}"


def write_json(path: storage.Place, value: dict, create_only: bool = False) -> None:
    """Writes a dict with its digest to a file that is whole or not there.

    Args:
        path: The file.
        value: The dict.
        create_only: See `files.replace_atomically`.
    """
    text = json.dumps({**value, _DIGEST: digest(value)}, indent=1, sort_keys=True)
    with replace_atomically(path, create_only=create_only) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def digest(value: dict) -> str:
    """The SHA-256 of a dict's canonical text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_plan(folder: storage.Place) -> dict:
    """The plan.

    Raises:
        CacheError: It is missing, damaged, or of another version.
    """
    path = folder / PLAN
    return _checked(path, _of_known_version(path), schema.check_plan)


def read_manifest(folder: storage.Place) -> dict:
    """The manifest.

    Raises:
        CacheError: The cache is unfinished, damaged, or of another version.
    """
    path = folder / MANIFEST
    return _checked(
        path,
        _of_known_version(path),
        lambda value: schema.check_manifest(value, shard_name),
    )


def read_note(path: storage.Place) -> dict | None:
    """The note of a shard, or `None` where there is none; raises as `read_plan` does.

    It is read without a look whether it is there: of a store that would be one more request for
    each shard.
    """
    try:
        data = storage.read(path)
    except FileNotFoundError:
        return None
    return _checked(path, _unsealed(path, _parsed(path, data)), schema.check_note)


def read_sealed(path: storage.Place, check: Callable[[Any], dict]) -> dict:
    """A file of JSON with a digest.

    Args:
        path: The file.
        check: A function that returns the dict, or raises `schema.FieldError`.

    Raises:
        CacheError: It is missing, or damaged.
    """
    return _checked(path, _unsealed(path, _read_json(path)), check)


def _read_json(path: storage.Place) -> dict:
    try:
        data = storage.read(path)
    except FileNotFoundError:
        raise CacheError(f"{path} is missing. {_hint(path)}") from None
    return _parsed(path, data)


def _parsed(path: storage.Place, data: bytes) -> dict:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers without end
        raise damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise damaged(path, "it is not an object")
    return value


def _of_known_version(path: storage.Place) -> dict:
    value = _read_json(path)
    found = value.get("version")
    if type(found) is not int or found not in _VERSIONS:
        raise CacheError(
            f"{path} has format version {found!r}; this keras_kd reads version {VERSION} and "
            "earlier ones. Write the cache again, or use the keras_kd that wrote it."
        )
    return value if found == 1 else _unsealed(path, value)


def _unsealed(path: storage.Place, value: dict) -> dict:
    expected = value.pop(_DIGEST, None)
    if digest(value) != expected:
        raise damaged(path, "it is not what was written (its digest differs)")
    return value


def _checked(path: storage.Place, value: dict, check: Callable[[Any], dict]) -> dict:
    try:
        return check(value)
    except schema.FieldError as error:
        raise damaged(path, str(error)) from None


def damaged(path: storage.Place, what: str) -> CacheError:
    """The error for a file of JSON."""
    again = "and run keras_kd.cache_teacher again with the same arguments:"
    remedy = {
        MANIFEST: f"remove it {again} it is made from the shards' notes",
        PLAN: "remove the folder and write the cache again",
    }.get(path.name, f"remove it {again} that shard alone is written again")
    return CacheError(f"{path} is damaged: {what}. Restore it from a copy, or {remedy}.")


def _hint(path: storage.Place) -> str:
    if path.name == MANIFEST and storage.exists(path.parent / PLAN):
        return (
            "The cache is not finished: run keras_kd.cache_teacher (or the job) again with the "
            "same arguments, and it continues where it stopped."
        )
    return "Is this the folder that keras_kd.cache_teacher wrote? Else restore it from a copy."


def sha256(path: str | os.PathLike) -> str:
    """The checksum of a file, in hexadecimal."""
    found = hashlib.sha256()
    with pathlib.Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def identity(manifest: dict) -> str:
    """A short name of a cache's contents."""
    return digest(manifest)[:16]


def bytes_on_disk(path: str | os.PathLike) -> int:
    """The size of a cache's shards in bytes."""
    files = pathlib.Path(path).glob("view-*/*.tfrecord")
    return sum(file.stat().st_size for file in files)


# Held for a moment, to publish a file or to make the index by key.
CACHE = "cache"


def writer_lock(process: int) -> str:
    """The name of the lock of the writer with this process number, of `cache_teacher`."""
    return f"writer-{process}"


# Whether a cache's files are those that were written.


def checked(folder: storage.Place, thorough: bool, process: tuple[int, int] = (0, 1)) -> dict:
    """The manifest of a complete cache.

    Shards in a store are not asked for here: each is compared with its checksum when it is read
    (`copies.Copies`).

    Args:
        folder: The cache.
        thorough: Whether the files' contents are compared with their checksums; else their sizes.
        process: `(index, count)`: the shards `index`, `index + count`, ... of each view alone, so
            that many readers of parts do not each read all of it.

    Raises:
        CacheError: A file is missing, cut off or changed; it is named.
    """
    manifest = read_manifest(folder)
    for shards in manifest["shards"] if not storage.is_remote(folder) else []:
        for shard in shards[process[0] :: process[1]]:
            _check_shard(folder, shard, thorough)
    return manifest


def _check_shard(folder: pathlib.Path, shard: dict, thorough: bool) -> None:
    path = folder / f"{shard['name']}.tfrecord"
    remedy = (
        "Restore it from a copy; or remove it, its .json file and manifest.json, and run "
        "keras_kd.cache_teacher again: it writes that shard alone."
    )
    if not path.is_file():
        raise CacheError(f"{path} is missing. {remedy}")
    size = path.stat().st_size
    if size != shard["bytes"]:
        raise CacheError(
            f"{path} is damaged: it has {size} bytes, and had {shard['bytes']}. {remedy}"
        )
    if thorough and sha256(path) != shard["sha256"]:
        raise CacheError(
            f"{path} is damaged: its contents are not those that were written (the checksum "
            f"differs). {remedy}"
        )
