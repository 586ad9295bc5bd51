"""What is mistaken for what, more often or less than without the teacher."""

from keras_kd.report import numbers
from keras_kd.report.markup import element
from keras_kd.report.plots.canvas import WIDTH, Canvas, shortened, width_of

# More classes than that leave no room for their names.
MOST_CLASSES = 20
_WITH_NUMBERS = 12


def draw(change):
    """The picture, an SVG element.

    Args:
        change: Of `classes.confusion_change`, of at most `MOST_CLASSES` classes.
    """
    labels, difference = change["labels"], change["difference"]
    names = min(84.0, max(width_of(label) for label in labels)) + 6
    rotated = max(width_of(label) for label in labels) > (WIDTH - names) / len(labels)
    top = (names if rotated else 18) + 18
    cell = (WIDTH - names - 2) / len(labels)
    canvas = Canvas(
        top + cell * len(labels) + 4, "Confusion, distilled minus labels only", told(change)
    )
    canvas.text(names, 12, "predicted", "start", "axis")
    canvas.text(0, top - 4 if not rotated else 12, "true", "start", "axis")
    most = max(float(abs(difference).max()), 1e-9)
    for i, label in enumerate(labels):
        middle = (i + 0.5) * cell
        canvas.text(names - 5, top + middle + 4, shortened(label, names - 6), "end", "tick")
        _column(canvas, names + middle, top - 6, label, rotated, names)
        for j in range(len(labels)):
            at = names + j * cell, top + i * cell
            _cell(
                canvas, *at, cell, difference[i, j], most, i == j, (label, labels[j]), len(labels)
            )
    return canvas.svg


def _column(canvas, x, y, label, rotated, room):
    if rotated:
        turn = f"rotate(-90 {x + 4:.1f} {y:.1f})"
        canvas.text(x + 4, y, shortened(label, room - 6), "start", "tick", transform=turn)
    else:
        canvas.text(x, y, str(label), "middle", "tick")


def _cell(canvas, x, y, size, value, most, is_diagonal, labels, count):
    better = (value > 0) == is_diagonal
    class_ = "cell" if value == 0 else f"cell {'better' if better else 'worse'}"
    strength = f"{0.12 + 0.55 * abs(value) / most:.2f}" if value else None
    words = f"{labels[0]} taken for {labels[1]}: {_number(value)} rows"
    box = {"x": x + 0.5, "y": y + 0.5, "width": size - 1, "height": size - 1}
    canvas.add("rect", element("title", words), **box, class_=class_, fill_opacity=strength)
    if abs(value) >= 0.5 and count <= _WITH_NUMBERS:
        canvas.text(
            x + size / 2, y + size / 2 + 4, numbers.fixed(float(value), 0, "+"), "middle", "count"
        )


def _number(value):
    return numbers.fixed(float(value), 0 if value == round(value) else 1, "+")


def told(change, most=5):
    """The largest changes in words."""
    labels, difference = change["labels"], change["difference"]
    pairs = [
        (float(difference[i, j]), one, other)
        for i, one in enumerate(labels)
        for j, other in enumerate(labels)
        if i != j and difference[i, j] != 0
    ]
    if not pairs:
        return "No difference."
    pairs.sort(key=lambda pair: -abs(pair[0]))
    listed = [f"{one} taken for {other} {_number(value)}" for value, one, other in pairs[:most]]
    return f"Largest changes, in rows: {', '.join(listed)}."
