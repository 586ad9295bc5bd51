"""`fit` before its first step: arguments, labels, batch sizes, attached losses, prefetch."""

import contextlib
import inspect
import re
import types

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd._utils.batches import PeekedBatches
from keras_kd.teachers import prefetch
from keras_kd.teachers.cache.format import CacheError
from keras_kd.teachers.prefetch import Waiting
from keras_kd.training import arguments
from keras_kd.training.hyperparameters import traced_value

# What was passed to `fit`, by position or by name.


def bound(args, kwargs):
    """The arguments of a call of `keras.Model.fit` by name, those that were left out left out.

    Raises:
        ValueError: There are sample weights, which Keras would drop for want of labels.
    """
    arguments = named(keras.Model.fit, args, kwargs)
    if arguments.get("sample_weight") is not None and arguments.get("y") is None:
        raise ValueError(
            "`sample_weight` without `y`: Keras would leave the weights out without a word. Pass "
            "labels too (with alpha=0 they do not count), or a dataset of (x, y, weights)."
        )
    return arguments


def named(method, args, kwargs):
    """The arguments of a call of a method of `keras.Model` by name."""
    found = inspect.signature(method).bind(None, *args, **kwargs).arguments
    more = found.pop("kwargs", {})
    return {name: value for name, value in {**found, **more}.items() if name != "self"}


def join(arguments, more):
    """Adds callbacks to those of a `fit`, behind the user's.

    Args:
        arguments: Of `fit` by name; changed.
        more: A list of callbacks.
    """
    given = arguments.get("callbacks")
    if isinstance(given, keras.callbacks.CallbackList):
        given.callbacks.extend(more)
    elif more:
        arguments["callbacks"] = [*callback_list(arguments), *more]


def callback_list(arguments):
    """The callbacks among the arguments of `fit`, a list."""
    given = arguments.get("callbacks") or []
    given = getattr(given, "callbacks", given)  # those of a CallbackList
    return [given] if isinstance(given, keras.callbacks.Callback) else list(given)


# Data without labels: found out before a `fit`, and what is reported of it.


def are_there_labels(x, y):
    """Whether the data of a `fit` has labels; `None`: only its batches tell.

    Args:
        x: As of `keras.Model.fit`; of a generator see `peeked`.
        y: Likewise.
    """
    if y is not None:
        return True
    if isinstance(getattr(x, "element_spec", None), (tuple, list, dict, tf.TypeSpec)):
        return _in_batch(x.element_spec)
    if isinstance(x, PeekedBatches):
        return _in_batch(x.first)
    if isinstance(x, keras.utils.PyDataset):
        return _in_batch(x[0]) if x.num_batches != 0 else None
    return False if prefetch.is_arrays(x) else None


def peeked(generator):
    """`(are_there_labels, the same generator)`; its first batch is looked at."""
    batch = next(generator, None)
    return None if batch is None else _in_batch(batch), _whole(batch, generator)


def peekable(x):
    """Data of a `fit` whose first batch may be looked at; a `PyDataset` draws it once."""
    is_batches = isinstance(x, keras.utils.PyDataset) and x.num_batches != 0
    return PeekedBatches(x) if is_batches else x


def is_generator(x):
    """Whether Keras takes it for one."""
    return isinstance(x, types.GeneratorType)


def _whole(batch, generator):
    if batch is not None:
        yield batch
    # Not `yield from`, which would close the user's generator with this one.
    for each in generator:  # noqa: UP028
        yield each


def _in_batch(batch):
    return keras.utils.unpack_x_y_sample_weight(batch)[1] is not None


