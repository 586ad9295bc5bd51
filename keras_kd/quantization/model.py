"""`QuantizationAware`: a student that computes, while it trains, with the integers of its file."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_kd import models
from keras_kd._utils import files, validation
from keras_kd._utils.serialization import deserialized
from keras_kd.export.student import ExportableModel
from keras_kd.models import cloning, paths
from keras_kd.quantization import fake_quant, layout, points
from keras_kd.quantization.layout import RoundedOperand, Rounding
from keras_kd.quantization.points import QuantizationPoint

# How far a range moves to that of a batch: about the last 50 batches count.
_RATE = 0.02


@keras.saving.register_keras_serializable(package="keras_kd")
class QuantizationAware(keras.Model):
    """A student whose weights and activations are rounded in its forward pass.

    `keras_kd.quantization_aware` makes it; see there how it is used. The student's own variables
    stay float and are trained; it is not copied, nor are its layers changed.

    Args:
        student: A built Keras model.
        scheme: `"int8"` or `"int4"`.
        roundings: The activations that are rounded, as `get_config` returns them.
        operands: `[layer, index of its weight]` of variables that are rounded as activations are,
            as `get_config` returns them.
        leave: Paths of layers whose weights stay float while training.
        observe_steps: In how many steps of training the ranges of activations follow the batches;
            then they are frozen.
        name: The model's name.
        paths: The paths of the student's layers when it was saved, as `get_config` returns them. A
            layer without a name in its configuration has another one when Keras loads it.

    Raises:
        ValueError: An argument is wrong, names a layer that the student does not have, or it is not
            known how a file rounds the kernels of a layer.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    aware = kd.quantization.QuantizationAware(student, "int4")
    outputs = aware(np.ones((2, 8), "float32"))  # of weights with at most 15 values a channel
    ```
    """

    def __init__(
        self,
        student,
        scheme="int8",
        roundings=(),
        operands=(),
        leave=(),
        observe_steps=200,
        name=None,
        paths=None,
        **kwargs,
    ):
        if not isinstance(student, keras.Model) or not student.built:
            raise validation.invalid("student", "a built keras.Model", repr(student))
        bits = fake_quant.scheme_named(scheme)
        validation.integer("observe_steps", observe_steps, 0)
        super().__init__(name=name or f"{student.name}_{scheme}", **kwargs)
        self.student = student
        given = [Rounding.from_config(each) for each in roundings]
        now = _renamed_layers(student, paths, given, operands)
        if not isinstance(leave, str):  # `plan_weights` raises for it
            leave = tuple(now.get(path, path) for path in leave)
        operands = [[now.get(path, path), index] for path, index in operands]
        self.scheme, self.leave = scheme, leave
        self.observe_steps = int(observe_steps)
        self._roundings = models.Untracked([_with_renamed_layer(each, now) for each in given])
        kernels = fake_quant.plan_weights(student, bits, leave)
        self._weights_plan = models.Untracked(kernels + layout.operands_at(student, operands))
        self.ranges = self._new_ranges()
        self._by_point = models.Untracked(self._ranges_by_point())
        self.observed = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            name="observed",
            aggregation="only_first_replica",
        )
        self.built = True

    def _new_ranges(self):
        """`{index of a rounding: ActivationRange}`, one for each owner.

        The index is that of the point that moves the range, the owner's own or else the first: in
        contrast to names of tensors, it may be in the name of a variable.
        """
        roundings = self._roundings.value
        first = {each.owner: i for i, each in reversed([*enumerate(roundings)])}
        first |= {each.owner: i for i, each in enumerate(roundings) if each.is_owner}
        return {
            str(i): fake_quant.ActivationRange(
                each.low, each.high, each.is_fixed, name=f"range_{i}"
            )
            for i, each in enumerate(roundings)
            if first[each.owner] == i
        }

    def _ranges_by_point(self):
        """`{point: (its range, whether it moves it)}`."""
        roundings = self._roundings.value
        own = {roundings[int(i)].owner: found for i, found in self.ranges.items()}
        return {
            each.point: (own[each.owner], str(i) in self.ranges) for i, each in enumerate(roundings)
        }

    @property
    def rounded_weights(self) -> list[Any]:
        """The weights that are rounded, a list of `RoundedWeight` and `RoundedOperand`."""
        return list(self._weights_plan.value)

    @property
    def inputs(self):
        return self.student.inputs

    @property
    def outputs(self):
        return self.student.outputs

    @property
    def input(self):
        # A Sequential student that was never called has no `input` yet.
        single = isinstance(self.student, keras.Sequential)
        return self.student.inputs[0] if single else self.student.input

    @property
    def output(self):
        single = isinstance(self.student, keras.Sequential)
        return self.student.outputs[0] if single else self.student.output

    @property
    def output_names(self):
        return self.student.output_names

    def call(self, inputs, training=None, mask=None):
        fake_quant.refuse_lora(self.student)  # which may have been enabled since
        mapping = [(each.variable, each.on_grid()) for each in self.rounded_weights]
        rate = self._rate() if training else None
        by_point = self._by_point.value
        only = {point.layer for point in by_point}

        def visit(point, value):
            if point not in by_point:
                return value
            activation, is_owner = by_point[point]
            return activation(value, rate=rate if is_owner else None)

        scope = keras.StatelessScope(mapping, collect_losses=True)
        inputs = self._rounded_inputs(inputs, visit)
        with scope, points.visiting(self.student, visit, only):
            outputs = self.student(inputs, training=training, mask=mask)
        self._keep(scope, {id(variable) for variable, _ in mapping})
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    @staticmethod
    def _rounded_inputs(inputs, visit):
        flat = [
            visit(QuantizationPoint(str(i), points.INPUT), value)
            if value.dtype.is_floating
            else value
            for i, value in enumerate(map(tf.convert_to_tensor, tree.flatten(inputs)))
        ]
        return tree.pack_sequence_as(inputs, flat)

    def _rate(self):
        """How far the ranges move in this step; counts the steps."""
        seen = keras.ops.convert_to_tensor(self.observed)
        rate = tf.where(seen < self.observe_steps, _RATE, 0.0)
        self.observed.assign(seen + 1)  # after the rate: `seen` may be the variable itself
        return rate

    def _keep(self, scope, given):
        """Assigns the variables that layers changed: BatchNormalization, seeds of dropout."""
        for variable in self.variables:
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in given:
                variable.assign(value)

    def rounded_student(self) -> keras.Model:
        """The student with its weights on the grid of its file: a plain Keras model, a copy."""
        fake_quant.refuse_lora(self.student)
        copy = cloning.with_weights(self.student)
        ours = {id(variable): i for i, variable in enumerate(self.student.weights)}
        for each in self.rounded_weights:
            copy.weights[ours[id(each.variable)]].assign(each.on_grid())
        return copy

    def integers(self) -> dict[str, np.ndarray]:
        """The integers of the weights, `{path of the variable: int8 array}`, in its shape."""
        return {self._name(each): each.integers() for each in self.rounded_weights}

    def integers_by_channel(self) -> dict[str, np.ndarray]:
        """The integers of weights with one scale per channel, as `[size, channels]`."""
        return {
            self._name(each): fake_quant.by_channel(each.integers(), each.axes)
            for each in self.rounded_weights
            if isinstance(each, fake_quant.RoundedWeight)
        }

    def integers_of_operands(self) -> dict[str, np.ndarray]:
        """The integers of variables with one scale."""
        return {
            self._name(each): each.integers()
            for each in self.rounded_weights
            if isinstance(each, RoundedOperand)
        }

    @staticmethod
    def _name(each):
        return f"{each.layer}/{each.variable.name}".lstrip("/")

    def freeze(self) -> None:
        """Freezes the ranges of the activations now."""
        self.observed.assign(self.observe_steps)

    def bounds(self) -> dict[str, tuple[float, float]]:
        """`{tensor of the file: (low, high)}` of the activations whose range is not fixed."""
        found = {}
        for i, activation in self.ranges.items():
            rounding, (low, high) = self._roundings.value[int(i)], activation.bounds()
            if not activation.is_fixed:
                found[rounding.owner] = rounding.factor * low, rounding.factor * high
        return found

    def parameters(self) -> dict[str, tuple[float, int]]:
        """`{tensor of the file: (scale, zero point)}` of the same activations."""
        return {owner: fake_quant.parameters(*bounds) for owner, bounds in self.bounds().items()}

    def bounds_of_sites(self) -> dict[QuantizationPoint, tuple[float, float]]:
        """`{point: (low, high)}` of the activations whose range is not fixed."""
        return {
            point: activation.bounds()
            for point, (activation, _) in self._by_point.value.items()
            if not activation.is_fixed
        }

    def trained_ranges(
        self,
        exportable: ExportableModel,
        content: bytes,
        arrays: list[np.ndarray],
        calibrated: dict[str, tuple[float, float]],
    ) -> dict[str, tuple[float, float]]:
        """The trained ranges of a float file's tensors, `{tensor: (low, high)}`.

        Args:
            exportable: The model of the file: the `rounded_student()`.
            content: The content of the float file.
            arrays: Representative data.
            calibrated: The ranges of the file's tensors over them, `{tensor: (low, high)}`.
        """
        bounds = self.bounds_of_sites()
        return layout.trained_ranges(bounds, exportable, content, arrays, calibrated)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`; a failure leaves the file as it was before."""
        return files.save(super().save, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; a failure leaves the file as it was before."""
        return files.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def get_config(self):
        return {
            "student": keras.saving.serialize_keras_object(self.student),
            "scheme": self.scheme,
            "roundings": [each.get_config() for each in self._roundings.value],
            "operands": layout.operand_places(self.rounded_weights),
            "leave": list(self.leave),
            "observe_steps": self.observe_steps,
            "name": self.name,
            "paths": _layer_paths(self.student),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["student"] = deserialized(config["student"])
        return cls(**config)


# Layers of a loaded student: Keras gives some another name than they had when it was saved.


_COUNTED = re.compile(r"_\d+(?=/|$)")


def _layer_paths(student: keras.Model) -> list[str]:
    """The paths of a student's layers, in their order."""
    return [path for path, _, _ in paths.walk(student)]


def _renamed_layers(
    student: keras.Model,
    before: Sequence[str] | None,
    roundings: Iterable[Rounding] = (),
    operands: Sequence[Sequence[Any]] = (),
) -> dict[str, str]:
    """`{path of a layer when the student was saved: its path now}` of those that differ.

    Args:
        student: The student.
        before: The paths of its layers when it was saved, or `None` where they are not known.
        roundings: Roundings, which name layers.
        operands: Places of operands, which name layers too.

    Raises:
        ValueError: They name a layer that the student does not have.
    """
    of_layers = [each.point.layer for each in roundings if each.point.kind != points.INPUT]
    of_operands = [path for path, _ in operands if path]
    now, named = _layer_paths(student), list(dict.fromkeys(of_layers + of_operands))
    if before is not None and len(before) == len(now):
        found = {old: new for old, new in zip(before, now, strict=True) if old != new}
    else:
        found = _matched_by_stem([path for path in named if path not in now], now, named)
    for path in named:
        if path not in now and path not in found:
            raise validation.invalid(
                "operands" if path in of_operands else "roundings",
                f"layers of {student.name!r}, such as {now[:5]}",
                repr(path),
            )
    return found


def _matched_by_stem(missing, now, named):
    """As `_renamed_layers`, of a student saved without its paths: by names without counters."""
    free = collections.defaultdict(list)
    for path in now:
        if path not in named:
            free[_COUNTED.sub("", path)].append(path)
    old = collections.defaultdict(list)
    for path in missing:
        old[_COUNTED.sub("", path)].append(path)
    return {
        path: there
        for stem, each in old.items()
        if len(each) == len(free[stem])
        for path, there in zip(sorted(each, key=_counters), free[stem], strict=True)
    }


def _counters(path):
    return [int(number) for number in re.findall(r"\d+", path)]


def _with_renamed_layer(rounding: Rounding, now: Mapping[str, str]) -> Rounding:
    """A rounding whose layer may have another path now."""
    point = rounding.point
    if point.kind == points.INPUT:
        return rounding
    moved = dataclasses.replace(point, layer=now.get(point.layer, point.layer))
    return dataclasses.replace(rounding, point=moved)
