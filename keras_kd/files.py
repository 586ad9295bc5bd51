"""Files that are whole or not there."""

import contextlib
import os
import pathlib
import secrets
import shutil
import tempfile

# Bytes of UTF-8 of the final name that the name of a partial file keeps: its suffixes are among
# them, and a file system takes 255 bytes in all.
_KEPT = 64


@contextlib.contextmanager
def renamed(path, owner="0"):
    """Gives a path to write to, which becomes `path` when that went well, and else is removed.

    Whoever looks sees the old file or the new one, after a power cut too. The path that is given is
    no one else's, in no process or thread, and has the suffixes of `path`. A symbolic link stays,
    and what it points to is replaced; a file that is replaced keeps its permissions.

    Args:
        path: The file that is to be there in the end. Its folder is made.
        owner: A text in the name of the partial file, which tells whose leftovers it may be.
    """
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


def _end_of(name):
    return name.encode()[-_KEPT:].decode(errors="ignore")


def sync(path):
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