def has_unbuilt_metrics(models):
    """Whether metrics will make variables when they first see labels.

    A function that was traced without labels cannot be traced again then: TensorFlow makes
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


# `LabelCheck`: does the data of a fit have the labels that `alpha` asks for?


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
        given = bound(args, kwargs)
        if not self._steps_are_own():
            return super().fit(**given)
        x, y = given.get("x"), given.get("y")
        if is_generator(x):
            has_labels, given["x"] = peeked(x)
        else:
            given["x"] = x = peekable(x)
            has_labels = are_there_labels(x, y)
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
            elif has_unbuilt_metrics([self, *getattr(self, "learners", [])]):
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


# Batches that are too small for a loss between rows, which would be 0 without a word.


def check(losses, rows):
    """Raises if batches of `rows` rows on each replica are too small for one of the losses."""
    for loss in losses:
        if rows < loss.min_batch_size:
            raise _too_small(loss, f"batches of {rows}")


def rows_of(data, batch_size):
    """How many rows the largest batches have; `None` where the data does not say it."""
    spec = getattr(data, "element_spec", None)
    first = keras.tree.flatten(data if spec is None else spec)[0]
    shape = getattr(first, "shape", None)
    if shape is None or len(shape) == 0:
        return batch_size
    return shape[0] if spec is not None else min(shape[0], batch_size or 32)


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


# Hints that join a distiller after it was made.


class Attachment:
    """Mixin of the distiller: `attach`, and `fit` that lets its callbacks use it."""

    def attach(self, loss):
        """Adds a distillation loss to this distiller.

        Its projector is trained by the compiled optimizer, which knows its variables from the
        moment it is built, at the first `fit` after `compile`: a loss that owns weights must be
        attached before that. The training step is traced anew.

        Args:
            loss: A `keras_kd.losses.DistillationLoss`, or a loss object of `keras.distillation`.

        Raises:
            ValueError: It is no such loss; or it does not fit the models; or it owns weights, and
                the optimizer is built; or a compiled metric is called as it is.
        """
        with self.student.distribute_strategy.scope():
            loss = arguments.as_loss(loss)
            self.loss_list.add(loss)
        try:
            self._listen()
            loss.validate(self.teacher, self.student)
            self._check_metric_names(self._metrics_given.value)
            self._build_attached(loss)
        except Exception:
            self.loss_list.remove_last()
            self._listen()
            raise
        self.train_function = self.test_function = self._other_test_function = None
        if self.compiled:
            self._fuse()

    def _build_attached(self, loss):
        self._rehearsed, self._has_unbuilt_loss = False, True  # until the next step
        if models.input_specs(self.student) is not None:
            with self.student.distribute_strategy.scope():
                self._rehearse_made_up()
        has_weights = bool(loss.trainable_variables) or self._has_unbuilt_loss
        if self.compiled and self.optimizer.built and has_weights:
            raise ValueError(
                f"Distillation loss {loss.name!r} has weights of its own (a projector), which the "
                "optimizer cannot take over once it is built, by an earlier fit or by loading. "
                "Compile the distiller again before this fit, or give the loss to the Distiller "
                "from the start (its weight may be 0), or use projector=None."
            )

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`.

        Raises:
            ValueError: `alpha` and `beta` are 0, and no callback changes them; batches are too
                small for a loss between rows.
        """
        given = bound(args, kwargs)
        callbacks = callback_list(given)
        own = [each for each in callbacks if hasattr(each, "prepare")]
        if self.alpha == self.beta == 0 and not own:
            raise ValueError(
                "alpha and beta are both 0: the student has nothing to learn from. Set one of "
                "them, such as distiller.alpha = 1.0 to learn from the labels, or pass a schedule."
            )
        for callback in own:
            callback.prepare(self, callbacks)
        validates = bool(given.get("validation_split")) or given.get("validation_data") is not None
        for callback in own:
            if hasattr(callback, "check_data"):
                callback.check_data(validates, callbacks)
        watch = self._watch_batches(given.get("x"), given.get("batch_size"))
        join(given, watch)
        self._build_optimizer()
        return super().fit(**given)

    def _watch_batches(self, x, batch_size):
        """Refuses batches that are too small, or returns callbacks that do where they are seen."""
        rows = rows_of(x, batch_size)
        losses = self.distillation_losses
        if rows is not None:
            check(losses, rows // self.distribute_strategy.num_replicas_in_sync)
            return []
        loss = max(losses, key=lambda loss: loss.min_batch_size)
        seen = self._total_tracker.count
        return [Watch(loss, seen)] if loss.min_batch_size > 1 else []

    def _build_optimizer(self):
        """Before a file or a first step needs the optimizer's variables."""
        ready = self.compiled and self.built and self.optimizer is not None
        if ready and not self.optimizer.built and not self._has_unbuilt_loss:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


# `AskingAhead`: data whose batches carry what a teacher of another runtime says.


class AskingAhead:
    """Mixin of the distiller: `fit` and `evaluate` prepare the data of teachers on the host."""

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`."""
        with _plainly_told():
            return self._fit_ahead(*args, **kwargs)

    def _fit_ahead(self, *args, **kwargs):
        if not self._source.value.runs_on_host:
            return super().fit(*args, **kwargs)
        given = named(keras.Model.fit, args, kwargs)
        given.update(_split(given))
        waiting = Waiting()
        given.update(self._asked_ahead(given, given.get("shuffle", True), waiting.delivered))
        if isinstance(given["x"], tf.data.Dataset):
            given["shuffle"] = False  # it is, or was meant not to be
            join(given, [waiting])
        if self._runs_teacher_in_evaluate() and given.get("validation_data") is not None:
            given["validation_data"] = self._asked_validation(given)
        return super().fit(**given)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`."""
        with _plainly_told():
            return self._evaluate_ahead(*args, **kwargs)

    def _evaluate_ahead(self, *args, **kwargs):
        if not (self._source.value.runs_on_host and self._runs_teacher_in_evaluate()):
            return super().evaluate(*args, **kwargs)
        given = named(keras.Model.evaluate, args, kwargs)
        given.update(self._asked_ahead(given, shuffle=False))
        return super().evaluate(**given)

    def _asked_ahead(self, given, shuffle, delivered=None):
        x = given.get("x")
        if not prefetch.is_arrays(x):
            return {"x": prefetch.with_teacher(self, x, delivered)}
        data = prefetch.dataset_of(
            x, given.get("y"), given.get("sample_weight"), given.get("batch_size"), shuffle
        )
        asked = prefetch.with_teacher(self, data, delivered)
        return {"x": asked, "y": None, "sample_weight": None, "batch_size": None}

    def _asked_validation(self, given):
        data = given["validation_data"]
        if not isinstance(data, (list, tuple)):
            return prefetch.with_teacher(self, data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
        size = given.get("validation_batch_size") or given.get("batch_size")
        return prefetch.with_teacher(self, prefetch.dataset_of(x, y, weight, size, shuffle=False))


@contextlib.contextmanager
def _plainly_told():
    """What the data pipeline found wrong with a cache, without TensorFlow's words around it."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"keras_kd: ([^\n]*?)(\] *\[|\]?\n|\]?$)", error.message)
        if found is None:
            raise
        raise CacheError(found.group(1)[:1].upper() + found.group(1)[1:]) from error


def _split(given):
    """Takes the last part of the arrays for validation, as Keras does with `validation_split`."""
    share = given.pop("validation_split", 0.0)
    if not share:
        return {}
    if not prefetch.is_arrays(given.get("x")) or not 0 < share < 1:
        raise ValueError(
            "`validation_split` needs data in arrays, and a number between 0 and 1. Received: "
            f"validation_split={share!r}, x of type {type(given.get('x')).__name__}. Pass "
            "`validation_data`."
        )
    names = ("x", "y", "sample_weight")
    parts = {name: given[name] for name in names if given.get(name) is not None}
    rows = len(keras.tree.flatten(parts["x"])[0])
    at = int(rows * (1.0 - share))
    first = {name: keras.tree.map_structure(lambda v: v[:at], v) for name, v in parts.items()}
    last = {name: keras.tree.map_structure(lambda v: v[at:], v) for name, v in parts.items()}
    return {**first, "validation_data": tuple(last.values())}
