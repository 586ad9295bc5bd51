"""The files of a source: found, described without their folder, and looked at again when read."""

import collections
import dataclasses
import glob
import os
import posixpath
from typing import Any

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

_EXTRA = "parquet"


@dataclasses.dataclass(frozen=True)
class Files:
    """Files below one folder.

    Attributes:
        folder: Of this machine, or in a store.
        names: Relative to it, with `/`.
        sizes: In bytes.
        store: The protocol of a store, such as `"s3"`, or `None` for this machine.
    """

    folder: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    store: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, number: int) -> str:
        """The path of a file; of a store without its protocol."""
        if self.store is not None:
            return posixpath.join(self.folder, self.names[number])
        return os.path.join(self.folder, *self.names[number].split("/"))

    def check(self, number: int) -> None:
        """Raises unless a file is there with the size that it had.

        Raises:
            FileNotFoundError: It is gone.
            ValueError: Its size is another one.
        """
        path = self.path(number)
        try:
            size = self._file_system().size(path) if self.store else os.stat(path).st_size
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path!r} is no longer there. Expected a file of {self.sizes[number]} bytes. Put "
                "it back, or make the source and the cache again without it."
            ) from None
        if size != self.sizes[number]:
            raise ValueError(
                f"{path!r} has changed. Expected {self.sizes[number]} bytes, as when the source "
                f"was made. Received: {size} bytes. Put the file back, or make the source and the "
                "cache again."
            )

    def open(self, number: int) -> Any:
        """A file, open for reading bytes; nothing is read that is not asked for."""
        if self.store is None:
            return open(self.path(number), "rb", buffering=0)
        return self._file_system().open(self.path(number), "rb", cache_type="none")

    def describe(self) -> list[list]:
        """Names and sizes, for JSON."""
        return [[name, size] for name, size in zip(self.names, self.sizes, strict=True)]

    def _file_system(self) -> Any:
        return _file_system(f"{self.store}://{self.folder}", "A file of a store")


def find(name: str, files: Any, stores: bool = False) -> Files:
    """Files by paths and patterns.

    Args:
        name: Of the argument that holds them.
        files: A path, a pattern such as `"data/*.tfrecord"`, or a list of such. A pattern's files
            are sorted by name.
        stores: Whether addresses such as `"s3://bucket/*.parquet"` are taken.

    Raises:
        ValueError: They are none, are not there, or are there twice.
        ImportError: An address needs fsspec, or its package for the store.
    """
    given = [files] if isinstance(files, (str, os.PathLike)) else files
    expected = "a path, a pattern such as 'data/part-*', or a list of them"
    if not isinstance(given, (list, tuple)) or not given:
        raise invalid(name, expected, repr(files))
    texts = [os.fspath(each) if isinstance(each, os.PathLike) else each for each in given]
    if not all(isinstance(each, str) and each for each in texts):
        raise invalid(name, expected, repr(files))
    addresses = [each for each in texts if validation.is_address(each)]
    if addresses and not stores:
        raise invalid(
            name,
            "paths of this machine, or of a file system that it has mounted. Copy the files, or "
            "store them as Parquet, which is also read from stores",
            repr(addresses[0]),
        )
    if addresses and len(addresses) < len(texts):
        raise invalid(name, "paths of this machine or of one store, not both", repr(files))
    found = _in_store(name, texts) if addresses else _local(name, texts)
    counts = collections.Counter(found.names)
    twice = [each for each, count in counts.items() if count > 1]
    if twice:
        raise invalid(name, "each file once", f"{twice[0]!r} twice")
    return found


def _local(name: str, texts: list[str]) -> Files:
    paths: list[str] = []
    for text in texts:
        if os.path.isdir(text):
            raise invalid(
                name, f"files. {text!r} is a folder: add a pattern, such as /*", repr(text)
            )
        # A name may hold a character of patterns.
        matches = [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))
        matches = [each for each in matches if os.path.isfile(each)]
        if not matches:
            raise _none(name, text)
        paths += map(os.path.abspath, matches)
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return listed(folder, [os.path.relpath(path, folder) for path in paths])


def listed(folder: str, names: list[str]) -> Files:
    """Files of a folder of this machine by their names."""
    sizes = tuple(os.stat(os.path.join(folder, each)).st_size for each in names)
    return Files(folder, tuple(each.replace(os.sep, "/") for each in names), sizes)


def _in_store(name: str, texts: list[str]) -> Files:
    protocol = texts[0].partition(":")[0]
    if any(each.partition(":")[0] != protocol for each in texts):
        raise invalid(name, "addresses of one store", repr(texts))
    system = _file_system(texts[0], f"`{name}` of a store")
    sizes: dict[str, list[int]] = {}
    for text in texts:
        matches = sorted(system.glob(text, detail=True).items())
        matches = [(path, facts) for path, facts in matches if facts["type"] == "file"]
        if not matches:
            raise _none(name, text)
        for path, facts in matches:
            sizes.setdefault(path, []).append(int(facts["size"]))
    pairs = [(path, size) for path, all_sizes in sizes.items() for size in all_sizes]
    folder = posixpath.commonpath([posixpath.dirname(path) for path, _ in pairs])
    names = tuple(posixpath.relpath(path, folder) for path, _ in pairs)
    return Files(folder, names, tuple(size for _, size in pairs), protocol)


def _file_system(address: str, who: str) -> Any:
    fsspec = validation.needs("fsspec", who, _EXTRA)
    # A listing that is kept would hide that a file has changed.
    return fsspec.core.url_to_fs(address, use_listings_cache=False)[0]


def _none(name: str, text: str) -> ValueError:
    return invalid(
        name,
        "files that are there; paths begin where the program is started",
        f"{text!r}, which matches no file",
    )
