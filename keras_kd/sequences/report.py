"""`SequenceReport`: the models of a sequence and how good each has become."""

import dataclasses


@dataclasses.dataclass(repr=False)
class SequenceReport:
    """What a sequence of trainings gave.

    Attributes:
        students: The trained models, in their order.
        histories: What `fit` gave for each of them, a list of dicts.
        rows: A dict for each model: its name, teacher and number of parameters, its results on the
            validation data, `gain`, and what else was measured.
    """

    students: list
    histories: list
    rows: list

    def table(self):
        """The rows as plain text."""
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])

    def markdown(self):
        """The rows as a table of Markdown."""
        head, *lines = [f"| {' | '.join(line)} |" for line in self._cells()]
        return "\n".join([head, "|" + "---|" * len(self._keys()), *lines])

    def _keys(self):
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def _cells(self):
        keys = self._keys()
        head = [key.replace("_", " ") for key in keys]
        return [head, *([_text(row.get(key)) for key in keys] for row in self.rows)]

    def __repr__(self):
        return str(self)

    def __str__(self):
        return self.table()

    def _repr_markdown_(self):
        return self.markdown()


def gain(results, before):
    """By how much a model is better than another one: in accuracy, or in loss without one.

    Args:
        results: Of the model, `{name: number}`.
        before: Of the other one.
    """
    key = next((key for key in results if "accuracy" in key), "loss")
    if key not in results or key not in before:
        return None
    difference = float(results[key]) - float(before[key])
    return -difference if key == "loss" else difference


def _text(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
