"""Runs an example as a user does."""

import os
import pathlib
import subprocess
import sys

from tests import fresh_process

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def printed(name, *arguments):
    """What an example prints, run with these arguments in a process of its own."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    env = {**os.environ, **fresh_process.environment()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
