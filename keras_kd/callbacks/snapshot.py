"""`SnapshotTeacher`: the student of an earlier epoch is the teacher."""

from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd.callbacks import schedules
from keras_kd.teachers import self_distillation

_STATE = "snapshot_teacher_beta"


class SnapshotTeacher(keras.callbacks.Callback):
    """Gives a `keras_kd.teachers.Snapshot` the student's weights before an epoch.

    Before the first snapshot there is no teacher: `beta` is 0 until then. A run that is interrupted
    and resumed continues as if it had not been.

    Args:
        start_epoch: The epoch before which the first snapshot is taken, at least 1.
        every: Epochs from one snapshot to the next.

    Raises:
        ValueError: An argument is wrong; in `fit`: the teacher is not a `Snapshot`, or `beta` is
            scheduled too.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(kd.teachers.Snapshot(student), student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(x, y, epochs=3, callbacks=[kd.callbacks.SnapshotTeacher()], verbose=0)
    ```

    Reference: Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets",
    https://arxiv.org/abs/2006.12000
    """

    def __init__(self, start_epoch: int = 1, every: int = 1) -> None:
        super().__init__()
        self.start_epoch = validation.integer("start_epoch", start_epoch, 1)
        self.every = validation.integer("every", every, 1)

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Checks the callbacks beside it; called by `fit`."""
        why = ": beta is 0 until the first snapshot"
        schedules.check_no_schedule("beta", callbacks, self, why)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        teacher = getattr(self.model, "teacher", None)
        if not isinstance(teacher, self_distillation.Snapshot):
            raise ValueError(
                "SnapshotTeacher needs a distiller whose teacher is a keras_kd.teachers.Snapshot. "
                f"Received: a teacher of type {type(teacher).__name__}."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        states = self.model.callback_states
        if epoch < self.start_epoch:
            if _STATE not in states:
                states[_STATE] = np.float32(self.model.beta)
            self.model.beta = 0.0
            return
        if _STATE in states:
            self.model.beta = float(states.pop(_STATE))
        # In a resumed epoch the teacher was restored with everything else.
        is_due = (epoch - self.start_epoch) % self.every == 0
        if is_due and not self.model.fit_progress.is_within_epoch:
            self.model.teacher.take(self.model.student)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        states = self.model.callback_states
        if _STATE in states:  # fit ended before the first snapshot
            self.model.beta = float(states.pop(_STATE))
