"""A picture with axes, on which the plots draw."""

from keras_kd.report.markup import element

WIDTH = 330
# In the units of the picture, which are pixels or a little more.
FONT = 12
# The width of a character of `FONT`, on the wide side: so that texts are known not to meet.
CHARACTER = 6.7


class Canvas:
    """An SVG picture, from the top left corner.

    Args:
        height: In units of which the picture is `WIDTH` wide.
        title: What it is, in a few words: the alternative text.
        description: What it shows, with the figures: read to those who cannot see it.
    """

    def __init__(self, height, title, description):
        self.height = height
        label = f"{title}. {description}"
        self.svg = element(
            "svg", viewBox=f"0 0 {WIDTH} {_short(height)}", role="img", aria_label=label
        )

    def add(self, tag, *children, **attributes):
        """Draws an element; numbers are shortened."""
        made = element(tag, *children, **{key: _short(value) for key, value in attributes.items()})
        self.svg.append(made)
        return made

    def text(self, x, y, words, anchor="start", class_=None, **attributes):
        """Writes; `y` is the base line."""
        self.add("text", words, x=x, y=y, text_anchor=anchor, class_=class_, **attributes)

    def line(self, x1, y1, x2, y2, class_="grid"):
        """Draws a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def path(self, points, class_):
        """Draws a line through points."""
        steps = " ".join(
            f"{'L' if i else 'M'}{_short(x)} {_short(y)}" for i, (x, y) in enumerate(points)
        )
        self.add("path", d=steps, class_=class_)

    def x_axis(self, scale, y, top, label, tick_text, most=5):
        """An axis along the bottom, with lines up to `top`."""
        for value in scale.ticks(most):
            self.line(scale(value), top, scale(value), y)
            self.text(scale(value), y + 16, tick_text(value), "middle", "tick")
        self.text((scale.start + scale.end) / 2, y + 33, label, "middle", "axis")

    def y_axis(self, scale, x, right, label, tick_text, most=6):
        """An axis along the left, with lines to `right`; its label stands on top of it."""
        for value in scale.ticks(most):
            self.line(x, scale(value), right, scale(value))
            self.text(x - 6, scale(value) + 4, tick_text(value), "end", "tick")
        self.text(0, 12, label, "start", "axis")


def _short(value):
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def shortened(words, room):
    """Text cut to a width in units, with an ellipsis where something is missing.

    Not at its end: names that begin alike, as of numbered classes, must stay apart.
    """
    words, most = str(words), max(2, int(room / CHARACTER))
    if len(words) <= most:
        return words
    end = (most - 1) // 3
    return words[: most - 1 - end] + "…" + words[len(words) - end :]


def width_of(words):
    """About how wide a text is, in units."""
    return len(str(words)) * CHARACTER
