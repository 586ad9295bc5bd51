"""Finds the Pythons of this machine that keras_kd serves and that can compile a module.

    python -m tools.pythons     # one interpreter a line

They are the one that runs this, python3.10 to python3.13 on PATH, and those of pyenv, whose shims
on PATH refuse unless a version was chosen; or those that KERAS_KD_PYTHONS names, between colons.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MINORS = range(10, 14)
VARIABLE = "KERAS_KD_PYTHONS"
QUESTION = (
    "import json, sys, sysconfig as s; print(json.dumps([sys.executable, "
    "s.get_config_var('EXT_SUFFIX'), s.get_path('include'), sys.version_info[:2]]))"
)


def inspect_python(command):
    """`(interpreter, suffix of its modules)`, or the reason why it cannot have one."""
    done = subprocess.run([command, "-c", QUESTION], capture_output=True, text=True, check=False)
    if done.returncode:  # as pyenv's stand-in for a Python that was not chosen
        return next(iter(done.stderr.splitlines()), f"it ended with {done.returncode}")
    interpreter, suffix, include, version = json.loads(done.stdout)
    if tuple(version) < (3, MINORS[0]):
        return f"it is older than Python 3.{MINORS[0]}"
    if not (Path(include) / "Python.h").exists():
        return f"it has no headers, {include}/Python.h: install python3.{version[1]}-dev"
    return interpreter, suffix


def find_pythons():
    """`{suffix of modules: interpreter}`; writes to stderr which are left out, and why."""
    named = os.environ.get(VARIABLE)
    found = {}
    for command in named.split(os.pathsep) if named else candidates():
        answer = inspect_python(command)
        if isinstance(answer, tuple):
            found.setdefault(answer[1], answer[0])
        elif named:
            raise SystemExit(f"{VARIABLE} names {command}: {answer}.")
        else:
            print(f"not used: {command}: {answer}", file=sys.stderr)
    return found


def candidates():
    """The commands to try."""
    names = [f"python3.{minor}" for minor in MINORS]
    on_path = [sys.executable, *filter(None, map(shutil.which, names))]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_pyenv = [path for name in names for path in sorted(root.glob(f"versions/3.*/bin/{name}"))]
    return [*on_path, *map(os.fspath, of_pyenv)]


if __name__ == "__main__":
    print("\n".join(find_pythons().values()))
