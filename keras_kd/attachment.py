"""Hints that join a distiller after it was made."""

from keras_kd import configuration, fit_arguments, models, small_batches


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
            loss = configuration.as_loss(loss)
            self.loss_list.add(loss)
        try:
            self._listen()
            loss.validate(self.teacher, self.student)
            self._check_metric_names(self._metrics_given.model)
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
        given = fit_arguments.bound(args, kwargs)
        callbacks = fit_arguments.callbacks(given)
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
        fit_arguments.join(given, watch)
        self._build_optimizer()
        return super().fit(**given)

    def _watch_batches(self, x, batch_size):
        """Refuses batches that are too small, or returns callbacks that do where they are seen."""
        rows = small_batches.rows_of(x, batch_size)
        losses = self.distillation_losses
        if rows is not None:
            small_batches.check(losses, rows // self.distribute_strategy.num_replicas_in_sync)
            return []
        loss = max(losses, key=lambda loss: loss.least_rows)
        seen = self._total_tracker.count
        return [small_batches.Watch(loss, seen)] if loss.least_rows > 1 else []

    def _build_optimizer(self):
        """Before a file or a first step needs the optimizer's variables."""
        ready = self.compiled and self.built and self.optimizer is not None
        if ready and not self.optimizer.built and not self._has_unbuilt_loss:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
