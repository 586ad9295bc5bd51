"""`Distiller`: trains a student model from a teacher with `compile` and `fit`."""

import keras

from keras_kd import models
from keras_kd.teachers import keras_model, protocol
from keras_kd.training import arguments, distribution, metrics, resuming, saving, summary
from keras_kd.training.first_batch import FirstBatch
from keras_kd.training.fit import AskingAhead, Attachment, LabelCheck
from keras_kd.training.forward import ForwardPasses, ShapeCheck, TeacherFailed
from keras_kd.training.hyperparameters import LiveNumbers
from keras_kd.training.metrics import LossList, Reporting
from keras_kd.training.objective import FusedLoss
from keras_kd.training.saving import Persistence
from keras_kd.training.step import Step
from keras_kd.training.supervised import HardLoss


@keras.saving.register_keras_serializable(package="keras_kd")
class Distiller(
    LiveNumbers,
    Persistence,
    Attachment,
    LabelCheck,
    Reporting,
    AskingAhead,
    FirstBatch,
    Step,
    HardLoss,
    ForwardPasses,
    distribution.MultiWorkerFit,
    keras.Model,
):
    """Trains a student to match a teacher (and the labels).

    The loss of a batch is

    `alpha * hard + beta * sum_i weight_i * distillation_i` (+ the student's own regularisers)

    where `hard` is the loss given to `compile`, averaged over the batch as Keras does, and each
    distillation loss is averaged likewise. `sample_weight` and `class_weight` weight both. Teacher
    and student each run forward once a step; the teacher runs with `training=False` and is left as
    it was: weights, statistics and `trainable` flags. `evaluate`, `predict` and calling the
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
            regulariser, and outside of TensorFlow).
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
            recognise it; what is loaded evaluates and predicts, and trains on once `set_teacher`
            has given the teacher back. A path: that of a `.keras` file of the teacher, from which
            it is loaded. How the teacher itself was compiled, and its optimizer, is never saved.

    The data may hold more inputs than the student reads: a dict of inputs reaches both models, and
    each takes those that it names.

    A subclass may override `compute_loss`, `compute_metrics` and the steps, as of `keras.Model`. A
    student's own `compute_loss` stands for the hard loss and the student's regularisers; the `loss`
    given to `compile` is compiled into the student, for it to read.

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

    def __init__(
        self,
        teacher,
        student,
        distillation_losses=None,
        distillation_loss_weights=None,
        student_loss_weight=None,
        alpha=None,
        beta=None,
        name="distiller",
        *,
        teacher_preprocess=None,
        weighting=None,
        mask_input=None,
        save_teacher=True,
        **kwargs,
    ):
        models.check(teacher, student)
        arguments.check(student, "student", arguments.OF_STUDENT)
        source = keras_model.adapt(teacher)
        source.bind(student)
        save_teacher = saving.check(save_teacher, source)
        arguments.check_weighting(weighting)
        protocol.check_preprocess(teacher_preprocess, "teacher_preprocess")
        alpha, beta = arguments.mixture(alpha, beta, student_loss_weight)
        keras_names = metrics.uses_keras_names(distillation_losses, student_loss_weight)
        kwargs.setdefault("dtype", models.dtype_policy(student))
        # The inputs reach the student as `student.fit` would give them: nothing is cast here.
        super().__init__(name=name, autocast=False, **kwargs)
        self._teacher, self._source = models.Untracked(teacher), models.Untracked(source)
        self.student = student
        self.teacher_preprocess, self.weighting = teacher_preprocess, weighting
        self.mask_input = arguments.mask_input(mask_input)
        self.student_computes_loss = arguments.is_overridden(student, "compute_loss")
        self._student_supports_jit = self.supports_jit
        self.supports_jit = self.supports_jit and source.supports_jit
        self._rehearsed = self._has_unbuilt_loss = self.is_symbolic = False
        self.uses_keras_names = keras_names
        self.callback_states = {}
        self.save_teacher, self._told = save_teacher, models.Untracked({})
        self.fit_progress = resuming.Progress(self)
        with student.distribute_strategy.scope():
            self.loss_list = LossList(
                arguments.loss_list(distillation_losses, distillation_loss_weights, student)
            )
            self._add_numbers(alpha, beta)
            self._add_trackers()
        self._listen()
        self._build_where_shapes_are_known()

    @property
    def teacher(self):
        """The teacher; tracked by nothing. `save_teacher` says whether it is saved."""
        return self._teacher.value

    def hear(self, outputs):
        """Keeps what a rehearsal has seen of the teacher, for a file without it."""
        self._told = models.Untracked(saving.told(outputs, self._source.value))

    def set_teacher(self, teacher, check=True):
        """Gives a distiller its teacher back, which was saved without (`save_teacher=False`).

        Args:
            teacher: As of the constructor.
            check: Whether it must be the one that the distiller had: the same weights and
                configuration, whatever its layers are called. `False`: another one teaches on.

        Raises:
            ValueError: It is another one; or teacher and student do not fit each other; or the
                distiller has a teacher.
        """
        source = saving.given_back(self, teacher, check)
        self._teacher, self._source = models.Untracked(teacher), models.Untracked(source)
        self.supports_jit = self._student_supports_jit and source.supports_jit
        self._listen()
        self._rehearsed, self._has_unbuilt_loss = False, False
        self._build_where_shapes_are_known()
        self.train_function = self.test_function = self._other_test_function = None

    @property
    def distillation_losses(self):
        """The distillation losses, a list; `attach` adds one."""
        return list(self.loss_list.losses_in_order)

    @property
    def distillation_loss_weights(self):
        """The losses' weights, a list, as `keras.distillation.Distiller` has them."""
        return [loss.weight for loss in self.distillation_losses]

    @property
    def student_loss_weight(self):
        """Another name of `alpha`, as `keras.distillation.Distiller` has it."""
        return self.alpha

    @property
    def losses_by_name(self):
        """The distillation losses by their names in the history."""
        return self.loss_list.by_name

    @property
    def output_names(self):
        """The student's, so that `compile` takes losses and metrics by output name."""
        return self.student.output_names

    def _build_where_shapes_are_known(self):
        for loss in self.distillation_losses:
            loss.validate(self.teacher, self.student)
        if self.weighting is not None:
            self.weighting.validate(self.teacher, self.student)
        if models.input_specs(self.student) is not None:
            with self.student.distribute_strategy.scope():
                self._rehearse_made_up()
            self.built = True

    @property
    def may_read_more(self):
        """Whether the teacher may read inputs of the data that nothing names before it comes."""
        source = self._source.value
        return self.teacher_preprocess is not None or source.input_specs() is None

    def _rehearse_made_up(self):
        """Rehearses on what the models say of their inputs; the first batch decides the rest."""
        inputs = models.input_specs(self.student)
        of_teacher = None if self.may_read_more else self._source.value.input_specs()
        if of_teacher is not None and models.reads_more(of_teacher, inputs):
            # The data is a dict that has the inputs of both.
            inputs = {**of_teacher, **models.named_inputs(self.student, inputs)}
        try:
            self._rehearse(inputs, is_made_up=True, may_read_more=self.may_read_more)
        except TeacherFailed:
            self._has_unbuilt_loss = True

    def _rehearse_batch(self, x, y):
        """Rehearses on the first batch of the data, where nothing told enough before."""
        if not self._rehearsed:
            self._rehearse(x, y)

    def _rehearse_call(self, inputs):
        """Builds what a call outside of a step finds unbuilt, if its inputs do for the teacher."""
        try:
            self._rehearse(inputs, may_read_more=True)
        except TeacherFailed:
            self._has_unbuilt_loss = True

    def _rehearse(self, inputs, labels=None, **options):
        rehearsal = ShapeCheck(self, **{"is_made_up": False, **options})
        self.is_symbolic = True
        try:
            rehearsal.run(inputs, labels)
        finally:
            self.is_symbolic = False
        self._rehearsed = not rehearsal.waiting
        self._has_unbuilt_loss = False

    def build(self, input_shape=None):
        del input_shape  # the student builds itself when it is called
        self.built = True

    def call(self, inputs, training=None, mask=None):
        inputs, _ = protocol.split(inputs)
        if not self._rehearsed and not self.is_symbolic:
            self._rehearse_call(inputs)
        inputs = models.own_inputs(self.student, inputs)
        if not models.is_masked(mask):  # a subclassed student may not take any
            return self.student(inputs, training=training)
        return self.student(inputs, training=training, mask=mask)

    def compile(
        self,
        optimizer="adam",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """As `keras.Model.compile`; `loss` is the hard loss.

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
        distribution.refuse_what_fails(self.distribute_strategy, optimizer, steps_per_execution)
        self._check_metric_names([metrics, weighted_metrics])
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
        self._fuse()

    def summary(
        self,
        line_length=None,
        positions=None,
        print_fn=None,
        expand_nested=False,
        show_trainable=False,
        layer_range=None,
    ):
        """As `keras.Model.summary`; the teacher is told of too, apart from the totals."""
        summary.of_distiller(
            self,
            line_length=line_length,
            positions=positions,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )

    def _needs_labels(self):
        return self.loss is not None or not self.student_computes_loss

    def _fuse(self):
        """Looks whether the kernel's one sweep can compute the hard loss too."""
        losses = self.distillation_losses
        self._fused = FusedLoss(self.loss, self._loss_weights.value, losses)
