"""`OfStudent`: what the callbacks that change the student's weights have in common."""

import keras

from keras_kd.compression.kernels import checked_names, kernels_of
from keras_kd.ops.arguments import invalid


class OfStudent(keras.callbacks.Callback):
    """Base class: finds the student's kernels, and counts the steps of the whole `fit`.

    Args:
        student: The model, one that `fit` trains; `None`: the distiller's student, or the model
            itself.
        layers: As of `kernels_of`.
    """

    def __init__(self, student=None, layers=None):
        super().__init__()
        if not (student is None or isinstance(student, keras.Model)):
            raise invalid("student", "a keras.Model, or None for the one of fit", repr(student))
        self.student, self.layers = student, checked_names(layers)
        self.kernels, self.step = [], 0
        self._has_begun = False

    def prepare(self, distiller, callbacks):
        """Checks the callbacks beside it; called by the `fit` of a distiller."""
        del distiller
        same = [
            each
            for each in callbacks
            if isinstance(each, OfStudent) and each.student is self.student
        ]
        if len(same) > 1:
            kinds = " and ".join(type(each).__name__ for each in same)
            raise ValueError(
                f"{kinds} would undo each other's work in one fit. Use one fit after the other: "
                "Sparsify, then Cluster(preserve_sparsity=True)."
            )

    def begin(self, is_resumed):
        """Called before the first step, when whatever another callback restores is restored."""
        raise NotImplementedError

    def after_steps(self, before):
        """Called after one step, or several; `before` is the number of steps until then."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        self.kernels = kernels_of(self._model_to_change(), self.layers)
        self._has_begun = False

    def _model_to_change(self):
        trained = {id(variable) for variable in self.model.trainable_variables}
        inner = getattr(self.model, "student", None)
        model = self.student
        if model is None:
            model = inner if isinstance(inner, keras.Model) else self.model
        if not any(id(variable) in trained for variable in model.trainable_variables):
            raise ValueError(
                f"{type(self).__name__} was made for the model {model.name!r}, of which this fit "
                "trains nothing. Make one for the student of this distiller."
            )
        return model

    def on_epoch_begin(self, epoch, logs=None):
        steps = self.params.get("steps")
        if steps is not None:
            self.step = epoch * steps
        elif not self._has_begun:
            if epoch > 0:
                raise ValueError(
                    f"{type(self).__name__} cannot tell how many steps the epochs before epoch "
                    f"{epoch} had. Pass steps_per_epoch to fit."
                )
            self.step = 0
        self._first = self.step
        if not self._has_begun:
            self._has_begun = True
            self.begin(is_resumed=self.step > 0)

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, self._first + batch + 1
        self.after_steps(before)

    def total_steps(self):
        """Steps of the whole `fit`; `None` if that is not known."""
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        return None if steps is None or epochs is None else steps * epochs
