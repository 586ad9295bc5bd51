"""The process of one worker: says which versions it has, calls the function, hands back its result.

Messages to its host are pickled pairs of a kind and what comes with it; see `host`.
"""

import os
import pickle
import sys
import threading
import traceback
from multiprocessing import connection
from typing import Any

import tensorflow as tf

from keras_kd import version
from keras_kd._utils import validation
from keras_kd.scale.worker import Worker

# TensorFlow raises these, or says this, where the reason lies with another worker.
_LOST_TOUCH = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,  # codespell:ignore cancelled
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
_ECHOES = ("Collective ops is aborted by", "Could not start gRPC server")


class _Link:
    """The connection to the host; several threads may send."""

    def __init__(self, descriptor: int) -> None:
        self._connection: Any = connection.Connection(descriptor)
        self._lock = threading.Lock()

    def send(self, kind: str, said: Any = None) -> None:
        with self._lock:
            self._connection.send_bytes(pickle.dumps((kind, said)))

    def receive(self) -> bytes:
        """The next message; ends the process where the host is gone."""
        try:
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)  # from any thread, whatever the others wait for


def main(descriptor: int) -> None:
    """Works off one request.

    Args:
        descriptor: The number of the socket to the host.
    """
    link = _Link(descriptor)
    place, pickled = pickle.loads(link.receive())
    link.send("ready", version.installed())
    link.receive()  # go
    may_leave = threading.Event()

    def wait() -> None:
        link.receive()
        may_leave.set()

    threading.Thread(target=wait, daemon=True).start()
    worker = Worker(**place, tell=lambda: link.send("alive"))
    kind, said = _call(pickled, worker)
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(kind, said)
    # Not before the others have ended: their steps would fail for want of this one.
    may_leave.wait()


def _call(pickled: bytes, worker: Worker) -> tuple[str, Any]:
    try:
        function = pickle.loads(pickled)
        cloudpickle = validation.needs("ray.cloudpickle", "keras_kd.scale.run", "ray")
        return "result", cloudpickle.dumps(function(worker))
    except Exception as error:  # noqa: BLE001 the driver raises it
        return "raised", _described(error)


def _described(error: Exception) -> dict[str, Any]:
    text = traceback.format_exc()
    echo = isinstance(error, _LOST_TOUCH) or any(each in str(error) for each in _ECHOES)
    return {
        "traceback": text,
        "summary": "".join(traceback.format_exception_only(error)).strip(),
        "is_echo": echo,
        "error": _pickled(error),
    }


def _pickled(error: Exception) -> bytes | None:
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001 its text is sent in any case
        return None
    return pickled
