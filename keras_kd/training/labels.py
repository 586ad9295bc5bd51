"""Labels: whether the data of a `fit` or an evaluation has them, and who needs them.

A step looks at its data only while it is traced, and is not retraced for data of the same kind; by
then `alpha` may be another. So the data is looked at before each `fit`.
"""

import contextlib
from typing import Any

from keras_kd.training.hyperparameters import traced_value


class FitLabels:
    """Whether the data of the running `fit` has labels.

    Args:
        model: The `DistillationModel`.

    Attributes:
        present: `None`: not known, or no `fit` runs.
    """

    def __init__(self, model: Any):
        self._model = model
        self.present: bool | None = None

    @contextlib.contextmanager
    def during_fit(self, present: bool | None):
        """While it is open `fit` runs on such data.

        Raises:
            ValueError: There are no labels although `alpha` is not 0.
        """
        try:
            if present is False:
                self.require(None)
            elif has_unbuilt_metrics(self._model.with_metrics()):
                self._model.train_function = None
            self.present = present
            yield
        finally:
            self.present = None

    def require(self, y: Any) -> None:
        """Raises if there are no labels that `alpha` needs."""
        self.present = y is not None
        alpha = traced_value(self._model.alpha_variable)
        if y is None and alpha != 0 and self._model.needs_labels():
            raise ValueError(
                f"The training data has no labels, but alpha={alpha} gives the hard loss a "
                "factor. Pass (inputs, labels), or set alpha=0 to learn from the teacher alone."
            )


def has_unbuilt_metrics(models):
    """Whether metrics will make variables when they first see labels.

    A function that was traced without labels cannot be retraced then: TensorFlow makes
    variables in its first tracing only.
    """
    metrics = [metric for model in models for metric in model.metrics]
    return any(metric.name == "compile_metrics" and not metric.built for metric in metrics)


def results(model):
    """The results of a model's metrics but those of labels, which have seen none.

    Keras keeps what was given to `compile` in one metric, `compile_metrics`, which raises until it
    has seen labels, and then would report a 0.
    """
    found = {}
    for metric in model.metrics:
        if metric.name != "compile_metrics":
            result = metric.result()
            found.update(result if isinstance(result, dict) else {metric.name: result})
    return found
