"""Elements of HTML and SVG. Whatever text is put into them comes out as text."""

import re
import xml.etree.ElementTree as ET
from typing import Any

# What neither XML nor HTML may hold, and halves of surrogate pairs, which UTF-8 has no bytes for.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def element(tag: str, *children: Any, **attributes: Any) -> ET.Element:
    """An element.

    Args:
        tag: Its name.
        *children: Elements, text, lists of them, `None` for nothing.
        **attributes: By name; `class_` and `for_` lose the underscore at the end, the others become
            hyphens. `None` leaves one out.
    """
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(_name(name), clean(value))
    _append(made, children)
    return made


def _name(name):
    return name.rstrip("_").replace("_", "-")


def _append(parent, children):
    for child in children:
        if isinstance(child, (list, tuple)):
            _append(parent, child)
        elif isinstance(child, ET.Element):
            parent.append(child)
        elif child is not None:
            _append_text(parent, clean(child))


def _append_text(parent, text):
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def clean(value: Any) -> str:
    """Text without characters that a page may not hold."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def document(root: ET.Element) -> str:
    """The text of a whole HTML page."""
    return "<!DOCTYPE html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"


def fragment(root: ET.Element) -> str:
    """The text of an element, for a page that somebody else makes."""
    return ET.tostring(root, encoding="unicode", method="html")
