"""The site as `make docs` builds it: strict, whole, and legible in a real browser.

Needs mkdocs; what looks at pages also needs `make .venv/browser`.
"""

import functools
import http.server
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from tests import extras
from tests.docs import pages
from tests.report import browser
from tools import check_docs

# Page, width, colors. One page of each kind: text, a wide table, messages, an API, a picture.
VIEWS = [
    ("index.html", 1280, "light"),
    ("benchmarks/measured.html", 400, "light"),
    ("guides/choosing-a-loss.html", 1280, "dark"),
    ("troubleshooting.html", 400, "dark"),
    ("api/ops.html", 1280, "dark"),
    ("concepts/architecture.html", 400, "light"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    extras.require_in_a_process("mkdocs", "mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=pages.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout + done.stderr
    return folder


def test_nothing_is_broken(site):
    assert check_docs.faults(site) == []


def test_hidden_code_stays_hidden(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "<!-- run" not in text, path
        assert "<!-- not run" not in text, path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def seen(site):
    """What a browser sees of each view."""
    browser.needed()
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        script = pathlib.Path(__file__).with_name("look.mjs")
        options = {"site": address, "views": VIEWS, "search": "quantization"}
        found = browser.run_script(script, **options)
        server.shutdown()
    return address, found


def test_pages_in_a_browser(seen):
    address, views = seen
    assert len(views) == len(VIEWS)
    for view in views:
        assert view["errors"] == []
        assert view["faults"] == []
        assert view["scrollWidth"] <= view["innerWidth"] == view["width"]
        assert [url for url in view["requests"] if not url.startswith((address, "data:"))] == []


def test_the_search_finds_pages(seen):
    assert "Quantization-aware training" in seen[1][0]["found"]


def test_colors_follow_the_system(seen):
    schemes = {"light": "default", "dark": "slate"}
    assert [view["scheme"] for view in seen[1]] == [schemes[colors] for _, _, colors in VIEWS]
