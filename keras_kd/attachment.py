"""Hints that join a distiller after it was made."""

import keras

from keras_kd import fit_arguments, models


class Attachment:
    """Mixin of the distiller: `attach`, and `fit` that lets its callbacks use it."""

    def attach(self, loss):
        """Adds a distillation loss to this distiller.

        Its projector is trained by the compiled optimizer, which knows its variables from the
        moment it is built, at the first `fit` after `compile`: a loss that owns weights must be
        attached before that. The training step is traced anew.

        Args:
            loss: A `keras_kd.losses.DistillationLoss`.

        Raises:
            ValueError: The loss does not fit the models; or it owns weights, and the optimizer is
                built.
        """
        with self.student.distribute_strategy.scope():
            self.loss_list.add(loss)
        try:
            self._listen()
            loss.validate(self.teacher, self.student)
            self._build_attached(loss)
        except Exception:
            self.loss_list.remove_last()
            self._listen()
            raise
        self.train_function = self.test_function = self._other_test_function = None
        if self.compiled:
            self._fuse()

    def _build_attached(self, loss):
        inputs = models.input_specs(self.student)
        if inputs is None:
            self._rehearsed, self._has_unbuilt_loss = False, True  # until the next step
        else:
            with self.student.distribute_strategy.scope():
                self._rehearse(inputs)
        has_weights = bool(loss.trainable_variables) or inputs is None
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
            ValueError: The data is empty, or has no labels although `alpha` is not 0; batches are
                too small for a loss between rows.
        """
        given = fit_arguments.bound(args, kwargs)
        callbacks = fit_arguments.callbacks(given)
        own = [each for each in callbacks if hasattr(each, "prepare")]
        for callback in own:
            callback.prepare(self, callbacks)
        self._check_batches(given.get("x"), given.get("batch_size"))
        self._build_optimizer()
        return super().fit(*args, **kwargs)

    def _build_optimizer(self):
        """Before a file or a first step needs the optimizer's variables."""
        ready = self.compiled and self.built and self.optimizer is not None
        if ready and not self.optimizer.built and not self._has_unbuilt_loss:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _check_batches(self, x, batch_size):
        rows = batch_size or _static_rows(x)
        if rows is None:
            return
        rows = rows // self.distribute_strategy.num_replicas_in_sync
        for loss in self.distillation_losses:
            if rows < loss.least_rows:
                raise ValueError(
                    f"Distillation loss {loss.name!r} compares the rows of a batch and needs at "
                    f"least {loss.least_rows} of them on each replica. Received: batches of "
                    f"{rows}. Use a larger batch_size."
                )


def _static_rows(data):
    """The size of the batches of a dataset that says it, or `None`."""
    spec = getattr(data, "element_spec", None)
    if spec is None:
        return None
    shape = getattr(keras.tree.flatten(spec)[0], "shape", None)
    return shape[0] if shape is not None and shape.rank else None
