"""Runs Python in processes of their own, for what can be set up only once in a process."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
_TIMEOUT = 900
# Warnings are errors, but for what TensorFlow 2.21's variables do to Keras' saving with NumPy 2.4.
_WARNINGS = [
    "-Werror",
    "-Wignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
]
_SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "KERAS_BACKEND": "tensorflow",
}


def environment(**changes):
    """This process's environment for a fresh one; a change to `None` removes the variable."""
    merged = {**os.environ, **_SETTINGS, "PYTHONPATH": os.fspath(ROOT), **changes}
    return {key: value for key, value in merged.items() if value is not None}


def start(arguments, env=None):
    """Starts `python *arguments` in the repository's root; returns the `Popen`."""
    return subprocess.Popen(
        [sys.executable, *_WARNINGS, *map(os.fspath, arguments)],
        env=environment() if env is None else env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes, timeout=_TIMEOUT):
    """Waits for all; returns what each printed, or raises `AssertionError` with it.

    A process that failed may leave the others waiting for it, so they are ended as well.
    """
    printed = []
    try:
        for process in processes:
            printed.append(process.communicate(timeout=timeout)[0])
            assert process.returncode == 0, f"rc {process.returncode}:\n{printed[-1][-6000:]}"
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return printed


def run(arguments, env=None, timeout=_TIMEOUT):
    """Runs `python *arguments` to its end; returns what it printed."""
    return finish([start(arguments, env)], timeout)[0]


def run_json(module, output, *arguments):
    """Runs a module that writes JSON to the path it gets as its first argument; returns it."""
    run(["-m", module, output, *arguments])
    return json.loads(pathlib.Path(output).read_text())


def run_preloaded(arguments, env=None, cwd=ROOT, check=True, warnings="error"):
    """Runs `python *arguments` in a fork of a process that has imported TensorFlow and Keras.

    For programs that need a process of their own, but no first import of TensorFlow. `warnings` is
    what happens to warnings: an action of `warnings.simplefilter`.

    Returns:
        A `subprocess.CompletedProcess`; with `check` one that failed is an `AssertionError`.
    """
    arguments = [os.fspath(each) if isinstance(each, os.PathLike) else each for each in arguments]
    with tempfile.TemporaryDirectory() as output:
        request = {
            "arguments": arguments,
            "env": env or environment(),
            "cwd": os.fspath(cwd),
            "output": output,
            "timeout": _TIMEOUT,
            "warnings": warnings,
        }
        code = _preloaded().ask(request)
        printed = [(pathlib.Path(output) / name).read_text() for name in ("stdout", "stderr")]
    done = subprocess.CompletedProcess(arguments, code, *printed)
    assert code == 0 or not check, f"rc {code}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


@functools.cache
def _preloaded():
    return _Preloaded()


class _Preloaded:
    """The process of `preloaded.py`, started at first use."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, *_WARNINGS, "-m", "tests.preloaded"],
            # A thread of OpenBLAS would not survive a fork, nor one of pyarrow, which pandas takes.
            env=environment(
                OMP_NUM_THREADS="1",
                OPENBLAS_NUM_THREADS="1",
                JE_ARROW_MALLOC_CONF="background_thread:false",
            ),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._close)

    def ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer.startswith("exit code "), f"{answer!r}: the process is gone"
        return int(answer.removeprefix("exit code "))

    def _close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
