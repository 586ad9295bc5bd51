"""A colour and a shape for each model, the same in all plots."""

from keras_kd.report import entrants as roles
from keras_kd.report.markup import element

RADIUS = 5.0
_FOUR = 4  # colours of exported files; a fifth file begins again with another shape
_SHAPES = ("square", "triangle", "pentagon", "cross")


class Style:
    """How an entrant is drawn.

    Args:
        class_: Class of the page's style sheet, which sets the colour.
        shape: `"diamond"`, `"ring"`, `"disc"`, `"square"`, `"triangle"`, `"pentagon"`, `"cross"`.
    """

    def __init__(self, class_, shape):
        self.class_, self.shape = class_, shape

    def mark(self, x, y, words=None, radius=RADIUS):
        """The marker at a place, with words that appear under the pointer."""
        title = None if words is None else element("title", words)
        return _shape(self.shape, x, y, radius, title, f"mark {self.class_}")


def styles(entrants):
    """`{name: Style}`."""
    fixed = {
        roles.TEACHER: Style("c-teacher", "diamond"),
        roles.BASELINE: Style("c-baseline", "ring"),
        roles.STUDENT: Style("c-student", "disc"),
    }
    exports = [each.name for each in entrants if each.role == roles.EXPORT]
    made = {each.name: fixed[each.role] for each in entrants if each.role in fixed}
    for i, name in enumerate(exports):
        shape = _SHAPES[(i + i // _FOUR) % len(_SHAPES)]
        made[name] = Style(f"c-export-{i % _FOUR}", shape)
    return made


def _shape(shape, x, y, r, title, class_):
    if shape in ("ring", "disc"):
        class_ += " ring" if shape == "ring" else ""
        return element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{r}", class_=class_)
    corners = {
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.1, 0.85), (-1.1, 0.85)),
        "pentagon": ((0, -1.15), (1.1, -0.35), (0.68, 0.95), (-0.68, 0.95), (-1.1, -0.35)),
        "cross": (
            *((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)),
            *((0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)),
        ),
    }[shape]
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return element("polygon", title, points=points, class_=class_)
