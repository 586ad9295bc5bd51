"""The browser that `make extras` installs."""

import json
import pathlib

from tests import extras
from tools import run_browser


def needed():
    """Skips the test where the browser is missing."""
    extras.require_folder("browser")


def look(page, views, shots=None):
    """What a browser shows of a page: a dict for each of `[(width, "light" or "dark", audit)]`."""
    script = pathlib.Path(__file__).with_name("look.mjs")
    return run_script(script, page=page, shots=shots, views=views)


def run_script(script, **options):
    """What a script for the browser prints, read from JSON; it gets the options as JSON."""
    return json.loads(run_browser.run_script(script, **options))


def html_faults(page):
    """What the checker of HTML finds wrong in a file: a list of texts."""
    command = run_browser.FOLDER / "node_modules" / "html-validate" / "bin" / "html-validate.mjs"
    config = pathlib.Path(__file__).with_name("html.json")
    done = run_browser.run(command, "--config", config, "--formatter", "text", page, check=False)
    assert not done.stderr
    return done.stdout.splitlines()
