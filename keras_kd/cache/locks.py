"""Locks of a cache: between processes and between threads, gone when their holder is killed.

A lock is an empty file in the cache's folder `locks`, which stays. Where files cannot be locked (on
Windows, on some network drives) threads of one process still take turns; processes then rely on
names of their own for unfinished files, so that the worst is work that is done twice.
"""

import contextlib
import errno
import os
import pathlib
import threading
from typing import Any


def _file_locks() -> Any:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl


fcntl = _file_locks()
FOLDER = "locks"
# For a moment each: what is published, and the index by key.
CACHE = "cache"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}

_of_threads: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def of_writer(process):
    """The name of the lock of whoever writes as this number of a process."""
    return f"writer-{process}"


@contextlib.contextmanager
def held(folder, name, told=lambda: None):
    """Holds a lock of a cache; not twice by one thread.

    Args:
        folder: The cache, which exists.
        name: Of the lock.
        told: A function that is called if another one holds it, before the wait.
    """
    path = pathlib.Path(folder).resolve() / FOLDER / name
    with contextlib.ExitStack() as stack:
        told = _once(told)
        lock = _of_thread(str(path))
        if not lock.acquire(blocking=False):
            told()
            lock.acquire()
        stack.callback(lock.release)
        file = _opened(path)
        if file is not None:
            stack.callback(os.close, file)  # which lets go of the lock
            _lock_file(file, told)
        yield


def _of_thread(path):
    with _guard:
        return _of_threads.setdefault(path, threading.Lock())


def _once(function):
    calls: list[None] = []

    def once():
        if not calls:
            calls.append(function())

    return once


def _opened(path):
    if fcntl is None:
        return None
    try:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return None  # nothing can be written there, by this user at least


def _lock_file(file, told):
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
