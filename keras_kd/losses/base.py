"""`DistillationLoss`, the base class of every loss: its weight and hyperparameters as variables."""

import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.serialization import deserialized
from keras_kd._utils.validation import invalid, non_negative
from keras_kd.losses.reading import Reading
from keras_kd.models import matching
from keras_kd.ops import arguments
from keras_kd.taps import recorder, tap


class DistillationLoss(keras.layers.Layer):
    """Base class of the losses between a teacher's and a student's outputs.

    A loss is a layer, so that it can own weights (a projector that makes widths equal): they are
    trained and saved with the distiller but do not belong to the student. Subclasses implement
    `call(teacher_outputs, student_outputs)` and return a per-sample loss: `[batch]`, or
    `[batch, ...]` for sequences; the distiller weights and averages it. A `call` that also takes
    `labels` receives those of the output it reads (where they have the shape of the outputs, such
    as one-hot labels or numbers, set the class attribute `labels_are_numbers = True`); one that
    takes `training` receives whether the batch is trained on. A loss that compares the samples of a
    batch with each other sets `min_batch_size`.

    Args:
        weight: The loss's factor among the distillation losses, at least 0. Live: set
            `loss.weight` before or during `fit` and the next step uses it, without retracing.
        output: Which output of a model with several it reads: a name, or an index into a list.
            `None` reads every output, and adds the losses up. A teacher with one output teaches
            the named one. For a loss on inner layers: the output whose labels and sample weights it
            takes; `None` takes the mean of the outputs' sample weights.
        teacher_layer: Name of the teacher's layer whose output it reads instead, a path through
            nested models (`"backbone/block3"`), a layer, a function from the model to one of
            these, or a `keras_kd.taps.Tap` (a layer's input, its attention, one of its calls).
        student_layer: The same for the student.
        mask_input: Name of the student's input, in a dict of inputs, that is 0 where a position is
            padding (`"padding_mask"` of keras_hub's models). Default: the Keras mask of the
            student's tensor, if it carries one.
        teacher_output: Which output of the teacher it reads, where that has another name than
            `output`: a name, or an index into a list.
        name: The loss's entry in the history of `fit`.

    Weights and masks: a loss on outputs takes the sample weights of their positions. A loss on
    inner layers takes the weights position by position where its positions are those of the
    weights, else each sample's mean weight (of each image of a batch, of each sentence). A loss is
    averaged over the positions that its mask keeps.

    Example:

    ```python
    import keras
    import keras_kd as kd

    class LogitsMAE(kd.losses.DistillationLoss):
        def call(self, teacher_outputs, student_outputs):
            return keras.ops.mean(keras.ops.abs(teacher_outputs - student_outputs), axis=-1)

    loss = LogitsMAE(weight=0.1, name="logits_mae")
    ```
    """

    # Fewer samples than these make the loss meaningless; `fit` refuses such batches.
    min_batch_size = 1
    # Whether it can compare with a sparse teacher, whose largest logits alone are known.
    takes_sparse = False
    # Whether the labels that it takes have the shape of the outputs; else they are classes.
    labels_are_numbers = False
    # Set by the distiller that takes it.
    has_distiller = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "least_rows" in vars(cls):
            raise _renamed(cls, vars(cls)["least_rows"])

    def __init__(
        self,
        weight: float = 1.0,
        output: str | int | None = None,
        teacher_layer: Any = None,
        student_layer: Any = None,
        name: str | None = None,
        mask_input: str | None = None,
        teacher_output: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        # A float32 layer that casts nothing: the logits reach the loss in the models' own dtypes.
        validation.layer_arguments(kwargs)
        super().__init__(
            name=name or matching.keras_name(type(self).__name__), autocast=False, **kwargs
        )
        self.output_key = validation.output_key("output", output)
        self.teacher_output = validation.output_key("teacher_output", teacher_output)
        self.mask_input = validation.input_name("mask_input", mask_input)
        self.teacher_layer = _check_layers("teacher_layer", teacher_layer)
        self.student_layer = _check_layers("student_layer", student_layer)
        if self.teacher_layer is not None and self.teacher_output is not None:
            raise ValueError(
                "`teacher_output` and `teacher_layer` both name what the teacher gives; pass one. "
                f"Received: teacher_output={teacher_output!r}, teacher_layer={teacher_layer!r}"
            )
        self.weight_variable = self.add_scalar("weight", non_negative("weight", weight))

    def add_scalar(self, name: str, value: Any) -> Any:
        """Adds a hyperparameter that may change during `fit`: a float32 variable, not trained."""
        return add_hyperparameter(self, name, value)

    @property
    def weight(self) -> Any:
        """The loss's factor; assign a number to change it."""
        return read_number(self.weight_variable)

    @weight.setter
    def weight(self, value: Any) -> None:
        assign_number(self.weight_variable, non_negative("weight", value))

    @property
    def reads_structure(self) -> bool:
        """Whether it gets all outputs at once, in their structure."""
        return False

    @property
    def reading(self) -> Reading:
        """What the loss reads in a step, a `Reading`; all that must know it ask this."""
        needed = {True: "required", False: "optional"}
        return Reading(
            output=self.output_key,
            teacher_output=self.teacher_output,
            teacher_layer=self.teacher_layer,
            student_layer=self.student_layer,
            mask_input=self.mask_input,
            is_structure=self.reads_structure,
            labels=needed[self.requires("labels")] if self.takes("labels") else None,
            has_numbers=self.labels_are_numbers,
            is_exact=type(self).__module__.partition(".")[0] == "keras_kd",
        )

    @property
    def least_rows(self) -> Any:
        """The former name of `min_batch_size`: it can be neither read nor set."""
        raise AttributeError("`least_rows` is called `min_batch_size`. Read that instead.")

    @least_rows.setter
    def least_rows(self, value: Any) -> Any:
        raise _renamed(type(self), value)

    def takes(self, name: str) -> bool:
        """Whether `call` has an argument of this name."""
        return name in inspect.signature(self.call).parameters

    def requires(self, name: str) -> bool:
        """Whether `call` has an argument of this name without a default."""
        argument = inspect.signature(self.call).parameters.get(name)
        return argument is not None and argument.default is inspect.Parameter.empty

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        """`call`, each sample times its weight; samples of weight zero are zero.

        Args:
            teacher_outputs: Of the output or layer the loss reads.
            student_outputs: As `teacher_outputs`.
            row_weight: `[batch, ...]`, or `None` for 1.
            mask: The Keras mask of the student's output, `[batch, time]`, or `None`.
            **context: What `call` receives if it takes it: `labels` and `training`.

        Returns:
            `(weighted, rows)`: the weighted losses, float32 `[batch, ...]`, and how many of them
            are valid (float32 scalar).
        """
        outputs = keras.tree.map_structure(_as_numbers, (teacher_outputs, student_outputs))
        context = {name: value for name, value in context.items() if self.takes(name)}
        loss = keras.ops.cast(self(*outputs, **context), "float32")
        self._check_rows(loss, teacher_outputs, student_outputs)
        weight, count = self.valid_rows(loss, row_weight, mask)
        if weight is None:
            return loss, count
        return keras.ops.where(weight == 0, keras.ops.zeros_like(loss), loss * weight), count

    def valid_rows(self, loss: Any, row_weight: Any, mask: Any) -> tuple[Any, Any]:
        """The weight of each value, zero where masked, and how many are valid: see `valid_rows`."""
        if mask is not None and len(mask.shape) > len(loss.shape) > 0:
            self._report_unused_mask(mask, loss)
        return valid_rows(loss, row_weight, mask, self.reading.student_layer is None)

    def _report_unused_mask(self, mask, loss):
        """Warns that padding counts in a loss without positions; raises with `mask_input`."""
        if self.mask_input is not None:
            raise ValueError(
                f"Distillation loss {self.name!r} has mask_input={self.mask_input!r}, but what it "
                f"reads has no positions: its values have shape {tuple(loss.shape)}, the mask "
                f"{tuple(mask.shape)}. Leave `mask_input` out."
            )
        validation.warn(
            f"Distillation loss {self.name!r} gives values of shape {tuple(loss.shape)} for "
            f"features with a mask of shape {tuple(mask.shape)}: padded positions count in it. "
            "Compare what has no positions (pooled features), or take a loss that keeps them, such "
            "as HiddenStates."
        )

    def _check_rows(self, loss, teacher_outputs, student_outputs):
        rows = [keras.tree.flatten(x)[0].shape[0] for x in (student_outputs, teacher_outputs)]
        # A size that is known although the batch's is not is one of another axis.
        batch = next((size for size in rows if size is not None), None)
        if len(loss.shape) == 0 or loss.shape[0] not in (batch, None):
            raise ValueError(
                f"{type(self).__name__}.call must return one value for each row, shape [batch] or "
                f"[batch, ...] with batch={batch}. Received: shape {tuple(loss.shape)}. Do not "
                "average over the batch: sample weights are applied afterwards."
            )

    def validate(self, teacher: Any, student: Any) -> None:
        """Raises if this loss cannot be used with these models. Called by the distiller."""

    def build_from_config(self, config: dict[str, Any]) -> None:
        # Keras' own `build`, of losses without weights, takes one shape, and a loss has two.
        if type(self).build is not keras.layers.Layer.build:
            super().build_from_config(config)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "weight": float(self.weight),
                "output": self.output_key,
                "mask_input": self.mask_input,
                "teacher_output": self.teacher_output,
                "teacher_layer": _serialized(self.teacher_layer),
                "student_layer": _serialized(self.student_layer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes a loss of its configuration; what Keras has serialized in it is made again."""
        return cls(**{key: deserialized(value) for key, value in config.items()})


def _check_layers(role, layer):
    if isinstance(layer, (list, tuple)):
        return tuple(tap.check_layer(role, each) for each in layer)
    return layer if layer is None else tap.check_layer(role, layer)


def _renamed(cls, value):
    return TypeError(
        f"{cls.__name__} sets `least_rows`, a former name. Expected: `min_batch_size`, the "
        f"smallest batch that the loss can compare. Received: least_rows={value!r}. Write "
        f"min_batch_size = {value!r} instead."
    )


def _serialized(value):
    if isinstance(value, tuple):
        return [_serialized(each) for each in value]
    return keras.saving.serialize_keras_object(value) if isinstance(value, tap.Tap) else value


# Hyperparameters that may change before or during `fit` without retracing: variables.


def add_hyperparameter(layer: Any, name: str, value: Any) -> Any:
    """Adds a hyperparameter to a layer: a float32 variable that is saved but not trained."""
    variable = layer.add_weight(
        name=name,
        shape=(),
        initializer=keras.initializers.Constant(float(value)),
        dtype="float32",
        trainable=False,
        autocast=False,
    )
    variable.given = float(value)
    return variable


def assign_number(variable: Any, value: Any) -> None:
    """Sets a hyperparameter's variable."""
    variable.assign(value)
    if not tf.is_symbolic_tensor(value):
        variable.given = float(value)


def read_number(variable: Any) -> Any:
    """A variable's value: a Python float in eager code, a tensor inside a traced function.

    The float that it was given, where float32 holds it as nearly as it can: 0.7, not 0.699999988.
    """
    if not tf.executing_eagerly():
        return keras.ops.convert_to_tensor(variable)
    value = variable.numpy()
    given = getattr(variable, "given", None)
    return given if given is not None and np.float32(given) == value else float(value)


# Weights of samples and positions.


def valid_rows(loss: Any, row_weight: Any, mask: Any, is_exact: bool = True) -> tuple[Any, Any]:
    """The weight of each row of `loss` (`None` for 1), zero where masked, and the valid rows.

    A loss that has no time axis, such as one of pooled features, has nothing to mask.

    Args:
        loss: `[batch, ...]`.
        row_weight: `[batch, ...]`, or `None`.
        mask: `[batch, ...]`, or `None`.
        is_exact: Whether the weights are for the very positions of the loss. `False`: where they
            are for others it takes the mean weight of the row's positions.
    """
    count = keras.ops.cast(keras.ops.size(loss), "float32")
    if row_weight is not None and not is_exact and not _has_positions(loss, row_weight):
        row_weight = mean_weight(row_weight)
    weight = None if row_weight is None else fitted(row_weight, loss, "sample_weight")
    if mask is None or len(mask.shape) > len(loss.shape):
        return weight, count
    mask = keras.ops.broadcast_to(fitted(mask, loss, "The mask"), keras.ops.shape(loss))
    return mask if weight is None else mask * weight, keras.ops.sum(mask)


def _has_positions(loss, row_weight):
    """Whether a loss has the positions, `[batch, ...]`, that weights are for."""
    if len(row_weight.shape) > len(loss.shape):
        return all(size == 1 for size in row_weight.shape[len(loss.shape) :])
    sizes = zip(row_weight.shape[1:], loss.shape[1:], strict=False)
    return all(None in pair or pair[0] in (1, pair[1]) for pair in sizes)


def mean_weight(weight: Any) -> Any:
    """The mean weight of a row's positions, `[batch]`."""
    weight = keras.ops.cast(weight, "float32")
    axes = list(range(1, len(weight.shape)))
    return keras.ops.mean(weight, axis=axes) if axes else weight


def fitted(row_weight: Any, loss: Any, what: Any) -> Any:
    """`align`, of what must leave the shape of `loss` as it is.

    Multiplied with a weight of a longer axis the loss would be repeated along it, and its sum
    grow. Sizes that are known only when the step runs are compared then.
    """
    weight = align_weights(row_weight, loss)
    sizes = list(zip(weight.shape, loss.shape, strict=True))
    if any(None not in pair and pair[0] not in (1, pair[1]) for pair in sizes):
        raise ValueError(
            f"{what} of shape {tuple(row_weight.shape)} does not fit a loss of shape "
            f"{tuple(loss.shape)}. Expected [batch], or the loss's leading dimensions."
        )
    if any(pair[0] != 1 and None in pair for pair in sizes[1:]):
        weight = keras.ops.broadcast_to(weight, keras.ops.shape(loss))
    return weight


def align_weights(row_weight: Any, loss: Any) -> Any:
    """Row weights `[batch]` or `[batch, ...]` shaped to multiply `loss` from the left."""
    row_weight = keras.ops.cast(row_weight, "float32")
    missing = len(loss.shape) - len(row_weight.shape)
    if missing < 0:
        if any(dim != 1 for dim in row_weight.shape[len(loss.shape) :]):
            raise ValueError(
                f"sample_weight of shape {tuple(row_weight.shape)} does not fit a loss of shape "
                f"{tuple(loss.shape)}. Expected [batch], or the loss's leading dimensions."
            )
        return keras.ops.reshape(row_weight, keras.ops.shape(row_weight)[: len(loss.shape)])
    for _ in range(missing):
        row_weight = keras.ops.expand_dims(row_weight, -1)
    return row_weight


# A live temperature.


def check_temperature(temperature: float) -> Any:
    """Returns a temperature, a Python number as it was given, or raises."""
    tensor = arguments.convert_temperature(temperature)
    return tensor if tf.is_tensor(temperature) else float(temperature)


def live_temperature() -> property:
    """A property `temperature` over `temperature_variable`; a loss without one does not have it."""

    def get(loss: Any) -> Any:
        if loss.temperature_variable is None:
            raise AttributeError(f"{type(loss).__name__} has no temperature.")
        return read_number(loss.temperature_variable)

    def set_(loss: Any, value: Any) -> None:
        if loss.temperature_variable is None:
            raise AttributeError(f"{type(loss).__name__} has no temperature.")
        assign_number(loss.temperature_variable, check_temperature(value))

    return property(get, set_, doc="`T`; assign a positive number to change it.")


# Other helpers of losses.


def unreduced(loss: Any, first: Any, second: Any) -> Any:
    """The values of a Keras loss, or of a function, before any reduction."""
    if getattr(loss, "reduction", None) == "sum":
        raise ValueError(
            f"{type(loss).__name__}(reduction='sum') grows with the batch; a distillation loss is "
            "averaged over its rows. Leave `reduction` at its default, and set the loss's weight."
        )
    # `call` of a Loss gives the values before its reduction; a function gives them anyway.
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss
    return function(first, second)


def to_float32(value: Any) -> Any:
    """Half precision as float32: the squares of features overflow float16."""
    dtype = keras.backend.standardize_dtype(value.dtype)
    return keras.ops.cast(value, "float32") if keras.backend.is_float_dtype(dtype) else value


def _as_numbers(value):
    """A float32 tensor without a Keras mask: Keras warns where a layer's first argument has one."""
    value = to_float32(value)
    return value if recorder.mask_of(value) is None else tf.identity(value)


def refuse_mask(loss: Any, why: Any) -> None:
    """Raises if a loss without positions was given a mask of them.

    Args:
        loss: A `DistillationLoss`.
        why: What it compares instead, as the rest of a sentence.
    """
    if loss.mask_input is not None:
        raise invalid("mask_input", f"None: {type(loss).__name__} {why}", repr(loss.mask_input))
