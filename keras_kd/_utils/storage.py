"""Files of this machine and objects of a store, by one set of functions.

A place is a `pathlib.Path`, or the path of an object in a store that fsspec reaches (`s3://`,
`gs://`, `hdfs://`, `memory://` ...), which is a `upath.UPath`; both know `/`, `.name` and
`.parent`. A store has no rename and no locks. In their place stand: an object that appears whole or
not at all when it has been uploaded, and one that is created only where there is none
(`create_only`).

Nothing here trusts a listing to be complete: a store may list late, so a name that is listed is
there, and one that is not may be there all the same. Who must know asks for the object itself.
"""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

from keras_kd._utils import validation

Place = Any  # pathlib.Path | upath.UPath, and the latter is an extra

# A request is made so often. A store's own client tries several times within each of them (s3fs
# some twenty times, for about a minute); it does not try again what it took for a whole download.
_ATTEMPTS = 3
# Requests that wait for a store at one time.
_THREADS = 16
# What another attempt would not change: a store's answers, and mistakes of a program.
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ImportError,
)


def place(path: Any, name: str = "path", expected: str = "the path of a file or a folder") -> Place:
    """The place of a path or an address.

    `file://` is a path of this machine. Settings of a store (its endpoint, credentials) come from
    its own environment variables and files, or from a `upath.UPath` with storage options.

    Args:
        path: A path, an address such as `"s3://bucket/folder"`, or a `upath.UPath`.
        name: Of the argument, for messages.
        expected: What it should be, for messages.

    Raises:
        ImportError: It is in a store, and what reaches it is not installed.
        ValueError: It is none of these.
    """
    if is_remote(path):
        return path
    text = str(path) if isinstance(path, pathlib.PurePath) else path
    if not isinstance(text, str) or not text or "\0" in text:
        raise validation.invalid(name, expected, repr(path))
    if text.startswith("file://"):
        return pathlib.Path(text.removeprefix("file://"))
    if "://" in text:
        return _in_store(text, name)
    if validation.is_address(text):
        raise validation.invalid(
            name,
            f"{expected}; an address has two slashes, as s3://bucket/folder (one that passed "
            "through pathlib has lost the second)",
            repr(path),
        )
    return pathlib.Path(text)


def _in_store(address: str, name: str) -> Place:
    scheme = address.split("://")[0]
    upath = validation.needs("upath", f"{name}={address!r}", "cloud")
    try:
        # Listings are asked for anew each time: others write to the same place.
        found = upath.UPath(address, use_listings_cache=False)
        found.fs  # noqa: B018 - made here, where what it needs can be told
    except ImportError as error:
        raise ImportError(f"{name}={address!r} needs what reaches {scheme}://: {error}") from error
    except ValueError as error:
        raise validation.invalid(
            name, f"an address whose scheme fsspec knows ({error})", repr(address)
        ) from error
    else:
        return found


def is_remote(path: Any) -> bool:
    """Whether it is the path of an object in a store."""
    return hasattr(path, "storage_options") and not isinstance(path, pathlib.PurePath)


def exists(path: Place) -> bool:
    """Whether there is a file or an object of this name; a folder does not count in a store."""
    return size(path) is not None if is_remote(path) else path.exists()


def size(path: Place) -> int | None:
    """The bytes of a file or an object, or `None` where there is none."""
    if not is_remote(path):
        return path.stat().st_size if path.is_file() else None
    try:
        found = _retried(path, lambda: path.fs.info(path.path, refresh=True))
    except FileNotFoundError:
        return None
    return found["size"] if found["type"] == "file" else None


def read(path: Place) -> bytes:
    """All bytes of a file or an object.

    Raises:
        FileNotFoundError: There is none.
        OSError: It could not be read.
    """
    if not is_remote(path):
        return path.read_bytes()
    return _retried(path, lambda: path.fs.cat_file(path.path))


def names(folder: Place, ending: str = "") -> set[str]:
    """The names of the files right in a folder that end so, as far as they are listed yet."""
    if not is_remote(folder):
        found = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    else:
        folder.fs.invalidate_cache()
        try:
            listed = _retried(folder, lambda: folder.fs.ls(folder.path, detail=False))
        except FileNotFoundError:
            listed = []
        found = [each.rstrip("/").rsplit("/", 1)[-1] for each in listed]
    return {each for each in found if each.endswith(ending)}


def below(folder: Place) -> set[str]:
    """The names of all objects below a folder of a store, by their path within it."""
    folder.fs.invalidate_cache()
    found = _retried(folder, lambda: folder.fs.find(folder.path))
    return {name[len(folder.path.rstrip("/")) + 1 :] for name in found}


def remove(path: Place) -> None:
    """Removes a file or an object, if there is one."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        _retried(path, lambda: path.fs.rm_file(path.path))


def upload(file: pathlib.Path, path: Place, create_only: bool = False) -> None:
    """Makes an object of a file of this machine: a reader finds it whole or not at all.

    Args:
        file: The file.
        path: The path of the object.
        create_only: Whether an object that is there stays as it is.

    Raises:
        FileExistsError: With `create_only`: there is one.
        OSError: It could not be written.
    """
    mode, tries = "create" if create_only else "overwrite", 0

    def put() -> None:
        nonlocal tries
        tries += 1
        try:
            path.fs.put_file(str(file), path.path, mode=mode)
        except FileExistsError:
            # An upload whose answer was lost has made the object all the same.
            if tries == 1 or read(path) != file.read_bytes():
                raise

    _retried(path, put)
    found = size(path)
    if found != file.stat().st_size:
        raise OSError(f"{path} has {found} bytes after {file.stat().st_size} were written to it.")


def download(path: Place, file: pathlib.Path, check: Callable[[pathlib.Path], str | None]) -> None:
    """Makes a file of this machine of an object; it is whole or not there.

    Args:
        path: The path of the object.
        file: The file; its folder is there.
        check: Says what is wrong with the file, or `None`. It is then read once more: a connection
            that breaks may leave a part.

    Raises:
        FileNotFoundError: There is no object.
        OSError: It could not be read, or what was read is not right.
    """
    handle, name = tempfile.mkstemp(dir=file.parent, prefix="partial-")
    partial = pathlib.Path(name)

    def get() -> None:
        path.fs.get_file(path.path, name)
        wrong = check(partial)
        if wrong is not None:
            raise OSError(f"{path} {wrong}")

    try:
        with open(handle, "wb"):
            _retried(path, get)
        shutil.move(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def each_of(function: Callable[[Any], Any], items: Iterable) -> Iterator[Any]:
    """`function` of each item, in order; many at a time, as a store's answers take their time."""
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(function, items)


def _retried(path: Place, request: Callable[[], Any]) -> Any:
    """What a request to a store returns; one that fails by chance is made again."""
    tenacity = validation.needs("tenacity", f"The store of {path}", "cloud")
    calls = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5.0),
        retry=tenacity.retry_if_not_exception_type(_FINAL),
        reraise=True,
    )
    try:
        return calls(request)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing.") from error
    except PermissionError as error:
        raise PermissionError(
            f"{path}: the store refuses it: {error}. Look at the credentials and at what they may "
            "do there."
        ) from error
    except _FINAL:
        raise
    except Exception as error:  # a store's own kinds: of botocore, of aiohttp, of gcsfs
        raise OSError(
            f"{path}: the store failed {_ATTEMPTS} times, at last by {type(error).__name__}: "
            f"{error}"
        ) from error
