"""`Host`: keeps the process of one worker on a machine, and says what became of it.

It is sent by value to where it runs (`ray_hosts`): there only the standard library is needed, and
TensorFlow is imported by the worker's process alone. That is a fresh one for each attempt:
TensorFlow cannot connect workers twice in a process. The two talk over a socket, whose end tells
the worker that its host is gone.
"""

import collections
import contextlib
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import connection
from typing import Any

# Lines of a worker's output that are kept for an error message.
_KEPT_LINES = 40
# Beyond those that systems take for outgoing connections and Ray for its workers, so that a port
# that is free when it is chosen is free when TensorFlow opens it, seconds later.
_PORTS = range(20_000, 32_000)
# Seconds for a worker that has ended to leave, and for its last words to arrive.
_PATIENCE = 10.0

# What a worker's process runs. It gets the driver's search path behind its own.
_PROGRAM = """
import json, os, sys
more = [each for each in json.loads(sys.argv[2]) if os.path.exists(each)]
sys.path[:] = [each for each in sys.path if each]
sys.path += [each for each in more if each not in sys.path]
from keras_kd.scale import child
child.main(int(sys.argv[1]))
"""


class Host:
    """Starts one worker's process after another.

    Example:

    ```python
    host = Host()
    port = host.free_port()
    host.start({"TF_CONFIG": "..."}, paths=[], request=b"...")
    host.go()
    host.poll()
    host.stop()
    ```
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._link: Any = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._printed = 0
        self._phase, self._said = "starting", None
        self._last_sign = time.monotonic()

    def free_port(self) -> int:
        """A port that no process of this machine listens on."""
        for port in random.SystemRandom().sample(_PORTS, 200):
            with socket.socket() as trial:
                try:
                    trial.bind(("", port))
                except OSError:
                    continue
                return port
        raise RuntimeError(f"No free port was found from {_PORTS.start} to {_PORTS.stop - 1}.")

    def start(self, environment: dict[str, str], paths: list[str], request: bytes) -> int:
        """Starts the worker's process, which waits for `go` before it calls the function.

        Args:
            environment: Variables, beside those of this process.
            paths: The driver's `sys.path`.
            request: What `child` reads.

        Returns:
            The number of the process.
        """
        self.stop()
        self._forget()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), json.dumps(paths)],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._link = connection.Connection(ours.detach())
        self._threads = [
            threading.Thread(target=each, args=(self._process,), daemon=True)
            for each in (self._read_output, self._read_messages)
        ]
        for thread in self._threads:
            thread.start()
        self._send(request)
        return self._process.pid

    def go(self) -> None:
        """Lets the worker call the function."""
        self._sign()
        self._send(b"go")

    def poll(self, seen: int = 0) -> dict[str, Any]:
        """What became of the worker.

        Args:
            seen: How many lines of its output are known already.

        Returns:
            `phase` ("starting", "ready", "result" or "raised"); `exit` (its code, `None` while it
            runs); `silent` (seconds since its last sign of life); `said` (what came with the
            phase; results wait for `result`); `lines` (those that are new, as far as they are
            kept); `printed` (how many there were).
        """
        code = None if self._process is None else self._process.poll()
        if code is not None:
            for thread in self._threads:  # its last words
                thread.join(_PATIENCE)
        with self._lock:
            new = min(self._printed - seen, len(self._lines))
            return {
                "phase": self._phase,
                "exit": code,
                "silent": time.monotonic() - self._last_sign,
                "said": None if self._phase == "result" else self._said,
                "lines": list(self._lines)[len(self._lines) - new :] if new > 0 else [],
                "printed": self._printed,
            }

    def result(self) -> Any:
        """What the function returned, pickled."""
        return self._said

    def stop(self) -> None:
        """Ends the worker's process and all that it has started; one that is done may leave."""
        process = self._process
        if process is None:
            return
        if self._phase == "result":
            self._send(b"leave")
            with contextlib.suppress(subprocess.TimeoutExpired):  # it is killed below
                process.wait(_PATIENCE)
        with contextlib.suppress(ProcessLookupError):  # the last of them has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for thread in self._threads:
            thread.join(_PATIENCE)
        self._link.close()
        self._process = None

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended, as `poll` will say
            self._link.send_bytes(message)

    def _sign(self) -> None:
        with self._lock:
            self._last_sign = time.monotonic()

    def _read_output(self, process: subprocess.Popen) -> None:
        with process.stdout as output:  # type: ignore[union-attr]
            for line in output:
                text = line.decode(errors="replace").rstrip()
                with self._lock:
                    self._lines.append(text)
                    self._printed += 1
                    self._last_sign = time.monotonic()

    def _read_messages(self, process: subprocess.Popen) -> None:
        del process
        while True:
            try:
                message = self._link.recv_bytes()
            except (EOFError, OSError):
                return
            kind, said = pickle.loads(message)
            with self._lock:
                self._last_sign = time.monotonic()
                if kind != "alive":
                    self._phase, self._said = kind, said
