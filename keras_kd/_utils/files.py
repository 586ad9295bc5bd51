"""Files that are whole or not there: writing, saving Keras models, digests."""

import contextlib
import functools
import hashlib
import io
import os
import pathlib
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras_kd._utils import storage

# Bytes of UTF-8 of the final name that the name of a partial file keeps: its suffixes are among
# them, and a file system takes 255 bytes in all.
_KEPT = 64


@contextlib.contextmanager
def replace_atomically(
    path: Any, owner: str = "0", create_only: bool = False
) -> Iterator[pathlib.Path]:
    """Yields a path to write to, which becomes `path` on success, and else is removed.

    A reader sees the old file or the new one, after a power cut too. The path that is yielded
    belongs to no other process or thread, and has the suffixes of `path`. A symbolic link stays,
    and its target is replaced; a file that is replaced keeps its permissions. An object of a store
    is written in a temporary folder of this machine, and uploaded.

    Args:
        path: The file that is to be there in the end, or a `storage.Place`. Its folder is made.
        owner: A text in the name of the partial file, by which its leftovers are found.
        create_only: Of an object in a store: whether one that is there stays as it is.

    Raises:
        FileExistsError: With `create_only`: there is one.
    """
    if storage.is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            made = pathlib.Path(folder) / _end_of(path.name)
            yield made
            storage.upload(made, path, create_only)
        return
    path = pathlib.Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{owner}-{secrets.token_hex(8)}-{_end_of(path.name)}")
    try:
        yield partial
        if path.exists():
            shutil.copymode(path, partial)
        sync(partial)  # a rename may reach the disk before the bytes do
        partial.replace(path)
        sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _end_of(name: str) -> str:
    return name.encode()[-_KEPT:].decode(errors="ignore")


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def owner() -> str:
    """What sets the names of this process's partial files apart from those of others."""
    return f"{platform.node()}.{os.getpid()}"


def check_writable(path: Any, name: str) -> None:
    """Raises unless a file may be written there; makes its folder.

    Args:
        path: The path of the file. Of an object in a store the writing itself tells.
        name: The argument or the option, for the message.

    Raises:
        ValueError: It is a folder, or cannot be written.
    """
    if storage.is_remote(path):
        return
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"{name}: {str(path)!r} is a folder; name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{name}: {str(path)!r} cannot be written: {error.strerror}.") from error


def check_free(path: str | os.PathLike, overwrite: bool) -> pathlib.Path:
    """The path, as `pathlib.Path`, if it may be written.

    Raises:
        FileExistsError: It exists, and `overwrite` is false.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Pass overwrite=True to replace it.")
    return path


def digest_files(paths: Iterable[str | os.PathLike], more: Iterable[bytes] = ()) -> str:
    """The SHA-256 of the contents of files, and of more bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(pathlib.Path(path).read_bytes())
    for part in more:
        digest.update(part)
    return digest.hexdigest()


# Saves of Keras models that are whole or not there; Keras' own are not.


# Keras' endings of a single file. It raises for others, or they are folders.
_ENDINGS = (".keras", ".h5", ".hdf5")
# Seconds after which the leftovers of a process that has ended may be removed.
_LEFT_FOR = 60.0


def save(
    write: Callable,
    filepath: Any,
    overwrite: bool = True,
    zipped: bool | None = None,
    **kwargs: Any,
) -> None:
    """As `keras.Model.save`; a reader sees the old file or the new one.

    Args:
        write: `save` of `keras.Model`, bound to the model.
        filepath: See `keras.Model.save`, as for all that follows.
        overwrite: See there.
        zipped: See there.
        **kwargs: See there.
    """
    write = functools.partial(write, zipped=zipped, **kwargs)
    if isinstance(filepath, io.IOBase) or _is_remote(filepath):
        return write(filepath, overwrite=overwrite)
    is_folder = zipped is False
    if not is_folder and not str(filepath).endswith(_ENDINGS):
        return write(filepath, overwrite=overwrite)  # Keras names the endings that it takes
    if not _may_be_written(filepath, overwrite):
        return None
    return (_save_folder if is_folder else _save_file)(write, filepath)


