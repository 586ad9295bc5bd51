"""What a distiller reports: metrics of `fit` and `evaluate`, their names, its losses."""

import contextlib
import weakref

import keras

from keras_kd import models
from keras_kd._utils import validation
from keras_kd.models import paths
from keras_kd.training import distribution, fit
from keras_kd.training.hyperparameters import traced_value

# What the distiller reports: the metrics of `fit`, and `evaluate` with or without the teacher.


class Reporting:
    """Mixin of the distiller: a mean of the hard loss and of each distillation loss, by rows.

    In `fit` all of them are shown beside `loss` and the compiled metrics. An evaluation is the
    student's own: its `loss` is the hard loss, and the teacher is not run unless asked for.
    """

    # Whether the student's own `compute_loss` gives the hard loss; the distiller finds out.
    student_computes_loss = False
    # Whether the steps compute the losses that are reported beside the total.
    _has_terms = True

    def _add_trackers(self):
        self._with_teacher, self._evaluating = None, False
        self._other_test_function = None
        self._evaluation_has_labels = None
        self._looked_at = (lambda: None), None
        self._metrics_given = models.Untracked(None)
        self._hard_tracker = keras.metrics.Mean(name="hard_loss")
        self._sum_tracker = None
        if self.uses_keras_names:
            self._sum_tracker = keras.metrics.Mean(name="distillation_loss")

    @property
    def _soft_trackers(self):
        return self.loss_list.trackers

    @property
    def _total_tracker(self):
        return next(metric for metric in self.metrics if metric.name == "loss")

    def _track(self, running, loss):
        """Updates the means of a step.

        Args:
            running: The `step.Running` of it.
            loss: What `compute_loss` gave, which a subclass may have overridden.
        """
        terms, rows, replicas_count = running.terms, running.rows, distribution.count()
        self._has_terms = terms is not None
        if terms is None:  # a subclass's `compute_loss` computes all of it
            self._total_tracker.update_state(replicas_count * loss, sample_weight=rows)
            return
        total = keras.ops.sum([terms.total, *running.regularisers])
        if loss is not running.loss:
            total += replicas_count * (loss - running.loss)
        self._total_tracker.update_state(total, sample_weight=rows)
        self._hard_tracker.update_state(terms.hard, sample_weight=rows)
        for soft_tracker, value in zip(self._soft_trackers, terms.soft, strict=False):
            soft_tracker.update_state(value, sample_weight=rows)
        if self._sum_tracker is not None and terms.soft:
            weights = [loss.weight_variable for loss in self.distillation_losses]
            pairs = zip(weights, terms.soft, strict=True)
            parts = [keras.ops.convert_to_tensor(weight) * value for weight, value in pairs]
            self._sum_tracker.update_state(keras.ops.sum(parts), sample_weight=rows)

    @property
    def metrics(self):
        """As `keras.Model.metrics`, with those that a student's own `compute_loss` may update.

        Keras leaves out the metrics of models inside of a model.
        """
        found = super().metrics
        if not self.student_computes_loss:
            return found
        known, made_by_keras = {id(each) for each in found}, ("loss", "compile_metrics")
        own = (each for each in self.student.metrics if each.name not in made_by_keras)
        return [*found, *(each for each in own if id(each) not in known)]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """As `keras.Model.compute_metrics`; without labels the compiled metrics see nothing."""
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _logs(self, x, y, y_pred, sample_weight):
        return self.per_worker(self.compute_metrics(x, y, y_pred, sample_weight=sample_weight))

    def _without_names_of_terms(self, logs):
        return {key: value for key, value in logs.items() if key not in self._names_of_terms()}

    def _names_of_terms(self):
        names = {tracker.name for tracker in (self._hard_tracker, *self._soft_trackers)}
        return {*names, *OF_KERAS} if self.uses_keras_names else names

    @property
    def evaluate_with_teacher(self):
        """Whether evaluations run the teacher; assigning holds for `fit`'s validation too.

        Where it was not assigned they do not. Only the validation of a `fit` does that was spelled
        as `keras.distillation`: its users monitor `val_total_loss`.
        """
        return bool(self._with_teacher)

    @evaluate_with_teacher.setter
    def evaluate_with_teacher(self, value):
        if bool(value) != self.evaluate_with_teacher:
            # Each way is traced once: the function of the other one is kept.
            other, self._other_test_function = self._other_test_function, self.test_function
            self.test_function = other
        self._with_teacher = bool(value)

    def _runs_teacher_in_evaluate(self):
        is_without_loss = self.loss is None and not self.student_computes_loss
        return self.evaluate_with_teacher or is_without_loss

    def _check_evaluation_labels(self, y):
        self._evaluation_has_labels = y is not None
        if y is None and not self._runs_teacher_in_evaluate() and self._needs_labels():
            raise ValueError(
                "The evaluation data has no labels, and without the teacher there is no other "
                "loss to report. Pass (inputs, labels), or compare with the teacher: "
                "evaluate(..., with_teacher=True), and for the validation data of fit set "
                "distiller.evaluate_with_teacher = True."
            )

    def _labels_of_evaluation(self, x, y):
        """`unlabelled.are_there_labels`, which looks at the same object in each epoch once."""
        looked_at, answer = self._looked_at
        if looked_at() is not x or x is None:
            answer = fit.are_there_labels(x, y)
            if isinstance(x, keras.utils.PyDataset):
                self._looked_at = weakref.ref(x), answer
        return answer

    def _check_validation_labels(self, data):
        if data is None or self._runs_teacher_in_evaluate() or not self._needs_labels():
            return
        x, y = (data, None) if not isinstance(data, (tuple, list)) else (*data[:2], None)[:2]
        if self._labels_of_evaluation(x, y) is False:
            self._check_evaluation_labels(None)

    def get_metrics_result(self):
        has_labels = self._evaluation_has_labels if self._evaluating else self._has_labels
        is_blind = has_labels is False
        results = fit.results(self) if is_blind else super().get_metrics_result()
        # Here, not in a step's logs alone: where those have other keys Keras takes the logs of one
        # replica for the epoch's.
        if self.uses_keras_names:
            results = with_keras_names(results)
        if not self._has_terms:
            results = self._without_names_of_terms(results)
        return self._without_teacher(results) if self._evaluating else results

    def _without_teacher(self, logs):
        """The logs of an evaluation, without losses that were not computed or are `loss` again."""
        if self._runs_teacher_in_evaluate():
            return logs
        return self._without_names_of_terms(logs)

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        self._other_test_function = None

    def _check_metric_names(self, metrics):
        """Before what has the names of losses is compiled, and when a loss joins later."""
        check(metrics, self._names_of_terms(), getattr(self, "output_names", None))
        self._metrics_given = models.Untracked(metrics)

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`.

        Raises:
            ValueError: The data is empty, or has no labels although `alpha` is not 0; or the
                validation data has none, and the teacher is not asked.
        """
        with self._validating_as_keras():
            data = fit.bound(args, kwargs).get("validation_data")
            self._check_validation_labels(data)
            self._rows_before_evaluate = None
            history = super().fit(*args, **kwargs)
        rows = self._rows_before_evaluate  # validation has counted its own rows since
        rows = traced_value(self._total_tracker.count) if rows is None else rows
        if history.epoch and rows == 0:
            raise ValueError(
                "The training data is empty: no batch came out of it. Check filters and "
                "steps_per_epoch; a generator is used up after one pass."
            )
        return history

    @contextlib.contextmanager
    def _validating_as_keras(self):
        """While it is open evaluations run the teacher, if `keras.distillation`'s would."""
        runs_alone = isinstance(self.teacher, keras.Model)  # its Distiller takes no other teacher
        if not (self.uses_keras_names and runs_alone and self._with_teacher is None):
            yield
            return
        self.evaluate_with_teacher = True
        try:
            yield
        finally:
            self.evaluate_with_teacher = False
            self._with_teacher = None

    def evaluate(self, *args, with_teacher=None, **kwargs):
        """As `keras.Model.evaluate`, of the student.

        Args:
            *args: As of `keras.Model.evaluate`.
            with_teacher: `True` runs the teacher as well: `loss` is then the training objective,
                and the distillation losses are reported. Default: `self.evaluate_with_teacher`,
                which also rules the validation of `fit` and is `False` at first. Where `compile`
                got no loss the teacher is run: there is no other loss to report.
            **kwargs: As of `keras.Model.evaluate`.

        Returns:
            As `keras.Model.evaluate`.

        Raises:
            ValueError: The data has no labels, and the teacher does not run.
        """
        before, assigned = self.evaluate_with_teacher, self._with_teacher
        self._rows_before_evaluate = traced_value(self._total_tracker.count)
        self._evaluating = True
        data = fit.named(keras.Model.evaluate, args, kwargs)
        self._evaluation_has_labels = self._labels_of_evaluation(data.get("x"), data.get("y"))
        self.evaluate_with_teacher = before if with_teacher is None else with_teacher
        is_blind = self._evaluation_has_labels is False
        if not is_blind and fit.has_unbuilt_metrics([self]):
            self.test_function = None
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False
            self.evaluate_with_teacher = before
            self._with_teacher = assigned


# `LossList`: the distillation losses of a distiller, with the metric that reports each.


class LossList(keras.layers.Layer):
    """A layer that only holds layers: Keras locks a built model, but hints may join it later.

    Args:
        losses: `DistillationLoss`es.
    """

    def __init__(self, losses):
        super().__init__(name="distillation_losses", dtype="float32", autocast=False)
        self.losses_in_order, self.trackers = [], []
        for loss in losses:
            self.add(loss)
        self.built = True

    def add(self, loss):
        """Adds a loss and its metric, named by it."""
        _warn_of_trained(loss)
        loss.has_distiller = True
        repeated = sum(other.name == loss.name for other in self.losses_in_order)
        name = f"{loss.name}_{repeated}" if repeated else loss.name
        self.losses_in_order.append(loss)
        self.trackers.append(keras.metrics.Mean(name=name))

    @property
    def by_name(self):
        """The losses by their names in the history, which are counted where losses share one."""
        names = (tracker.name for tracker in self.trackers)
        return dict(zip(names, self.losses_in_order, strict=True))

    def penalises_outputs(self):
        """Whether a layer of theirs, such as a projector, has an activity regulariser."""
        regularisers = (
            getattr(layer, "activity_regularizer", None) for _, _, layer in paths.walk(self)
        )
        return any(each is not None for each in regularisers)

    def remove_last(self):
        """Takes the last loss back."""
        self.losses_in_order.pop().has_distiller = False
        self.trackers.pop()

    def call(self, inputs):
        return inputs


def _warn_of_trained(loss):
    """A projector that another training has made is no fresh start: seeds would not be apart."""
    if loss.has_distiller and loss.trainable_variables:
        validation.warn(
            f"Distillation loss {loss.name!r} has weights of another distiller, and both will "
            "train them. For weights of its own make a new loss for each distiller: "
            "loss.from_config(loss.get_config())."
        )


# The history has one entry for each name, so a metric may not be called as a loss is.


# What `keras.distillation.Distiller` calls its losses, which its users monitor.
OF_KERAS = ("total_loss", "student_loss", "distillation_loss")


def uses_keras_names(losses, student_loss_weight):
    """Whether a distiller was spelled as `keras.distillation.Distiller` is.

    Args:
        losses: As its argument `distillation_losses`.
        student_loss_weight: As its argument of this name.
    """
    given = losses if isinstance(losses, (list, tuple)) else [losses]
    of_keras = any(isinstance(loss, keras.distillation.DistillationLoss) for loss in given)
    return of_keras or student_loss_weight is not None


def with_keras_names(logs):
    """Logs that have the losses by the names of `keras.distillation`, too, where they are known."""
    if "hard_loss" not in logs:
        return logs
    return {**logs, "total_loss": logs["loss"], "student_loss": logs["hard_loss"]}


def check(metrics, losses, output_names):
    """Refuses a metric that would take the place of a loss in the history.

    Args:
        metrics: What `compile` was given: metrics, functions or names, in any structure.
        losses: The names of the losses.
        output_names: The student's; of several, Keras puts them before the names of metrics.

    Raises:
        ValueError: Two would have one entry.
    """
    if output_names and len(output_names) > 1:
        return
    taken = sorted({_name(metric) for metric in keras.tree.flatten(metrics)} & {*losses, "loss"})
    if taken:
        raise ValueError(
            f"A metric is called {taken[0]!r}, and so is a loss of the distiller: the history has "
            "one entry for both. Give the metric another name, or the distillation loss one by its "
            "argument `name`."
        )


def _name(metric):
    if metric is None or isinstance(metric, str):
        return metric
    return getattr(metric, "name", getattr(metric, "__name__", None))
