"""A process that has imported TensorFlow and Keras, and is forked for each program that is run.

`python -m tests.preloaded` reads the requests of `fresh_process.run_preloaded`, lines of JSON, and
answers with the exit code of `python *arguments`. To import TensorFlow takes 8 seconds, to fork
a process that has done so takes none. It is not used there: it starts threads at its first use.
"""

import json
import os
import pathlib
import runpy
import signal
import sys
import traceback
import warnings

import keras  # noqa: F401
import tensorflow as tf  # noqa: F401

_TASKS = pathlib.Path("/proc/self/task")


def run_program(arguments):
    """Runs `python *arguments` in this process, in a fresh `__main__`; returns its exit code."""
    kind, *rest = arguments
    own = {os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    path = [entry for entry in sys.path if entry not in own]
    sys.path[:] = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *path]
    try:
        if kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.path.insert(0, "")
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = ["-m", *rest[1:]]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [kind, *rest]
            sys.path.insert(0, os.path.dirname(kind))
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 as the interpreter does
        traceback.print_exc()
        return 1
    return 0


def _fork(request):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
                path = os.devnull if name == "stdin" else os.path.join(request["output"], name)
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
            signal.alarm(request["timeout"])
            os.environ.clear()
            os.environ.update(request["env"])
            os.chdir(request["cwd"])
            if request["warnings"] != "error":  # else the filters of this process hold
                warnings.simplefilter(request["warnings"])
            code = run_program(request["arguments"])
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)  # nothing of the parent's is ended twice
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    if _TASKS.exists() and len(list(_TASKS.iterdir())) > 1:
        sys.exit("Importing TensorFlow starts threads: it cannot be forked.")
    for line in sys.stdin:
        print(f"exit code {_fork(json.loads(line))}", flush=True)
