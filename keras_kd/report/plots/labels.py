"""Places the names of points so that they do not cover each other or the points."""

import dataclasses

from keras_kd.report.plots.canvas import FONT, width_of

_GAP = 9.0


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other):
        """By how much two rectangles overlap, as an area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame):
        """How far it reaches beyond another rectangle."""
        return (
            max(frame.left - self.left, 0.0)
            + max(self.right - frame.right, 0.0)
            + max(frame.top - self.top, 0.0)
            + max(self.bottom - frame.bottom, 0.0)
        )


def place(points, frame):
    """Where the names of points are written.

    Args:
        points: A list of `(x, y, words)`.
        frame: A `Box` that all names must lie in.

    Returns:
        A list of `(x, y, anchor)`, `y` the base line.
    """
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    placed = []
    for i, (x, y, words) in enumerate(points):
        others = taken[:i] + taken[i + 1 :]
        options = [_option(x, y, words, *place) for place in _PLACES]
        # Python's min keeps the first of equals: to the right, then to the left, and so on.
        best = min(options, key=lambda option: _cost(option[0], others, frame))
        taken.append(best[0])
        placed.append(best[1])
    return placed


# Anchor, steps to the side and lines down.
_PLACES = tuple(
    (anchor, side * _GAP, down)
    for down in (0.0, -0.9, 0.9, -1.8, 1.8, -2.7, 2.7)
    for anchor, side in (("start", 1), ("end", -1), ("middle", 0))
    if anchor != "middle" or abs(down) > 1
)


def _option(x, y, words, anchor, aside, down):
    width = width_of(words)
    at, middle = x + aside, y + down * FONT
    left = {"start": at, "end": at - width, "middle": at - width / 2}[anchor]
    box = Box(left, middle - 0.55 * FONT, left + width, middle + 0.55 * FONT)
    return box, (at, middle + 0.35 * FONT, anchor)


def _cost(box, others, frame):
    return 100 * box.outside(frame) + sum(box.meets(other) for other in others)
