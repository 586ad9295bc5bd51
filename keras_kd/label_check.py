"""`LabelCheck`: does the data of a fit have the labels that `alpha` asks for?"""

import contextlib

from keras_kd import fit_arguments, unlabelled
from keras_kd.live import traced_value


class LabelCheck:
    """Mixin of the distillers: looks at the data before each `fit`.

    A step looks at its data only while it is traced, and is not traced again for data of the same
    kind; by then `alpha` may be another.
    """

    # Of the running fit; `None`: not known.
    _has_labels = None

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`.

        Raises:
            ValueError: The data has no labels although `alpha` is not 0.
        """
        given = fit_arguments.bound(args, kwargs)
        if not self._steps_are_own():
            return super().fit(**given)
        x, y = given.get("x"), given.get("y")
        if unlabelled.is_generator(x):
            has_labels, given["x"] = unlabelled.peeked(x)
        else:
            given["x"] = x = unlabelled.peekable(x)
            has_labels = unlabelled.are_there_labels(x, y)
        with self._training_on(has_labels):
            return super().fit(**given)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """As `keras.Model.train_on_batch`.

        Raises:
            ValueError: There are no labels although `alpha` is not 0.
        """
        has_labels = y is not None if self._steps_are_own() else None
        with self._training_on(has_labels):
            return super().train_on_batch(x, y, *args, **kwargs)

    def _steps_are_own(self):
        """Whether no subclass has a step that might make labels itself."""
        return type(self).train_step.__module__.startswith("keras_kd.")

    @contextlib.contextmanager
    def _training_on(self, has_labels):
        try:
            if has_labels is False:
                self._check_labels(None)
            elif unlabelled.has_unbuilt_metrics([self, *getattr(self, "learners", [])]):
                self.train_function = None
            self._has_labels = has_labels
            yield
        finally:
            self._has_labels = None

    def _needs_labels(self):
        """Whether a hard loss that counts needs labels."""
        return True

    def _check_labels(self, y):
        """Raises if there are no labels that `alpha` asks for."""
        self._has_labels = y is not None
        alpha = traced_value(self.alpha_variable)
        if y is None and alpha != 0 and self._needs_labels():
            raise ValueError(
                f"The training data has no labels, but alpha={alpha} gives the hard loss a "
                "factor. Pass (inputs, labels), or set alpha=0 to learn from the teacher alone."
            )
