"""`DistillationMonitor`: how close the student is to the teacher, epoch by epoch."""

import os
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models, ops
from keras_kd._utils import files, statistics, validation
from keras_kd._utils.validation import invalid
from keras_kd.callbacks.log_hyperparameters import check_before_trackers
from keras_kd.losses.activation import check_logits
from keras_kd.taps import tap


class DistillationMonitor(keras.callbacks.Callback):
    """Compares student and teacher on a batch after each epoch.

    The history (and a tracker, such as `TensorBoard`, that is listed after it) gets
    `probe_agreement`, the share of samples to which both give the same class; `probe_kl`, the mean
    `KL(teacher || student)` at temperature 1; and for each pair of layers `probe_cka_<student
    layer>`, how alike their features are, from 0 to 1 (where pairs share the student's layer,
    `probe_cka_<student layer>_<teacher layer>`). Both models run in inference mode: neither
    changes.

    Args:
        inputs: A batch of inputs, some hundred samples.
        pairs: `(teacher_layer, student_layer)` pairs; see `DistillationLoss`. Default: those of the
            distiller's losses.
        output: Which output of models with several: a name, or an index into a list.
        from_logits: Whether the models return logits; `False`: probabilities.
        plot: A file, such as `"distillation.png"`; when `fit` ends, the measurements are plotted
            into it (needs matplotlib).

    Raises:
        ValueError: In `fit`: there is no such layer, an output must be chosen, it has one value per
            sample, or a model ends in softmax despite `from_logits`; or `plot` is of a type that
            matplotlib does not write; or a tracker such as `TensorBoard` is listed before it.
        ImportError: `plot` is given, and matplotlib is missing.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monitor = kd.callbacks.DistillationMonitor(x[:32])
    history = distiller.fit(x, y, epochs=2, callbacks=[monitor], verbose=0).history
    assert len(history["probe_agreement"]) == 2
    ```
    """

    # It gives the student nothing to learn from: see `training.fit`.
    only_watches = True

    def __init__(
        self,
        inputs: Any,
        pairs: Any = None,
        output: str | int | None = None,
        from_logits: bool = True,
        plot: Any = None,
    ) -> None:
        super().__init__()
        self.inputs, self.pairs = _checked_inputs(inputs), _checked_pairs(pairs)
        self.output = validation.output_key("output", output)
        self.from_logits = validation.boolean("from_logits", from_logits)
        if plot is not None and not isinstance(plot, (str, os.PathLike)):
            raise invalid("plot", "the path of a file such as 'distillation.png', or None", plot)
        self.plot = plot
        self.measured: dict[str, list[float]] = {}
        self._prepared = False

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Checks what is compared; called by `fit` before any work."""
        check_before_trackers(self, callbacks)
        if self.plot is not None:
            _check_plot(pathlib.Path(self.plot))
        for role, model in (("teacher", distiller.teacher), ("student", distiller.student)):
            if self.from_logits:
                instead = "where a row has several labels, use keras_kd.measure after fit"
                name = type(self).__name__
                check_logits(role, model, self.output, name, instead=instead)
            outputs = models.output_specs(model)
            if outputs is not None:
                self._choose_output(outputs, distiller)
        self._prepared = True

    @staticmethod
    def _pairs_of(distiller):
        found = [(x.teacher_layer, x.student_layer) for x in distiller.distillation_losses]
        return [p for p in dict.fromkeys(found) if None not in p and tuple not in map(type, p)]

    def _comparison(self, distiller, pairs):
        both = distiller.comparison(pairs)

        def compare(inputs):
            teacher, student = both(inputs)
            logits = [self._logits(x.outputs, distiller) for x in (teacher, student)]
            features = [(teacher.taps[t], student.taps[s]) for t, s in pairs]
            return logits, features

        return compare

    def _choose_output(self, outputs, distiller):
        names = getattr(distiller.student, "output_names", None)
        chosen = models.flat_outputs(outputs, self.output, names)
        if len(chosen) != 1:
            raise ValueError(
                f"DistillationMonitor compares one output; the models have {len(chosen)}. Choose "
                "it: DistillationMonitor(..., output=name)."
            )
        if chosen[0].shape[-1] == 1:
            raise ValueError(
                "DistillationMonitor compares a value for each class; an output of shape "
                f"{tuple(chosen[0].shape)} has one, whose softmax is always 1."
            )
        return chosen[0]

    def _logits(self, outputs, distiller):
        logits = tf.cast(self._choose_output(outputs, distiller), tf.float32)
        return logits if self.from_logits else tf.math.log(logits)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._prepared:
            raise ValueError(
                "DistillationMonitor was not prepared: pass it in the `callbacks` of the fit of a "
                "keras_kd.Distiller, as a list."
            )
        self.measured = {}
        # Here, because hints may be attached after `prepare`.
        pairs = self._pairs_of(self.model) if self.pairs is None else list(self.pairs)
        resolved = [self.model.resolve_pair(*pair) for pair in pairs]
        self._names = _names(resolved)
        self._compare = tf.function(self._comparison(self.model, resolved), autograph=False)
        if self.model.student.built:  # a teacher that cannot run here raises before any step
            self._compare.get_concrete_function(self._inputs())

    def _inputs(self):
        return keras.tree.map_structure(tf.convert_to_tensor, self.inputs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        (teacher, student), features = self._compare(self._inputs())
        agree = np.argmax(teacher, -1) == np.argmax(student, -1)
        values = {
            "probe_agreement": float(np.mean(agree)),
            "probe_kl": float(np.mean(ops.soft_target_loss(student, teacher))),
        }
        for name, (of_teacher, of_student) in zip(self._names, features, strict=True):
            values[f"probe_cka_{name}"] = statistics.cka(
                *(tf.cast(x, tf.float32) for x in (of_teacher, of_student))
            )
        for name, value in values.items():
            self.measured.setdefault(name, []).append(value)
        if logs is not None:
            logs.update(values)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.plot is not None and self.measured:
            self._draw(pathlib.Path(self.plot))

    def _draw(self, path):
        figure = _figure()(figsize=(9, 3.5), layout="constrained")
        axes = figure.subplots(1, 2)
        for name, values in self.measured.items():
            where = axes[1] if name == "probe_kl" else axes[0]
            where.plot(range(1, len(values) + 1), values, marker="o", label=name)
        axes[0].set(xlabel="epoch", title="agreement and CKA", ylim=(0, 1.02))
        axes[1].set(xlabel="epoch", title="KL(teacher || student)")
        for each in axes:
            each.legend(fontsize="small")
        with files.replace_atomically(path) as partial:
            figure.savefig(partial, dpi=150)


def _checked_inputs(inputs):
    """Returns a batch of inputs: arrays, or a structure of them."""
    parts = keras.tree.flatten(inputs)
    if not parts or any(len(getattr(part, "shape", ())) == 0 for part in parts):
        expected = (
            "a batch of inputs, an array [rows, ...] or a structure of arrays, such as x[:256]"
        )
        raise invalid("inputs", expected, repr(inputs))
    return inputs


def _checked_pairs(pairs):
    """Returns pairs of layers, or `None`."""
    if pairs is None:
        return None
    is_list = isinstance(pairs, (list, tuple))
    if not is_list or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise invalid(
            "pairs", "a list of pairs (teacher_layer, student_layer), or None", repr(pairs)
        )
    names = ("teacher_layer", "student_layer")
    for i, pair in enumerate(pairs):
        for name, layer in zip(names, pair, strict=True):
            tap.check_layer(f"pairs[{i}]: {name}", layer)
    return list(pairs)


def _names(pairs):
    """A unique name for each pair: the student's layer, or both where pairs share it."""
    of_students = [tap.plain_name(student) for _, student in pairs]
    return [
        name if of_students.count(name) == 1 else f"{name}_{tap.plain_name(teacher)}"
        for name, (teacher, _) in zip(of_students, pairs, strict=True)
    ]


def _check_plot(path):
    """Raises unless it can be written; makes its folder."""
    known = _figure()().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(
            f"`plot` must be a file whose name ends in one of {sorted(known)}. "
            f"Received: plot={str(path)!r}"
        )
    files.check_writable(path, "plot")


def _figure():
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "A plot needs matplotlib: pip install 'keras-kd[plot]', or leave out `plot`."
        ) from error
    return Figure
