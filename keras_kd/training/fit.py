"""`fit` before its first step: what is prepared, and in which order."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_kd._utils import batches
from keras_kd.training import first_batch, prefetch
from keras_kd.training.hyperparameters import traced_value


@dataclasses.dataclass
class FitCall:
    """One call of `fit`.

    Attributes:
        arguments: By name; those that were left out are left out.
        session: Contexts that stay open while `fit` runs.
        at_end: Functions of the history, called when `fit` has ended well.
    """

    arguments: dict[str, Any]
    session: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    at_end: list[Callable[[keras.callbacks.History], None]] = dataclasses.field(
        default_factory=list
    )

    @classmethod
    def bind(cls, args: tuple, kwargs: dict) -> "FitCall":
        """A call with the arguments as they were passed, by position or by name."""
        return cls(bind_arguments(keras.Model.fit, args, kwargs))

    def __enter__(self) -> "FitCall":
        self.session.__enter__()
        return self

    def __exit__(self, *error) -> bool | None:
        return self.session.__exit__(*error)

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks of the call."""
        return callback_list(self.arguments)

    def add_callbacks(self, more: list[keras.callbacks.Callback]) -> None:
        """Adds callbacks behind the user's."""
        given = self.arguments.get("callbacks")
        if isinstance(given, keras.callbacks.CallbackList):
            given.callbacks.extend(more)
        elif more:
            self.arguments["callbacks"] = [*self.callbacks, *more]


