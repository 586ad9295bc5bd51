"""Runs Python in processes of their own, for what can be set up only once in a process."""

import json
import os
import pathlib
import subprocess
import sys

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
