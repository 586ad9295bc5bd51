"""`Distiller`: trains a student model from a teacher with `compile` and `fit`.

Longer than other files, because it is the face of all of this room: a docstring and a few lines for
each method that Keras calls or users do. The work is done by the collaborators that the constructor
makes; `step` shows how they meet.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_kd import models
from keras_kd.losses import TokenKD
from keras_kd.teachers import keras_model, protocol
from keras_kd.training import (
    arguments,
    distribution,
    fit,
    labels,
    metrics,
    prefetch,
    saving,
    step,
    summary,
)
from keras_kd.training.base import DistillationModel
from keras_kd.training.evaluation import Evaluation
from keras_kd.training.forward import ForwardPasses, Outputs
from keras_kd.training.metrics import LossList, LossMetrics
from keras_kd.training.objective import Objective
from keras_kd.training.shape_check import ShapeChecks
from keras_kd.training.token_loss import TokenMetrics
from keras_kd.weighting import Weighting


@keras.saving.register_keras_serializable(package="keras_kd")
class Distiller(DistillationModel):
    """Trains a student to match a teacher (and the labels).

    The loss of a batch is

    `alpha * hard + beta * sum_i weight_i * distillation_i` (+ the student's own regularizers)

    where `hard` is the loss given to `compile`, averaged over the batch as Keras does, and each
    distillation loss is averaged the same way. `sample_weight` and `class_weight` weight both.
    Teacher and student each run forward once a step; the teacher runs with `training=False` and is
    left as it was: weights, statistics and `trainable` flags. `evaluate`, `predict` and calling the
    distiller are the student's.

    A drop-in for `keras.distillation.Distiller`, whose loss objects are accepted.

    Args:
        teacher: A `keras.Model`; a `keras_kd.teachers.Teacher`, such as an ensemble or cached
            outputs; or any callable that maps a batch of inputs to outputs in TensorFlow
            operations.
        student: The `keras.Model` to train.
        distillation_losses: A `keras_kd.losses.DistillationLoss`; a list of them; for models with
            several outputs also a dict from output names to losses, or a list with `None` for the
            outputs to leave out. Default: `SoftTargets(temperature=4.0)`.
        distillation_loss_weights: Numbers, one for each loss, set as the losses' `weight`.
        student_loss_weight: Keras' spelling: `w` stands for `alpha=w, beta=1-w`.
        alpha: Factor of the hard loss, at least 0. Default 0.5. Live: assign `distiller.alpha`
            before or during `fit` and the next step uses it, without retracing.
        beta: Factor of the distillation losses, as `alpha`. While it is 0 the teacher does not
            run (but under XLA, with a `weighting`, beside a projector with an activity
            regularizer, and outside of TensorFlow).
        name: Name of the model.
        teacher_preprocess: A function applied to the inputs before the teacher sees them, where
            it expects another size or range.
        weighting: A `keras_kd.weighting.Weighting`: which rows learn more from the labels and
            which from the teacher.
        mask_input: Name of the student's input that is 0 where a position is padding, for models
            whose tensors carry no Keras mask (KerasHub's `"padding_mask"`): padded positions then
            count neither in the hard loss and the metrics nor in distillation losses of what has
            these positions. Default: what the losses on outputs name as theirs. Where the outputs
            have different padding (an encoder and a decoder): a dict from outputs to inputs.
        save_teacher: Whether files and checkpoints hold the teacher. `False`: they hold how to
            recognize it; what is loaded evaluates and predicts, and trains on once `set_teacher`
            has given the teacher back. A path: that of a `.keras` file of the teacher, from which
            it is loaded. How the teacher itself was compiled, and its optimizer, is never saved.

    The data may hold more inputs than the student reads: a dict of inputs reaches both models, and
    each takes those that it names.

    A subclass may override `compute_loss`, `compute_metrics` and the steps, as those of
    `keras.Model`. A student's own `compute_loss` stands for the hard loss and the student's
    regularizers; the `loss` given to `compile` is compiled into the student, for it to read.

    Raises:
        ValueError: An argument is wrong, or teacher and student do not fit each other.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss=loss, metrics=["accuracy"])
    history = distiller.fit(x, y, epochs=2, verbose=0)
    ```

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531
    """

    preparation = fit.PREPARATION

    #: Whether the first batch of the first `fit` is looked at, with a warning of what is wrong.
    checks_first_batch = True

    def __init__(
        self,
        teacher: keras.Model | protocol.Teacher | Callable[[Any], Any],
        student: keras.Model,
        distillation_losses: Any = None,
        distillation_loss_weights: Sequence[float] | float | None = None,
        student_loss_weight: float | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        name: str = "distiller",
        *,
        teacher_preprocess: Callable[[Any], Any] | None = None,
        weighting: Weighting | None = None,
        mask_input: str | dict[str, str] | None = None,
        save_teacher: bool | str | os.PathLike = True,
        **kwargs: Any,
    ):
        models.check_pair(teacher, student)
        arguments.check(student, "student", arguments.OF_STUDENT)
        source = keras_model.adapt(teacher)
        source.bind(student)
        save_teacher = saving.check_save_teacher(save_teacher, source)
        arguments.check_weighting(weighting)
        protocol.check_preprocess(teacher_preprocess, "teacher_preprocess")
        alpha, beta = arguments.mixture(alpha, beta, student_loss_weight)
        keras_names = metrics.uses_keras_names(distillation_losses, student_loss_weight)
        kwargs.setdefault("dtype", models.dtype_policy(student))
        super().__init__(name=name, **kwargs)
        self._teacher = models.Untracked(teacher)
        self.student = student
        self.teacher_preprocess, self.weighting = teacher_preprocess, weighting
        self.mask_input = arguments.mask_input(mask_input)
        self.save_teacher = save_teacher
        self.uses_keras_names = keras_names
        self.student_computes_loss = arguments.is_overridden(student, "compute_loss")
        self._student_supports_jit: bool = self.supports_jit
        self.supports_jit: bool = self._student_supports_jit and source.supports_jit
        self._teacher_shapes = models.Untracked({})
        self._compiled_metrics = models.Untracked(None)
        self._sequences = models.Untracked(None)
        self._loss_weights = models.Untracked(None)
        with student.distribute_strategy.scope():
            self.loss_list = LossList(
                arguments.loss_list(distillation_losses, distillation_loss_weights, student)
            )
            self.add_numbers(alpha, beta)
            self._hard_tracker = keras.metrics.Mean(name="hard_loss")
            self._sum_tracker = (
                keras.metrics.Mean(name="distillation_loss") if keras_names else None
            )
            self._token_metrics = TokenMetrics() if self.leaves_out_logits else None
        # Plain objects, which Keras neither tracks nor saves. A step calls them in this order.
        self.shape_checks = ShapeChecks(self)
        self.forward_passes = ForwardPasses(
            student, source, super().__call__, teacher_preprocess, self.mask_input
        )
        self.objective = Objective(self)
        self.loss_metrics = LossMetrics(
            self.loss_list, self._hard_tracker, self._sum_tracker, self._token_metrics
        )
        self.evaluation = Evaluation(self)
        self.forward_passes.record(self.distillation_losses)
        self._build_where_shapes_are_known()

    # Teacher, student and losses.

    @property
    def teacher(self) -> Any:
        """The teacher; tracked by nothing. `save_teacher` says whether it is saved."""
        return self._teacher.value

    @property
    def source(self) -> protocol.Teacher:
        """The `keras_kd.teachers.Teacher` that stands for the teacher in a step."""
        return self.forward_passes.source

    @property
    def teacher_shapes(self) -> dict[str, Any]:
        """What a shape check has seen of the teacher's outputs, for a file without it."""
        return self._teacher_shapes.value

    def keep_teacher_shapes(self, outputs: Outputs) -> None:
        """Keeps what a shape check has seen of the teacher."""
        self._teacher_shapes = models.Untracked(saving.shapes_of(outputs, self.source))

    def set_teacher(self, teacher: Any, check: bool = True) -> None:
        """Gives a distiller its teacher back, which was saved without (`save_teacher=False`).

        Args:
            teacher: See the constructor.
            check: Whether it must be the one that the distiller had: the same weights and
                configuration, whatever its layers are called. `False`: another one teaches on.

        Raises:
            ValueError: It is another one; or teacher and student do not fit each other; or the
                distiller has a teacher.
        """
        source = saving.returned_teacher(self, teacher, check)
        self._teacher = models.Untracked(teacher)
        self.supports_jit = self._student_supports_jit and source.supports_jit
        self.forward_passes.replace_teacher(source)
        self.shape_checks.reset()
        self._build_where_shapes_are_known()
        self._forget_functions()

    @property
    def distillation_losses(self) -> list:
        """The distillation losses; `attach` adds one."""
        return list(self.loss_list.losses_in_order)

    @property
    def leaves_out_logits(self) -> bool:
        """Whether the models run up to their hidden states: a `TokenKD` takes these."""
        return any(isinstance(loss, TokenKD) for loss in self.distillation_losses)

    @property
    def sequences(self) -> step.Sequences | None:
        """Who writes the sequences of a running `fit`, or `None`: they are those of the data."""
        return self._sequences.value

    def set_sequences(self, sequences: step.Sequences | None) -> None:
        """From the next step on sequences are written by another one, or are those of the data."""
        self._sequences = models.Untracked(sequences)
        self.train_function = None

    @property
    def distillation_loss_weights(self) -> list[float]:
        """The losses' weights, as `keras.distillation.Distiller` has them."""
        return [loss.weight for loss in self.distillation_losses]

    @property
    def student_loss_weight(self) -> float:
        """Another name of `alpha`, as `keras.distillation.Distiller` has it."""
        return self.alpha

    @property
    def losses_by_name(self) -> dict[str, Any]:
        """The distillation losses by their names in the history."""
        return self.loss_list.by_name

    def models_by_role(self):
        return {"teacher": self.teacher, "student": self.student}

    def attach(self, loss: Any) -> None:
        """Adds a distillation loss to this distiller.

        Its projector is trained by the compiled optimizer, which knows its variables from the
        moment it is built, at the first `fit` after `compile`: a loss that owns weights must be
        attached before that. The training step is retraced.

        Args:
            loss: A `keras_kd.losses.DistillationLoss`, or a loss object of `keras.distillation`.

        Raises:
            ValueError: It is not such a loss, or a `TokenKD`; or it does not fit the models; or it
                owns weights and the optimizer is built; or a compiled metric has its name.
        """
        with self.student.distribute_strategy.scope():
            loss = arguments.as_loss(loss)
            arguments.check_attached(loss)
            self.loss_list.add(loss)
        try:
            self.forward_passes.record(self.distillation_losses)
            loss.validate(self.teacher, self.student)
            self._check_metric_names(self._compiled_metrics.value)
            self._build_attached(loss)
        except Exception:
            self.loss_list.remove_last()
            self.forward_passes.record(self.distillation_losses)
            raise
        self._forget_functions()
        if self.compiled:
            self.objective.choose_path(self._loss_weights.value)

    def _build_attached(self, loss):
        self.shape_checks.reset(has_unbuilt_loss=True)  # until the next step
        self._check_specs()
        has_weights = bool(loss.trainable_variables) or self.shape_checks.has_unbuilt_loss
        if self.compiled and self.optimizer.built and has_weights:
            raise ValueError(
                f"Distillation loss {loss.name!r} has weights of its own (a projector), which the "
                "optimizer cannot take over once it is built, by an earlier fit or by loading. "
                "Compile the distiller again before this fit, or give the loss to the Distiller "
                "from the start (its weight may be 0), or use projector=None."
            )

    def _forget_functions(self):
        self.train_function = None
        self.evaluation.forget_functions()

    # Building, and running the models.

    def _build_where_shapes_are_known(self):
        for loss in self.distillation_losses:
            loss.validate(self.teacher, self.student)
        if self.weighting is not None:
            self.weighting.validate(self.teacher, self.student)
        if self._check_specs():
            self.built = True

    def _check_specs(self):
        """Checks shapes where the student tells them; whether it does."""
        if models.input_specs(self.student) is None:
            return False
        with self.student.distribute_strategy.scope():
            self.shape_checks.on_specs()
        return True

    def build(self, input_shape=None):
        del input_shape  # the student builds itself when it is called
        self.built = True

    def build_optimizer(self) -> None:
        """Makes the optimizer's variables, before a file or a first step needs them."""
        ready = self.compiled and self.built and self.optimizer is not None
        if ready and not self.optimizer.built and not self.shape_checks.has_unbuilt_loss:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None, mask=None):
        inputs, _ = protocol.detach_outputs(inputs)
        self.shape_checks.on_call(inputs)
        inputs = models.own_inputs(self.student, inputs)
        if not models.is_masked(mask):  # a subclassed student may not take any
            return self.student(inputs, training=training)
        return self.student(inputs, training=training, mask=mask)

    def student_forward(self, x: Any, training: bool) -> Outputs:
        """The student's `Outputs` for a batch."""
        return self.forward_passes.student_forward(x, training)

    def teacher_forward(self, x: Any, y: Any = None, student: Outputs | None = None) -> Outputs:
        """The teacher's `Outputs` for a batch; no gradient flows to it."""
        return self.forward_passes.teacher_forward(x, y, student)

    def with_teacher_outputs(self, x: Any, y: Any = None) -> Any:
        """The inputs of a batch with the teacher's outputs attached."""
        return self.forward_passes.with_teacher_outputs(x, y)

    def resolve_pair(self, teacher_layer: Any, student_layer: Any) -> tuple:
        """A layer of each model, by its path; raises where there is none."""
        return self.forward_passes.resolve_pair(teacher_layer, student_layer)

    def comparison(self, pairs: list) -> Callable[[Any], tuple[Outputs, Outputs]]:
        """A function from inputs to both models' `Outputs` in inference, with taps of `pairs`."""
        return self.forward_passes.comparison(pairs)

    @property
    def output_names(self):
        """The student's, so that `compile` takes losses and metrics by output name."""
        return self.student.output_names

    # Compiling and training.

    def compile(
        self,
        optimizer: str | keras.Optimizer = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: str | bool = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """See `keras.Model.compile`; `loss` is the hard loss.

        Raises:
            ValueError: `loss` is `None` although `alpha` is not 0; or, under a strategy with
                several replicas, `steps_per_execution` is above 1 or the optimizer accumulates
                gradients, which TensorFlow cannot run; or a metric is called as a loss is.
        """
        if loss is None and self.alpha != 0 and not self.student_computes_loss:
            raise ValueError(
                f"`loss` is None, but alpha={self.alpha} gives the hard loss a factor. Pass the "
                "loss of the labels, or build the distiller with alpha=0 to learn from the teacher "
                "alone."
            )
        arguments.check_loss_weights(loss_weights)
        distribution.check_supported(self.distribute_strategy, optimizer, steps_per_execution)
        self._check_metric_names([metrics, weighted_metrics])
        if self.leaves_out_logits:
            arguments.check_without_logits(self, metrics, weighted_metrics)
        super().compile(
            optimizer,
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            run_eagerly,
            steps_per_execution,
            jit_compile,
            auto_scale_loss,
        )
        self._loss_weights = models.Untracked(loss_weights)
        if self.student_computes_loss and loss is not None:
            optimizer = self.student.optimizer if self.student.compiled else None
            self.student.compile(optimizer, loss, loss_weights)
        self.evaluation.forget_functions()
        self.objective.choose_path(loss_weights)

    def _check_metric_names(self, given):
        """Before what has the names of losses is compiled, and when a loss is attached later."""
        names = getattr(self, "output_names", None)  # a Sequential student has none
        metrics.check_names(given, self.loss_metrics.names, names)
        self._compiled_metrics = models.Untracked(given)

    def needs_labels(self) -> bool:
        return self.loss is not None or not self.student_computes_loss

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of a batch; `train_step` and `test_step` call it, so a subclass may add to it.

        In training it is the whole objective with all regularizers, in an evaluation the student's
        own loss (or the objective, where the teacher is asked).

        Args:
            x: The inputs of the batch.
            y: Its labels, or `None`.
            y_pred: The student's outputs for it; default: those of the step, or of a forward pass.
            sample_weight: Its sample weights, or `None`.
            training: Whether it is trained on.

        Returns:
            A scalar: this replica's part of the loss of the global batch.

        Raises:
            ValueError: Neither a step runs nor are there inputs.

        Example:

        ```python
        import keras
        import keras_kd as kd

        class Calm(kd.Distiller):
            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                loss = super().compute_loss(x, y, y_pred, sample_weight, training)
                return loss + 0.01 * keras.ops.mean(keras.ops.square(y_pred))
        ```
        """
        return step.compute_loss(self, x, y, y_pred, sample_weight, training)

    def train_step(self, data):
        return step.train(self, data)

    def test_step(self, data):
        return step.test(self, data)

    def predict_step(self, data):
        if arguments.is_overridden(self.student, "predict_step"):
            return self.student.predict_step(data)
        return super().predict_step(data)

    # Metrics, and evaluation with or without the teacher.

    @property
    def metrics(self):
        """See `keras.Model.metrics`; with those that a student's own `compute_loss` may update.

        Keras leaves out the metrics of models inside of a model.
        """
        found = super().metrics
        if not self.student_computes_loss:
            return found
        known, made_by_keras = {id(each) for each in found}, ("loss", "compile_metrics")
        own = (each for each in self.student.metrics if each.name not in made_by_keras)
        return [*found, *(each for each in own if id(each) not in known)]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """See `keras.Model.compute_metrics`; without labels the compiled metrics see nothing."""
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self):
        evaluation = self.evaluation
        present = evaluation.has_labels if evaluation.is_running else self.fit_labels.present
        is_blind = present is False
        results = labels.results(self) if is_blind else super().get_metrics_result()
        # Here, not in a step's logs alone: where those have other keys Keras takes the logs of one
        # replica for the epoch's.
        results = self.loss_metrics.in_all_names(results)
        if not evaluation.is_running or evaluation.runs_teacher:
            return results
        return self.loss_metrics.without_losses(results)

    @property
    def evaluate_with_teacher(self) -> bool:
        """Whether evaluations run the teacher; assigning holds for `fit`'s validation too.

        Where it was not assigned they do not. Only the validation of a `fit` does that was spelled
        as `keras.distillation`: its users monitor `val_total_loss`.
        """
        return self.evaluation.with_teacher

    @evaluate_with_teacher.setter
    def evaluate_with_teacher(self, value):
        self.evaluation.assign(bool(value))

    def evaluate(self, *args: Any, with_teacher: bool | None = None, **kwargs: Any) -> Any:
        """See `keras.Model.evaluate`, of the student.

        Args:
            *args: See `keras.Model.evaluate`.
            with_teacher: `True` runs the teacher as well: `loss` is then the training objective,
                and the distillation losses are reported. Default: `self.evaluate_with_teacher`,
                which also rules the validation of `fit` and is `False` at first. Where `compile`
                got no loss the teacher is run: there is no other loss to report.
            **kwargs: See `keras.Model.evaluate`.

        Returns:
            See `keras.Model.evaluate`.

        Raises:
            ValueError: The data has no labels, and the teacher does not run.
        """
        given = fit.bind_arguments(keras.Model.evaluate, args, kwargs)
        evaluation = self.evaluation
        with evaluation.running(given, with_teacher), prefetch.data_errors(self.source):
            if self.source.runs_on_host and evaluation.runs_teacher:
                given = prefetch.prepare_evaluate(self, given)
            return super().evaluate(**given)

    # Files.

    @contextlib.contextmanager
    def handling_files(self):
        # A file that is saved or loaded before the first step has the optimizer's variables too.
        self.build_optimizer()
        with saving.without_optimizers(self.teacher):
            yield

    def __dir__(self):
        # Keras saves what is listed here: the teacher once, and one that is not saved not at all.
        left_out = {"source"}
        if vars(self).get("save_teacher", True) is not True:
            left_out.add("teacher")
        return [name for name in super().__dir__() if name not in left_out]

    def get_config(self):
        return {**super().get_config(), **saving.config_of(self)}

    @classmethod
    def from_config(cls, config):
        return saving.from_config(cls, config)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.build_optimizer()

    def print_summary(self, **options) -> None:
        summary.of_distiller(self, **options)
