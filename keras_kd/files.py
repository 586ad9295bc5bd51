"""Files that are whole or not there."""

import contextlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def renamed(path, owner="0"):
    """Gives a path to write to, which becomes `path` when that went well, and else is removed."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{owner}-{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # a rename may reach the disk before the bytes do
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_writable(path, name):
    """Raises unless a file may be written there; makes its folder.

    Args:
        path: Where.
        name: Of the argument or the option, for the message.

    Raises:
        ValueError: It may not.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"{name}: {str(path)!r} is a folder; name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{name}: {str(path)!r} cannot be written: {error.strerror}.") from error


def free(path, overwrite):
    """The path, as `pathlib.Path`, if it may be written.

    Raises:
        FileExistsError: It exists, and is not to be replaced.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Pass overwrite=True to replace it.")
    return path
