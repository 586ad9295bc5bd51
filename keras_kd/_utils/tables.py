"""Tables of results, as lines of text and as what a notebook shows.

A table is a list of lines of cells, the heads first. What a notebook shows is a fragment of HTML
that needs nothing else: its style sheet holds for the fragment alone, and takes the colors and
fonts of the page around it, so that it is readable on light and on dark ones.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_kd._utils.markup import element, fragment

# Marks, not text: at least 3 to 1 on white and on the dark backgrounds of notebooks.
GOOD, BAD = "#2f7fd6", "#c2611a"
STYLE = f"""
.keras-kd {{ line-height: 1.45; margin: 0.25rem 0; max-width: 100%; overflow-x: auto; }}
.keras-kd p, .keras-kd ul {{ margin: 0 0 0.5rem; max-width: 50rem; }}
.keras-kd ul {{ padding-left: 1.25rem; }}
.keras-kd .kd-title {{ font-weight: 600; }}
.keras-kd .kd-chip {{
  border: 1px solid; border-left-width: 5px; border-radius: 4px; padding: 0 0.5em;
  font-size: 0.9em; white-space: nowrap;
}}
.keras-kd .kd-good {{ border-color: {GOOD}; }}
.keras-kd .kd-bad {{ border-color: {BAD}; }}
.keras-kd table {{ border: 0; border-collapse: collapse; margin: 0 0 0.5rem; font-size: 0.92em; }}
.keras-kd caption {{ caption-side: bottom; padding: 0.3rem 0; text-align: left; opacity: 0.85; }}
.keras-kd th, .keras-kd td {{
  border: 0; padding: 0.2rem 1rem 0.2rem 0; text-align: left; vertical-align: baseline;
}}
.keras-kd thead tr > * {{ border-bottom: 2px solid rgba(128, 128, 128, 0.5); }}
.keras-kd tbody tr + tr > * {{ border-top: 1px solid rgba(128, 128, 128, 0.3); }}
.keras-kd tbody th {{ font-weight: 600; }}
.keras-kd .kd-numbers th:not(:first-child), .keras-kd .kd-numbers td,
.keras-kd .kd-last td:last-child {{
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}}
"""


def lines_of(cells: Sequence[Sequence[str]]) -> list[str]:
    """Cells as columns, all to the left; a text for each line."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def inline(*children: Any) -> str:
    """The text of a fragment for a notebook.

    Args:
        *children: See `markup.element`.
    """
    return fragment(element("div", element("style", STYLE), *children, class_="keras-kd"))


def table(
    cells: Sequence[Sequence[Any]],
    caption: str | None = None,
    class_: str | None = None,
    empty: str = "",
    unnamed: str = "",
) -> ET.Element:
    """Cells as an element; the first one of a line names the line.

    Args:
        cells: The heads, which may all be empty, and the lines.
        caption: Text below it.
        class_: Names of classes; in a notebook `"kd-numbers"` moves all columns but the first to
            the right, `"kd-last"` the last one.
        empty: What is shown for an empty cell, which then has the class `"none"`.
        unnamed: What is shown for an empty head.
    """
    heads, *rows = cells
    head = element("tr", [_head(each or unnamed, "col") for each in heads])
    body = [
        element(
            "tr",
            _head(line[0], "row"),
            [_cell(*each, empty) for each in zip(heads[1:], line[1:], strict=True)],
        )
        for line in rows
    ]
    return element(
        "table",
        None if caption is None else element("caption", caption),
        element("thead", head) if any(heads) else None,
        element("tbody", body),
        class_=class_,
    )


def _head(words, scope):
    return element("th", words, scope=scope) if words else element("td")


def _cell(label, value, empty):
    if empty and value == "":
        return element("td", empty, data_label=label, class_="none")
    return element("td", value, data_label=label)


def sentences(head: str | None, items: Iterable[str]) -> list[ET.Element]:
    """A list of sentences below a title; nothing where there are none."""
    listed = [element("li", each) for each in items]
    title = [element("p", head, class_="kd-title")] if head and listed else []
    return [*title, element("ul", listed)] if listed else []


class Rows(list):
    """A list of dicts that `print` and a notebook show as a table.

    Args:
        rows: The dicts.
        columns: The keys to show, in order.
        show: A function that makes a text of a value.
    """

    def __init__(self, rows: Iterable[dict], columns: Sequence[str], show: Callable[[Any], str]):
        super().__init__(rows)
        self._columns, self._show = tuple(columns), show

    def __reduce__(self):
        return list, (list(self),)  # what is saved is the list

    def cells(self) -> list[list[str]]:
        """The heads, and a line for each dict."""
        rows = [[self._show(row[name]) for name in self._columns] for row in self]
        return [list(self._columns), *rows]

    def __str__(self) -> str:
        return "\n".join(lines_of(self.cells()))

    def _repr_html_(self) -> str:
        return inline(table(self.cells()))
