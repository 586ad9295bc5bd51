"""Saving, loading and resuming a distiller."""

from typing import Any

import keras

from keras_kd import fit_arguments, keeping, resuming, saving
from keras_kd.serializing import deserialized, serialized

_CALLBACK = "callback_"


class OwnVariables:
    """Mixin of a distiller: what it adds to what its models and losses save of themselves.

    Its numbers, and the state of the random seeds (dropout), which Keras does not save; while `fit`
    runs also where it is (`resuming`). With these a run that is interrupted and resumed gives the
    numbers of one that was not. Files are written whole.
    """

    fit_progress: resuming.Progress
    train_function: Any

    def own_numbers(self):
        """`{name: variable}` of what is saved beside the models."""
        return {"alpha": self.alpha_variable, "beta": self.beta_variable}

    def with_metrics(self):
        """The models whose metrics a step updates, a list."""
        return [self]

    def build_metrics(self, data):
        """Lets the metrics of labels make their variables."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None:
            self.compute_metrics(x, y, self.call(x, training=False), sample_weight)

    def _own_variables(self):
        weights = {id(variable) for variable in self.weights}
        # `variables` has the states of seed generators, `weights` has not.
        seeds = [variable for variable in self.variables if id(variable) not in weights]
        numbers = self.own_numbers()
        return numbers | {f"seed_{i}": seed for i, seed in enumerate(seeds)}

    def save_own_variables(self, store):
        for key, variable in self._own_variables().items():
            store[key] = variable.numpy()
        self.fit_progress.save(store)

    def load_own_variables(self, store):
        for key, variable in self._own_variables().items():
            if key in list(store.keys()):
                variable.assign(store[key])
        self.fit_progress.load(store)

    def make_train_function(self, force=False):
        """As of `keras.Model`; its calls are counted."""
        super().make_train_function(force)
        if not isinstance(self.train_function, resuming.Counted):
            self.train_function = resuming.Counted(self.fit_progress, self.train_function)

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`; `keras.callbacks.BackupAndRestore` resumes at the very batch."""
        given = fit_arguments.named(keras.Model.fit, args, kwargs)
        with self.fit_progress.of_fit(given):
            return super().fit(**given)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`; the file is there whole, or the one before is."""
        return saving.save(super().save, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; the file is there whole, or the one before is."""
        return saving.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def load_weights(self, filepath, *args, **kwargs):
        """As `keras.Model.load_weights`."""
        result = super().load_weights(filepath, *args, **kwargs)
        self.fit_progress.restored(filepath)
        return result


class Persistence(OwnVariables):
    """Mixin of the distiller: what a `.keras` file and a checkpoint hold of it.

    Beside `OwnVariables` these are `callback_states`, arrays by which callbacks go on where they
    were.
    """

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                **keeping.config(self),
                "student": keras.saving.serialize_keras_object(self.student),
                "distillation_losses": [
                    keras.saving.serialize_keras_object(loss) for loss in self.distillation_losses
                ],
                "distillation_loss_weights": self.distillation_loss_weights,
                "student_loss_weight": float(self.alpha),
                "alpha": float(self.alpha),
                "beta": float(self.beta),
                "uses_keras_names": self.uses_keras_names,
                "teacher_preprocess": serialized("teacher_preprocess", self.teacher_preprocess),
                "weighting": serialized("weighting", self.weighting),
                "mask_input": self.mask_input,
                "evaluate_with_teacher": self._with_teacher,
            }
        )
        return config

    def save(self, *args, **kwargs):
        """As `keras.Model.save`; what cannot be saved is told before a file is begun."""
        self.get_config()
        self._build_optimizer()  # a file saved before the first step has its variables too
        with keeping.without_optimizers(self.teacher):
            return super().save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        """As `keras.Model.save_weights`; the optimizer's variables are there from the start."""
        self._build_optimizer()
        with keeping.without_optimizers(self.teacher):
            return super().save_weights(*args, **kwargs)

    def load_weights(self, *args, **kwargs):
        """As `keras.Model.load_weights`."""
        self._build_optimizer()
        with keeping.without_optimizers(self.teacher):
            return super().load_weights(*args, **kwargs)

    def __dir__(self):
        # Keras saves what is listed here. A teacher that is not saved is not looked for either.
        names = super().__dir__()
        saves = vars(self).get("save_teacher", True)
        return names if saves is True else [name for name in names if name != "teacher"]

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("student", "teacher_preprocess", "weighting"):
            config[key] = deserialized(config.get(key))
        config["distillation_losses"] = [
            keras.saving.deserialize_keras_object(loss) for loss in config["distillation_losses"]
        ]
        config["teacher"] = keeping.teacher_of(config)
        # As `keras.distillation.Distiller` has them; here they repeat what the losses know, and
        # alpha. A configuration of Keras' own has no alpha.
        if "alpha" in config:
            for key in ("distillation_loss_weights", "student_loss_weight"):
                config.pop(key, None)
        with_teacher = config.pop("evaluate_with_teacher", None)
        numbers = {}
        if config.pop("uses_keras_names", False):
            numbers = {name: config.pop(name) for name in ("alpha", "beta")}
            config["student_loss_weight"] = min(numbers["alpha"], 1.0)
        made = cls(**config)
        for name, value in numbers.items():
            setattr(made, name, value)
        if with_teacher is not None:
            made.evaluate_with_teacher = with_teacher
        return made

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`."""
        self._source.model.check_can_teach()
        return super().fit(*args, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name, state in self.callback_states.items():
            store[_CALLBACK + name] = state

    def load_own_variables(self, store):
        super().load_own_variables(store)
        for key in list(store.keys()):
            if key.startswith(_CALLBACK):
                self.callback_states[key.removeprefix(_CALLBACK)] = store[key][...]
