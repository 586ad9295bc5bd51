"""`Compiling`: an optimizer, a loss and metrics for each peer."""

from keras_kd import models, replicas
from keras_kd.mutual import arguments


class Compiling:
    """Mixin of `MutualDistiller`: `compile`."""

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
        """As `keras.Model.compile`, for each peer.

        Args:
            optimizer: One for all, of which each peer gets a copy made from its configuration; or a
                list with an optimizer for each. `optimizers` has them.
            loss: The loss of the labels; or a list with one for each peer.
            loss_weights: As of `keras.Model.compile`, the same for all.
            metrics: As of `keras.Model.compile`; each peer gets copies. Or a list of lists, one for
                each peer.
            weighted_metrics: As `metrics`.
            run_eagerly: As of `keras.Model.compile`.
            steps_per_execution: As of `keras.Model.compile`.
            jit_compile: As of `keras.Model.compile`.
            auto_scale_loss: Whether the loss of a peer in `mixed_float16` is scaled.

        Raises:
            ValueError: A list has not one entry for each peer; `loss` is `None` although `alpha` is
                not 0, or a peer would learn from nothing.
        """
        count = len(self.learners)
        losses = arguments.losses(loss, count)
        self._check_something_teaches(losses)
        # `optimizer` would be one; each learner has its own.
        super().compile(
            None,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        self.loss = None if losses[0] is None else losses
        self._compiled_with = models.Untracked(
            {
                "loss": losses,
                "loss_weights": loss_weights,
                "metrics": arguments.metrics("metrics", metrics, count),
                "weighted_metrics": arguments.metrics("weighted_metrics", weighted_metrics, count),
            }
        )
        with self.distribute_strategy.scope():
            made = arguments.optimizers(optimizer, count)
            for each in made:
                replicas.refuse_what_fails(self.distribute_strategy, each, steps_per_execution)
            self._compile_learners(made, auto_scale_loss)

    def _compile_learners(self, optimizers, auto_scale_loss):
        given = self._compiled_with.model
        for i, (learner, optimizer) in enumerate(zip(self.learners, optimizers, strict=True)):
            learner.compile(
                optimizer,
                given["loss"][i],
                given["loss_weights"],
                given["metrics"][i],
                given["weighted_metrics"][i],
                jit_compile=False,
                auto_scale_loss=auto_scale_loss,
            )
            # Here, so that a file that is saved or loaded before the first step has its variables.
            if not learner.optimizer.built:
                learner.optimizer.build(learner.model.trainable_variables)

    def _check_something_teaches(self, losses):
        if losses[0] is None and self.alpha != 0:
            raise ValueError(
                f"`loss` is None, but alpha={self.alpha} gives the hard losses a factor. Pass the "
                "loss of the labels, or build the distiller with alpha=0."
            )
        untaught = [
            learner.name
            for learner, row in zip(self.learners, self.teaching, strict=True)
            if not row.any() and learner.model.trainable_variables
        ]
        if losses[0] is None and untaught:
            raise ValueError(
                f"{untaught} would learn from nothing: no peer teaches them, and there is no loss "
                "of the labels. Pass a `loss`, or freeze them (model.trainable = False)."
            )
