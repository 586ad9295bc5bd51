"""Right and wrong answers, class by class."""

import numpy as np

from keras_kd.diagnosis import binomial

# Up to so many classes the matrix is kept: 32 MiB.
MATRIX_CLASSES = 2048


class Confusion:
    """Weighted counts of labels and predictions.

    Args:
        classes: Number of classes.
        with_matrix: Whether to keep who is taken for whom.

    Attributes:
        rows: Weight of the rows of each class, `[classes]`.
        right: Weight of those that were told right.
        matrix: `[label, predicted]`, or `None`: not asked for, or more than 2048 classes.
    """

    def __init__(self, classes, with_matrix=False):
        self.classes = classes
        self.rows, self.squares, self.right = np.zeros((3, classes))
        kept = with_matrix and classes <= MATRIX_CLASSES
        self.matrix = np.zeros((classes, classes)) if kept else None

    def add(self, labels, predicted, weights):
        """Takes rows in: labels below `classes`, predictions, weights, each `[rows]`."""
        np.add.at(self.rows, labels, weights)
        np.add.at(self.squares, labels, weights**2)
        np.add.at(self.right, labels, weights * (labels == predicted))
        if self.matrix is not None:
            np.add.at(self.matrix, (labels, predicted), weights)

    @property
    def accuracy(self):
        """Weighted share of right answers."""
        return float(self.right.sum() / self.rows.sum())

    @property
    def effective_rows(self):
        """As how many rows of one weight all of them count."""
        return float(binomial.effective(self.rows.sum(), self.squares.sum()))

    @property
    def class_rows(self):
        """The same for each class, `[classes]`."""
        return binomial.effective(self.rows, self.squares)

    @property
    def recall(self):
        """Share of right answers for each class, NaN where it has no rows."""
        return np.where(self.rows > 0, self.right / np.where(self.rows > 0, self.rows, 1), np.nan)

    @property
    def counts(self):
        """`(right answers, rows, classes)`, in whole rows of one weight."""
        rows = round(self.effective_rows)
        return round(self.accuracy * rows), rows, self.classes
