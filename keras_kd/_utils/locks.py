"""Locks of a folder: between processes and between threads, released when their holder is killed.

A lock is an empty file in the folder's own folder `locks`, which stays. Where files cannot be
locked (on Windows, on some network drives) threads of one process still take turns; what processes
write must then be such that the worst is work that is done twice. A store of objects has no locks
at all, and threads do not wait there either.
"""

import contextlib
import errno
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from keras_kd._utils import storage


def _file_locks() -> Any:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl


fcntl = _file_locks()
FOLDER = "locks"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}

_thread_locks: dict[str, threading.Lock] = {}
_guard = threading.Lock()


class LockHeldError(Exception):
    """Another process or thread holds the lock."""


@contextlib.contextmanager
def held(folder: Any, name: str, before_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock of a folder; a thread must not hold it twice.

    Args:
        folder: The folder, which exists, or a `storage.Place`.
        name: The name of the lock.
        before_wait: A function that is called once if another one holds the lock. What it raises
            ends the waiting.
    """
    if storage.is_remote(folder):
        yield
        return
    path = pathlib.Path(folder).resolve() / FOLDER / name
    with contextlib.ExitStack() as stack:
        before_wait = _once(before_wait)
        lock = _thread_lock(str(path))
        if not lock.acquire(blocking=False):
            before_wait()
            lock.acquire()
        stack.callback(lock.release)
        file = _open_lock(path)
        if file is not None:
            stack.callback(os.close, file)  # which releases the lock
            _lock_file(file, before_wait)
        yield


def held_at_once(folder: Any, name: str) -> contextlib.AbstractContextManager[None]:
    """Holds a lock of a folder, or raises `LockHeldError` where that would mean waiting."""
    return held(folder, name, _refuse)


def is_held(folder: Any, name: str) -> bool:
    """Whether a process that is alive, or another thread, holds a lock."""
    try:
        with held_at_once(folder, name):
            return False
    except LockHeldError:
        return True


def _refuse() -> None:
    raise LockHeldError


def _thread_lock(path: str) -> threading.Lock:
    with _guard:
        return _thread_locks.setdefault(path, threading.Lock())


def _once(function: Callable[[], None]) -> Callable[[], None]:
    was_called = False

    def once() -> None:
        nonlocal was_called
        if not was_called:
            was_called = True
            function()

    return once


def _open_lock(path: pathlib.Path) -> int | None:
    if fcntl is None:
        return None
    try:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return None  # this user cannot write there


def _lock_file(file: int, before_wait: Callable[[], None]) -> None:
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            before_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