def save_weights(
    write: Callable, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None
) -> None:
    """As `keras.Model.save_weights`; a reader sees the old file or the new one.

    Several files (`max_shard_size`) cannot be replaced at once. The one that names the others, the
    `.weights.json`, is gone while they are replaced: a reader finds one set of them or none.

    Args:
        write: `save_weights` of `keras.Model`, bound to the model.
        filepath: See `keras.Model.save_weights`, as for all that follows.
        overwrite: See there.
        max_shard_size: See there.
    """
    is_sharded = max_shard_size is not None
    endings = ("weights.h5", "weights.json") if is_sharded else ".weights.h5"
    if _is_remote(filepath) or not str(filepath).endswith(endings):
        return write(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
    if not _may_be_written(filepath, overwrite):
        return None
    if is_sharded:
        write = functools.partial(write, max_shard_size=max_shard_size)
        return _save_shards(write, pathlib.Path(filepath))
    return _save_file(write, filepath)


def _is_remote(filepath: Any) -> bool:
    # Keras uploads what it has written to a folder of its own, and object stores show whole files
    # only: nothing can be renamed there.
    return "://" in str(filepath)


def _may_be_written(filepath: Any, overwrite: bool) -> bool:
    """Asks as Keras does: it would be shown the name of the partial file."""
    if overwrite or not os.path.exists(filepath):
        return True
    answer = ""
    while answer not in ("y", "n"):
        answer = input(f"[WARNING] {filepath} already exists - overwrite? [y/n] ").strip().lower()
    return answer == "y"


def _save_file(write: Callable, filepath: Any) -> None:
    _remove_leftovers(filepath)
    with replace_atomically(filepath, owner()) as partial:
        write(str(partial), overwrite=True)


def _save_folder(write: Callable, filepath: Any) -> None:
    path = pathlib.Path(os.path.realpath(filepath))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, before = _beside(path), _beside(path)
    try:
        write(str(partial), overwrite=True)
        _sync_all(partial)
        if path.exists():
            path.rename(before)
        partial.rename(path)
        sync(path.parent)
    finally:
        for each in (partial, before):
            shutil.rmtree(each, ignore_errors=True)


def _save_shards(write: Callable, path: pathlib.Path) -> None:
    path = pathlib.Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = _beside(path)
    folder.mkdir()
    try:
        write(str(folder / path.name), overwrite=True)
        _sync_all(folder)
        shards = sorted(folder.glob("*.h5"))
        (index,) = folder.glob("*.json")
        (path.parent / index.name).unlink(missing_ok=True)
        sync(path.parent)
        for each in (*shards, index):
            each.replace(path.parent / each.name)
        sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"partial-{owner()}-{secrets.token_hex(8)}")


def _sync_all(folder: pathlib.Path) -> None:
    for each in folder.rglob("*"):
        sync(each)
    sync(folder)


def _remove_leftovers(filepath: Any) -> None:
    """Removes partial files of this file that processes left which were killed while saving."""
    path = pathlib.Path(os.path.realpath(filepath))
    name = rf"partial-{re.escape(platform.node())}\.(\d+)-[0-9a-f]{{16}}-(.+)"
    for each in path.parent.glob("partial-*"):
        found = re.fullmatch(name, each.name)
        if found and path.name.endswith(found.group(2)) and _is_gone(int(found.group(1)), each):
            each.unlink(missing_ok=True)


def _is_gone(process: int, file: pathlib.Path) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        pass
    except OSError:
        return False
    else:
        return False
    try:
        return time.time() - file.stat().st_mtime > _LEFT_FOR
    except FileNotFoundError:
        return False