def bind_arguments(method: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call of a method of `keras.Model`, by name."""
    found = inspect.signature(method).bind(None, *args, **kwargs).arguments
    more = found.pop("kwargs", {})
    return {name: value for name, value in {**found, **more}.items() if name != "self"}


def bind_checked(args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call of `fit`, by name.

    Raises:
        ValueError: There are sample weights, which Keras would drop for want of labels.
    """
    call = FitCall.bind(args, kwargs)
    require_labels_of_weights(None, call)
    return call.arguments


def callback_list(arguments: dict[str, Any]) -> list[keras.callbacks.Callback]:
    """The callbacks among the arguments of `fit`."""
    given = arguments.get("callbacks") or []
    given = getattr(given, "callbacks", given)  # those of a CallbackList
    return [given] if isinstance(given, keras.callbacks.Callback) else list(given)


# The steps of a preparation. Each takes the model and the call, and may change the arguments, open
# a context for the length of the fit, or raise before anything is traced.


def require_teacher(distiller, call: FitCall) -> None:
    """A teacher that was not saved must have been given back."""
    del call
    distiller.source.check_can_teach()


def track_progress(model, call: FitCall) -> None:
    """The weights know their epoch and batch, for `keras.callbacks.BackupAndRestore`."""
    call.session.enter_context(model.fit_progress.of_fit(call.arguments))


def require_labels_of_weights(model, call: FitCall) -> None:
    """Keras would drop sample weights for want of labels."""
    del model
    given = call.arguments
    if given.get("sample_weight") is not None and given.get("y") is None:
        raise ValueError(
            "`sample_weight` without `y`: Keras would silently leave the weights out. Pass "
            "labels too (with alpha=0 they do not count), or a dataset of (x, y, weights)."
        )


def attach_callback_losses(distiller, call: FitCall) -> None:
    """Callbacks attach their losses, whose weights the optimizer must know when it is built."""
    callbacks = call.callbacks
    own = [each for each in callbacks if hasattr(each, "prepare")]
    steering = [each for each in own if not getattr(each, "only_watches", False)]
    if distiller.alpha == distiller.beta == 0 and not steering:
        raise ValueError(
            "alpha and beta are both 0: the student has nothing to learn from. Set one of "
            "them, such as distiller.alpha = 1.0 to learn from the labels, or pass a schedule."
        )
    for callback in own:
        callback.prepare(distiller, callbacks)
    for callback in callbacks:
        if hasattr(callback, "during_fit"):
            call.session.enter_context(callback.during_fit(distiller))
    given = call.arguments
    validates = bool(given.get("validation_split")) or given.get("validation_data") is not None
    for callback in own:
        if hasattr(callback, "check_data"):
            callback.check_data(validates, callbacks)


def require_batch_size(distiller, call: FitCall) -> None:
    """Relational losses compare samples of one batch; where it is not known it is watched."""
    rows = batches.batch_rows(call.arguments.get("x"), call.arguments.get("batch_size"))
    losses = distiller.distillation_losses
    if rows is not None:
        check_batch_size(losses, rows // distiller.distribute_strategy.num_replicas_in_sync)
        return
    loss = max(losses, key=lambda each: each.min_batch_size)
    if loss.min_batch_size > 1:
        call.add_callbacks([Watch(loss, distiller.total_metric.count)])


def build_optimizer(distiller, call: FitCall) -> None:
    """Its variables are made outside of any traced function."""
    del call
    distiller.build_optimizer()


def require_labels(model, call: FitCall) -> None:
    """`alpha` above 0 needs labels, now and when it is raised during the fit."""
    if not model.steps_are_own:
        return
    given = call.arguments
    first, given["x"] = batches.peek(given.get("x"))
    present = batches.has_labels(given["x"], given.get("y"), first)
    call.session.enter_context(model.fit_labels.during_fit(present))


def require_validation_labels(distiller, call: FitCall) -> None:
    """Without the teacher a validation has no other loss than that of labels."""
    evaluation = distiller.evaluation
    call.session.enter_context(evaluation.as_keras_validates())
    evaluation.require_validation_labels(call.arguments.get("validation_data"))


def require_samples(distiller, call: FitCall) -> None:
    """An empty dataset is an error, not a loss of 0."""
    distiller.evaluation.rows_of_fit = None

    def check(history):
        rows = distiller.evaluation.rows_of_fit  # validation has counted its own since
        rows = traced_value(distiller.total_metric.count) if rows is None else rows
        if history.epoch and rows == 0:
            raise ValueError(
                "The training data is empty: no batch came out of it. Check filters and "
                "steps_per_epoch; a generator is used up after one pass."
            )

    call.at_end.append(check)


def prefetch_teacher(distiller, call: FitCall) -> None:
    """Teachers outside of TensorFlow run in the input pipeline, ahead of the step."""
    call.session.enter_context(prefetch.data_errors(distiller.source))
    if distiller.source.runs_on_host:
        prefetch.prepare_fit(distiller, call)


def inspect_first_batch(distiller, call: FitCall) -> None:
    """Warns of softmax outputs, another order of classes, a teacher that guesses."""
    if first_batch.is_wanted(distiller):
        look = first_batch.Look(distiller)
        call.arguments["x"] = look.watched(call.arguments)
        call.add_callbacks([look])
        distiller.checks_first_batch = False


#: What `Distiller.fit` does before the first step, in this order.
PREPARATION = (
    require_teacher,
    track_progress,
    require_labels_of_weights,
    attach_callback_losses,
    require_batch_size,
    build_optimizer,
    require_labels,
    require_validation_labels,
    require_samples,
    prefetch_teacher,
    inspect_first_batch,
)


# Batches that are too small for a loss between samples, which would silently be 0.


def check_batch_size(losses, rows):
    """Raises if batches of `rows` rows on each replica are too small for one of the losses."""
    for loss in losses:
        if rows < loss.min_batch_size:
            raise _too_small(loss, f"batches of {rows}")


class Watch(keras.callbacks.Callback):
    """Raises after the first epoch if no batch of it was large enough.

    Args:
        loss: The loss that needs most rows.
        rows: A variable: the rows of the epoch so far.
    """

    def __init__(self, loss, rows):
        super().__init__()
        self._loss, self._rows = loss, rows
        self._before = self._largest = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._before = 0

    def on_train_batch_end(self, batch, logs=None):
        if self._largest < self._loss.min_batch_size:  # usually for the first batch only
            rows = int(traced_value(self._rows))
            self._largest = max(self._largest, rows - self._before)
            self._before = rows

    def on_epoch_end(self, epoch, logs=None):
        if self._largest < self._loss.min_batch_size:
            raise _too_small(self._loss, f"an epoch whose largest batch has {self._largest}")


def _too_small(loss, received):
    return ValueError(
        f"Distillation loss {loss.name!r} compares the rows of a batch and needs at least "
        f"{loss.min_batch_size} of them on each replica. Received: {received}. Use a larger "
        "batch_size."
    )
