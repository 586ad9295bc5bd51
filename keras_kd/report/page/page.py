"""The whole page."""

import importlib.resources

from keras_kd import version
from keras_kd.report.markup import document, element
from keras_kd.report.page import figures, overview, tables

# Characters that a tab or a search engine shows of a title.
_TITLE = 70


def text(report):
    """The page as text: HTML with its style sheet and pictures inside."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", _shortened(report.title)),
        element("style", style_sheet()),
    )
    body = element(
        "body",
        overview.header(report),
        element(
            "main",
            overview.verdict(report),
            overview.route(report),
            overview.advice(report),
            figures.section(report),
            tables.main(report),
            tables.classes(report),
            tables.slices(report),
            tables.notes(report),
        ),
        element("footer", element("p", f"Made by keras_kd {version.__version__}.")),
    )
    return document(element("html", head, body, lang="en"))


def _shortened(title):
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"


def style_sheet():
    """The text of `style.css`."""
    return importlib.resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
