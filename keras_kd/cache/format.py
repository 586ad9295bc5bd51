"""What a cache of teacher outputs looks like on disk.

```
plan.json                      what is to be written, from the first moment on
view-000/shard-00000.tfrecord  a record for each batch (`records.py`)
view-000/shard-00000.json      its size, checksum, batches and rows, and a digest of its inputs
manifest.json                  all of that, once everything is written: the cache is whole
```

Every file is written under another name and then renamed, so that one of these names is a whole
file or none. Nothing in them depends on time, process or path: a cache that was resumed is the one
that would have been written in one go.
"""

import hashlib
import json
import os
import pathlib

from keras_kd.files import renamed

VERSION = 1
PLAN, MANIFEST = "plan.json", "manifest.json"
_CHUNK = 1 << 20


class CacheError(ValueError):
    """A cache is damaged, unfinished, or of another dataset or teacher."""


def shard_name(view, shard):
    """Path of a shard within the cache, without its ending."""
    return f"view-{view:03d}/shard-{shard:05d}"


def read_json(path):
    """A JSON file of a cache, as a dict.

    Raises:
        CacheError: It is missing, or no JSON.
    """
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CacheError(f"{path} is missing. {_hint(path)}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CacheError(
            f"{path} is damaged: {error}. Restore it from a copy, or write the cache again."
        ) from error


def _hint(path):
    if path.name == MANIFEST and (path.parent / PLAN).exists():
        return (
            "The cache is not finished: run keras_kd.cache_teacher again with the same arguments, "
            "and it goes on where it was."
        )
    return "Is this the folder that keras_kd.cache_teacher wrote? Else restore it from a copy."


def write_json(path, value):
    """Writes a dict to a file that is whole or not there."""
    text = json.dumps(value, indent=1, sort_keys=True)
    with renamed(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_json_once(path, value):
    """`write_json`, unless another process was first: then its file stays."""
    path = pathlib.Path(path)
    mine = path.with_name(f"partial-{os.getpid()}-{path.name}")
    write_json(mine, value)
    try:
        os.link(mine, path)  # unlike a rename it fails where the file exists
    except FileExistsError:
        mine.unlink()
    except OSError:  # a file system without links
        mine.replace(path)
    else:
        mine.unlink()


def sha256(path):
    """The checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with pathlib.Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_plan(folder):
    """The plan, checked for its version."""
    return _checked_version(pathlib.Path(folder) / PLAN)


def read_manifest(folder):
    """The manifest, checked for its version.

    Raises:
        CacheError: The cache is unfinished, damaged, or of another version.
    """
    return _checked_version(pathlib.Path(folder) / MANIFEST)


def _checked_version(path):
    value = read_json(path)
    found = value.get("version")
    if found != VERSION:
        raise CacheError(
            f"{path} has format version {found}; this keras_kd reads version {VERSION}. Write the "
            "cache again, or use the keras_kd that wrote it."
        )
    return value


def identity(manifest):
    """A short name of a cache's contents."""
    text = json.dumps(manifest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def bytes_on_disk(path):
    """The size of a cache's shards in bytes."""
    files = pathlib.Path(path).glob("view-*/*.tfrecord")
    return sum(file.stat().st_size for file in files)
