"""What the trained models of this library share: `fit`, saving, and the numbers of a distiller."""

import contextlib
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import files, validation
from keras_kd.losses import base
from keras_kd.training import distribution, fit, hyperparameters, resuming, shared_backups, tracking
from keras_kd.training.labels import FitLabels

# Under this prefix a file holds arrays by which callbacks go on where they were.
_CALLBACK = "callback_"


class TrainedModel(keras.Model):
    """A model whose `fit` is prepared step by step, and goes on where it was ended.

    Saved are, beside what Keras saves: its numbers, and the states of random seeds (dropout); while
    `fit` runs also where it is (`resuming`). With these a run that is interrupted and resumed gives
    the numbers of one that was not. Files are written whole.

    Attributes:
        preparation: What `fit` does before the first step, in this order: functions of the model
            and a `fit.FitCall`.
    """

    preparation: tuple = (fit.track_progress,)
    train_function: Any
    _leaves_out_regularizers = False

    def __init__(self, **kwargs):
        # The inputs reach the model inside as its own `fit` would give them: nothing is cast here.
        super().__init__(autocast=False, **kwargs)
        self.fit_progress = resuming.Progress(self)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """See `keras.Model.fit`."""
        with fit.FitCall.bind(args, kwargs) as call:
            for prepare in self.preparation:
                prepare(self, call)
            history = super().fit(**call.arguments)
        for finish in call.at_end:
            finish(history)
        return history

    def make_train_function(self, force=False):
        """See `keras.Model.make_train_function`; its calls are counted."""
        super().make_train_function(force)
        if not isinstance(self.train_function, resuming.Counted):
            self.train_function = resuming.Counted(self.fit_progress, self.train_function)

    # The loss of the labels, apart from regularizers.

    @property
    def losses(self):
        return [] if self._leaves_out_regularizers else super().losses

    def supervised_loss(self, y, y_pred, sample_weight) -> tf.Tensor:
        """The compiled loss without regularizers; zero where there is none."""
        if y is None or self.loss is None:
            return tf.zeros(())
        self._leaves_out_regularizers = True
        try:
            # Past a subclass's `compute_loss`: that is the loss of the whole step.
            loss = keras.Model.compute_loss(self, None, y, y_pred, sample_weight)
            return distribution.undivided(loss)
        finally:
            self._leaves_out_regularizers = False

    # Metrics, as those who resume a `fit` need them.

    @property
    def total_metric(self) -> keras.Metric:
        """The metric that Keras reports as `loss`."""
        return next(metric for metric in self.metrics if metric.name == "loss")

    def with_metrics(self) -> list[keras.Model]:
        """The models whose metrics a step updates."""
        return [self]

    def build_metrics(self, data) -> None:
        """Lets the metrics of labels make their variables."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None:
            self.compute_metrics(x, y, self.call(x, training=False), sample_weight)

    # Files.

    def own_numbers(self) -> dict[str, Any]:
        """`{name: variable}` of what is saved beside the models."""
        return {}

    def _own_variables(self):
        weights = {id(variable) for variable in self.weights}
        # `variables` has the states of seed generators, `weights` has not.
        seeds = [variable for variable in self.variables if id(variable) not in weights]
        return self.own_numbers() | {f"seed_{i}": seed for i, seed in enumerate(seeds)}

    def save_own_variables(self, store):
        for key, variable in self._own_variables().items():
            store[key] = variable.numpy()
        self.fit_progress.save(store)

    def load_own_variables(self, store):
        for key, variable in self._own_variables().items():
            if key in list(store.keys()):
                variable.assign(store[key])
        self.fit_progress.load(store)

    def handling_files(self) -> contextlib.AbstractContextManager:
        """A context in which files of the model are written and read."""
        return contextlib.nullcontext()

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """See `keras.Model.save`; the file is there whole, or the one before is."""
        self.get_config()  # what cannot be saved raises before a file is begun
        with self.handling_files():
            return files.save(super().save, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """See `keras.Model.save_weights`; the file is there whole, or the one before is."""
        with self.handling_files():
            if self.fit_progress.is_others(filepath):
                return shared_backups.save_nowhere(super().save_weights, filepath)
            return files.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def load_weights(self, filepath, *args, **kwargs):
        """See `keras.Model.load_weights`."""
        with self.handling_files():
            result = super().load_weights(filepath, *args, **kwargs)
        self.fit_progress.restored(filepath)
        return result


class DistillationModel(TrainedModel):
    """A trained model with `alpha`, `beta` and `temperature`, which may change during `fit`."""

    preparation: tuple = (fit.track_progress, fit.require_labels)

    def add_numbers(self, alpha: float, beta: float) -> None:
        """Makes the variables of the numbers; a constructor calls it in the models' strategy."""
        self.alpha_variable = base.add_hyperparameter(self, "alpha", alpha)
        self.beta_variable = base.add_hyperparameter(self, "beta", beta)
        self.fit_labels = FitLabels(self)
        self.callback_states: dict[str, Any] = {}

    def own_numbers(self):
        return {"alpha": self.alpha_variable, "beta": self.beta_variable}

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name, state in self.callback_states.items():
            store[_CALLBACK + name] = state

    def load_own_variables(self, store):
        super().load_own_variables(store)
        for key in list(store.keys()):
            if key.startswith(_CALLBACK):
                self.callback_states[key.removeprefix(_CALLBACK)] = store[key][...]

    @property
    def alpha(self) -> float:
        """The factor of the hard loss; assign a number >= 0 to change it."""
        return base.read_number(self.alpha_variable)

    @alpha.setter
    def alpha(self, value):
        value = validation.non_negative("alpha", value)
        if value != 0 and self.fit_labels.present is False:
            raise ValueError(
                f"alpha={value} needs labels, but the training data has none. Pass (inputs, "
                "labels) to fit, or leave alpha at 0."
            )
        if value != 0 and self.compiled and self.loss is None:
            raise ValueError(
                f"alpha={value} needs a hard loss, but compile got no loss. Pass one to compile, "
                "or leave alpha at 0."
            )
        base.assign_number(self.alpha_variable, value)

    @property
    def beta(self) -> float:
        """The factor of the distillation losses; assign a number >= 0 to change it."""
        return base.read_number(self.beta_variable)

    @beta.setter
    def beta(self, value):
        base.assign_number(self.beta_variable, validation.non_negative("beta", value))

    @property
    def temperature(self) -> float:
        """The temperature of the distillation losses that have one; assigning sets them all."""
        return hyperparameters.get_temperature(self.distillation_losses)

    @temperature.setter
    def temperature(self, value):
        hyperparameters.set_temperature(self.distillation_losses, value)

    def mixture(self) -> tuple[tf.Tensor, ...]:
        """`(alpha, beta)` as tensors, for use inside a step."""
        return hyperparameters.as_tensors(self.alpha_variable, self.beta_variable)

    def needs_labels(self) -> bool:
        """Whether a hard loss that counts needs labels."""
        return True

    @property
    def steps_are_own(self) -> bool:
        """Whether no subclass has a step that might make labels itself."""
        return type(self).train_step.__module__.startswith("keras_kd.")

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """See `keras.Model.train_on_batch`.

        Raises:
            ValueError: There are no labels although `alpha` is not 0.
        """
        present = y is not None if self.steps_are_own else None
        with self.fit_labels.during_fit(present):
            return super().train_on_batch(x, y, *args, **kwargs)

    def summary(
        self,
        line_length=None,
        positions=None,
        print_fn=None,
        expand_nested=False,
        show_trainable=False,
        layer_range=None,
    ):
        """See `keras.Model.summary`; teachers, peers and losses are listed too."""
        self.print_summary(
            line_length=line_length,
            positions=positions,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )

    def settings(self) -> dict[str, bool | int | float | str]:
        """What it trains with, flat and plain: for TensorBoard, Weights & Biases, MLflow, a CSV.

        Returns:
            `alpha`, `beta`; class, name and parameters of `teacher` and `student`, or of `peers/0`,
            `peers/1` ... (`"student/class"`); of each loss its class and arguments
            (`"losses/soft_targets/temperature"`); after `compile` the optimizer
            (`"optimizer/learning_rate"`), the hard loss and how steps run; versions. As they are at
            this moment: schedules change them. What is `None` is left out. No key is the folder of
            another one.

        Example:

        ```python
        import keras
        import keras_kd as kd

        teacher, student = (
            keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)]) for _ in range(2)
        )
        distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(4.0), alpha=0.1, beta=0.9)
        found = distiller.settings()
        assert found["beta"] == 0.9 and found["losses/soft_targets/temperature"] == 4.0
        ```
        """
        return tracking.settings_of(self, self.models_by_role())

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of the next step, by its name in the history."""
        return {"learning_rate": tracking.learning_rate(self.optimizer)}

    def models_by_role(self) -> dict[str, Any]:
        """Its models, by what they are called in `settings`."""
        raise NotImplementedError

    def print_summary(self, **options) -> None:
        """Prints the summary; of the arguments of `summary`."""
        raise NotImplementedError

    # `fit` of Keras 3.15 fails twice under `MultiWorkerMirroredStrategy`, for any model. Its
    # symbolic build hands the first batch, still distributed, to a function that takes tensors:
    # here it gets this worker's part. (This overrides a private method of Keras, and does nothing
    # if Keras renames it.) And it reduces the logs over an axis that scalars do not have: here they
    # get one.

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None and distribution.is_multi_worker(self.distribute_strategy):
            data_batch = distribution.first_local_batch(self.distribute_strategy, iterator)
            iterator = None if data_batch is not None else iterator
        return super()._maybe_symbolic_build(iterator, data_batch)

    def per_worker(self, logs: dict) -> dict:
        """The logs of a step, in the shape that Keras can reduce over workers."""
        if not distribution.is_multi_worker(self.distribute_strategy):
            return logs
        return {key: keras.ops.reshape(value, (1,)) for key, value in logs.items()}
