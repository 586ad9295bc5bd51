"""What the check of the built documentation finds."""

import subprocess
import sys

import pytest

from tools import check_docs

GOOD = '<h1 id="top">x</h1><a href="other.html#there">x</a><a href="#top">x</a><img src="x.png">'
OTHER = '<h1 id="there">x</h1><a href="https://example.org/x">x</a><a id="keras_kd.Thing"></a>'


@pytest.fixture
def site(tmp_path, monkeypatch):
    names = tmp_path / "names.txt"
    names.write_text("keras_kd.Thing(a, b)\nkeras_kd.Thing.method(self)\nkeras_kd>Thing\n")
    monkeypatch.setattr(check_docs, "public_names", lambda: read_names(names))
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text(GOOD)
    (folder / "other.html").write_text(OTHER)
    (folder / "x.png").write_bytes(b"")
    return folder


read_names = check_docs.public_names


def test_a_good_site(site):
    assert check_docs.faults(site) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('<a href="missing.html">x</a>', "index.html: missing.html: no such file"),
        ('<a href="other.html#here">x</a>', "index.html: other.html#here: no such anchor"),
        ('<a href="#here">x</a>', "index.html: #here: no such anchor"),
        ('<img src="y.png">', "index.html: y.png: no such file"),
        (
            '<script src="https://cdn.example.org/x.js"></script>',
            "index.html: fetches https://cdn.example.org/x.js",
        ),
        (
            '<link rel="stylesheet" href="//example.org/x.css">',
            "index.html: fetches //example.org/x.css",
        ),
    ],
)
def test_a_fault(text, fault, site):
    (site / "index.html").write_text(text)
    assert check_docs.faults(site) == [fault]


def test_a_style_that_fetches(site):
    (site / "x.css").write_text("@font-face { src: url(https://fonts.example.org/x.woff) }")
    assert check_docs.faults(site) == ["x.css: fetches https:"]


def test_a_name_without_an_anchor(site):
    (site / "other.html").write_text('<h1 id="there">x</h1>')
    assert check_docs.faults(site) == ["keras_kd.Thing has no anchor on a page"]


def test_an_empty_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, check_docs.__file__, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "run mkdocs build" in done.stdout
