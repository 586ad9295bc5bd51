"""Runs scripts with the browser that `make extras` installs: those with `browser_pages.mjs`."""

import json
import os
import pathlib
import subprocess

from tools import install_browser

FOLDER = pathlib.Path(__file__).resolve().parents[1] / ".venv" / "browser"
_TIMEOUT = 120


def run_script(script, **options):
    """What a script prints; it gets the options, and where the browser is, as JSON."""
    options |= {"browser": FOLDER / "chromium" / "chromium", "modules": FOLDER}
    return run(script, json.dumps(options, default=os.fspath)).stdout


def run(*arguments, check=True):
    """Runs Node.js with nothing of the user's but PATH, and returns the process."""
    done = subprocess.run(
        list(map(os.fspath, [install_browser.node(FOLDER), *arguments])),
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(FOLDER),
            **install_browser.libraries(FOLDER),
        },
        timeout=_TIMEOUT,
    )
    if check and done.returncode:
        raise RuntimeError(done.stderr)
    return done
