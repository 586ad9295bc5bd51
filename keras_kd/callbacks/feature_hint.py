"""`FeatureHint`: a hint for some epochs of a `fit`."""

from typing import Any

import numpy as np

from keras_kd import losses
from keras_kd._utils import validation
from keras_kd.callbacks.schedules import ScheduledValue
from keras_kd.taps import tap


class FeatureHint(ScheduledValue):
    """Adds a `keras_kd.losses.FeatureHint` to the distiller for `fit`, or steers the one it has.

    Its weight is 0 before `start_epoch` and from `stop_epoch` on. Over `ramp_epochs` it rises in
    equal steps: in epoch `start_epoch + i` it is `weight (i + 1) / (ramp_epochs + 1)`. This causes
    no retracing while `fit` runs. The history gets the loss, and an entry `<name>_weight`.

    After `fit`, even one that was interrupted and continues from a file or in another `fit`, the
    hint has the weight it had before: 0 for one that was added. It stays with the distiller, its
    projector is saved with it, and a later `fit` continues with it. (Decoupled weight decay, as in
    `AdamW`, shrinks the projector even while the weight is 0.) A hint that needs a projector must
    be attached before the optimizer is built: at the first `fit` after `compile`.

    Args:
        teacher_layer: See `keras_kd.losses.FeatureHint`.
        student_layer: See there.
        loss: See there: `"mse"`, `"cosine"`, `"smooth_l1"`, a Keras loss or a function.
        weight: The weight in between, at least 0.
        projector: See there: `"auto"`, `"linear"`, `None` or a Keras layer.
        start_epoch: First epoch of the hint, counted from 0.
        stop_epoch: The first epoch without it again; `None`: it stays until the end.
        ramp_epochs: Epochs of the rise.
        name: Name of the loss; default: `hint_` and the student's layer.

    Raises:
        ValueError: An argument is wrong, or the epochs contradict each other; in `fit`: there is no
            such layer, no projector bridges the shapes, the distiller's hint between these layers
            is another one, the optimizer is built, or the hint begins after the last epoch.

    Example:

    ```python
    import keras
    from typing import Any

    import numpy as np
    import keras_kd as kd

    def network(width):
        return keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(width, activation="relu", name="features"),
                keras.layers.Dense(10),
            ]
        )

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    distiller = kd.Distiller(network(32), network(6))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    hint = kd.callbacks.FeatureHint("features", "features", "cosine", weight=0.5, start_epoch=2)
    history = distiller.fit(x, y, epochs=4, callbacks=[hint], verbose=0).history
    assert history["hint_features_weight"] == [0.0, 0.0, 0.5, 0.5]
    ```

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets",
    https://arxiv.org/abs/1412.6550
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        loss: Any = "mse",
        weight: float = 1.0,
        projector: Any = "auto",
        start_epoch: int = 0,
        stop_epoch: Any = None,
        ramp_epochs: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(self._weight_in, start_epoch=start_epoch)
        self.hint_weight = validation.non_negative("weight", weight)
        self.stop_epoch = validation.integer("stop_epoch", stop_epoch, 0, optional=True)
        self.ramp_epochs = validation.integer("ramp_epochs", ramp_epochs, 0)
        last = None if stop_epoch is None else stop_epoch - ramp_epochs
        if last is not None and start_epoch >= last:
            raise ValueError(
                "A hint must start, and have risen, before it stops. Received: "
                f"start_epoch={start_epoch}, ramp_epochs={ramp_epochs}, stop_epoch={stop_epoch}"
            )
        self.layers = teacher_layer, student_layer
        self.options = {"loss": loss, "projector": projector}
        self.name = validation.text("name", name, "the name of the loss", optional=True)
        # Invalid arguments of the loss raise now, not when `fit` makes it.
        losses.FeatureHint(teacher_layer, student_layer, **self.options, name=name)
        self.hint: Any = None
        self._reported: str | None = None

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Finds or attaches the hint; called by `fit` before anything is built or traced."""
        pair = distiller.resolve_pair(*self.layers)
        self.hint = _hint_between(distiller, pair) or self._attached(distiller, pair)
        self._check_agreement()
        names = {id(loss): name for name, loss in distiller.losses_by_name.items()}
        self._reported = names[id(self.hint)]
        super().prepare(distiller, callbacks)
        # An interrupted fit leaves its state, and the weight that it set last.
        _, was_set = distiller.callback_states.get(self._key, (None, None))
        if was_set != self.hint.weight:
            self._remember(distiller, self.hint.weight)

    @property
    def _key(self):
        return f"feature_hint_{self._reported}"

    def _remember(self, distiller, weight_before):
        state = np.array([weight_before, self.hint.weight], "float64")
        distiller.callback_states[self._key] = state

    def _attached(self, distiller, pair):
        name = self.name or "hint_" + tap.plain_name(pair[1])
        if any(loss.name == name for loss in distiller.distillation_losses):
            raise ValueError(
                f"The distiller has a loss of the name {name!r} already. Pass another one: "
                "FeatureHint(..., name=...)."
            )
        with distiller.distribute_strategy.scope():
            hint = losses.FeatureHint(pair[0], pair[1], **self.options, weight=0.0, name=name)
        distiller.attach(hint)
        return hint

    def _check_agreement(self):
        if self.name not in (None, self.hint.name):
            raise ValueError(
                f"FeatureHint(name={self.name!r}) contradicts the distiller's hint between the "
                f"same layers, which has the name {self.hint.name!r}. Pass "
                f"name={self.hint.name!r}, or leave it out."
            )
        have = {"loss": self.hint.loss, "projector": self.hint.projector}
        for key, value in self.options.items():
            if _config(value) != _config(have[key]):
                raise ValueError(
                    f"FeatureHint({key}={value!r}) contradicts the distiller's hint "
                    f"{self.hint.name!r} between the same layers, which has {key}={have[key]!r}. "
                    f"Pass {key}={have[key]!r}, or compile a new distiller."
                )

    def _weight_in(self, epoch):
        # The schedule begins with `start_epoch`, and counts from there.
        if self._epoch < self.start_epoch:
            return 0.0
        if self.stop_epoch is not None and epoch + self.start_epoch >= self.stop_epoch:
            return 0.0
        return self.hint_weight * min((epoch + 1) / (self.ramp_epochs + 1), 1.0)

    @property
    def log_name(self) -> str:
        return f"{self._reported}_weight"

    def check_model(self) -> None:
        if self.hint is None or all(x is not self.hint for x in self.model.distillation_losses):
            raise ValueError(
                "FeatureHint was not prepared: pass it in the `callbacks` of the distiller's own "
                "fit, as a list."
            )

    def set_value(self, value: Any) -> None:
        weight_before, _ = self.model.callback_states[self._key]
        self.hint.weight = value
        self._remember(self.model, weight_before)

    def get_value(self) -> Any:
        return self.hint.weight

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.hint.weight, _ = self.model.callback_states.pop(self._key)


def _hint_between(distiller, pair):
    for loss in distiller.distillation_losses:
        is_hint = type(loss) is losses.FeatureHint
        if is_hint and (loss.teacher_layer, loss.student_layer) == pair:
            return loss
    return None


def _config(value):
    if not hasattr(value, "get_config"):
        return value
    # Keras numbers the name of a layer by the layers made before it.
    own = {key: part for key, part in value.get_config().items() if key != "name"}
    return type(value).__name__, own
