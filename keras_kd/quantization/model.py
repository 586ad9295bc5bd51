"""`QuantizationAware`: a student that computes, while it trains, with the numbers of its file."""

import collections
import re

import keras
import tensorflow as tf
from keras import tree

from keras_kd import models
from keras_kd._utils import files, validation
from keras_kd._utils.serialization import deserialized
from keras_kd.models import cloning, paths
from keras_kd.quantization import fake_quant, layout, points
from keras_kd.quantization.fake_quant import named

# How far a range moves to that of a batch: about the last 50 batches count.
_RATE = 0.02


@keras.saving.register_keras_serializable(package="keras_kd")
class QuantizationAware(keras.Model):
    """A student whose weights and activations are rounded in its forward pass.

    `keras_kd.quantization_aware` makes it and tells how it is used. The student's own variables
    stay float and are trained; it is not copied, nor are its layers changed.

    Args:
        student: A built Keras model.
        scheme: `"int8"` or `"int4"`.
        roundings: As of `get_config`: activations that are rounded.
        operands: As of `get_config`: `[layer, index of its weight]` of variables that are rounded
            as activations are.
        leave: Paths of layers whose weights stay float while training.
        observe_steps: In how many steps of training the ranges of activations follow the batches;
            then they are frozen.
        name: The model's name.
        paths: As of `get_config`: the paths of the student's layers when it was saved. Keras gives
            a layer another name when it is loaded whose configuration does not have it.

    Raises:
        ValueError: An argument is wrong, names a layer that the student does not have, or a layer
            has kernels of which it is not known how a file rounds them.

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
        bits = named(scheme)
        validation.integer("observe_steps", observe_steps, 0)
        super().__init__(name=name or f"{student.name}_{scheme}", **kwargs)
        self.student = student
        now = now_at(student, paths, roundings, operands)
        if not isinstance(leave, str):  # which the plan of the weights refuses
            leave = tuple(now.get(path, path) for path in leave)
        operands = [[now.get(path, path), index] for path, index in operands]
        self.scheme, self.leave = scheme, leave
        self.observe_steps = int(observe_steps)
        self._roundings = [moved(each, now) for each in roundings]
        kernels = fake_quant.plan(student, bits, leave)
        self._weights_plan = models.Untracked(kernels + layout.at(student, operands))
        # Under the number of the site that moves it, its tensor's own or else the first: names of
        # variables may not hold what names of tensors do.
        first = {each["owner"]: i for i, each in reversed([*enumerate(self._roundings)])}
        first |= {x["owner"]: i for i, x in enumerate(self._roundings) if x.get("is_owner")}
        self.ranges = {
            str(i): fake_quant.ActivationRange(
                each["low"], each["high"], each["is_fixed"], name=f"range_{i}"
            )
            for i, each in enumerate(self._roundings)
            if first[each["owner"]] == i
        }
        self._sites = models.Untracked(self._by_site())
        self.observed = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            name="observed",
            aggregation="only_first_replica",
        )
        self.built = True

    def _by_owner(self):
        """`{tensor: its ActivationRange}`."""
        return {self._roundings[int(i)]["owner"]: found for i, found in self.ranges.items()}

    def _by_site(self):
        """`{site: (its range, whether it moves it)}`."""
        own = self._by_owner()
        return {
            points.Site(**each["site"]): (own[each["owner"]], str(i) in self.ranges)
            for i, each in enumerate(self._roundings)
        }

    @property
    def rounded_weights(self):
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
        by_site = self._sites.value
        only = {site.layer for site in by_site}

        def visit(site, value):
            if site not in by_site:
                return value
            activation, is_owner = by_site[site]
            return activation(value, rate=rate if is_owner else None)

        scope = keras.StatelessScope(mapping, collect_losses=True)
        inputs = self._rounded_inputs(inputs, visit)
        with scope, points.visited(self.student, visit, only):
            outputs = self.student(inputs, training=training, mask=mask)
        self._keep(scope, {id(variable) for variable, _ in mapping})
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    @staticmethod
    def _rounded_inputs(inputs, visit):
        flat = [
            visit(points.Site(str(i), points.INPUT), value) if value.dtype.is_floating else value
            for i, value in enumerate(map(tf.convert_to_tensor, tree.flatten(inputs)))
        ]
        return tree.pack_sequence_as(inputs, flat)

    def _rate(self):
        """How far the ranges move in this step; counts the steps."""
        seen = keras.ops.convert_to_tensor(self.observed)
        rate = tf.where(seen < self.observe_steps, _RATE, 0.0)
        self.observed.assign(seen + 1)  # after the rate: what was read may be the variable itself
        return rate

    def _keep(self, scope, given):
        """Assigns what the student's layers changed: BatchNormalization, seeds of dropout."""
        for variable in self.variables:
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in given:
                variable.assign(value)

    def rounded_student(self):
        """The student with its weights on the grid of its file: a plain Keras model, a copy."""
        fake_quant.refuse_lora(self.student)
        copy = cloning.with_weights(self.student)
        ours = {id(variable): i for i, variable in enumerate(self.student.weights)}
        for each in self.rounded_weights:
            copy.weights[ours[id(each.variable)]].assign(each.on_grid())
        return copy

    def integers(self):
        """The integers of the weights, `{path of the variable: int8 array}`, in its shape."""
        return {self._name(each): each.integers() for each in self.rounded_weights}

    def integers_by_channel(self):
        """The integers of weights with a scale for each channel, as `[size, channels]`."""
        return {
            self._name(each): fake_quant.by_channel(each.integers(), each.axes)
            for each in self.rounded_weights
            if isinstance(each, fake_quant.RoundedWeight)
        }

    def integers_of_operands(self):
        """The integers of variables with one scale for the whole."""
        return {
            self._name(each): each.integers()
            for each in self.rounded_weights
            if isinstance(each, layout.RoundedOperand)
        }

    @staticmethod
    def _name(each):
        return f"{each.layer}/{each.variable.name}".lstrip("/")

    def freeze(self):
        """Freezes the ranges of the activations now."""
        self.observed.assign(self.observe_steps)

    def bounds(self):
        """`{tensor of the file: (low, high)}` of the activations whose range is not fixed."""
        movers = {i: self._roundings[int(i)] for i in self.ranges}
        return {
            movers[i]["owner"]: tuple(movers[i]["factor"] * bound for bound in activation.bounds())
            for i, activation in self.ranges.items()
            if not activation.is_fixed
        }

    def parameters(self):
        """`{tensor of the file: (scale, zero point)}` of the same activations."""
        return {owner: fake_quant.parameters(*bounds) for owner, bounds in self.bounds().items()}

    def bounds_of_sites(self):
        """`{Site: (low, high)}` of the activations whose range is not fixed."""
        return {
            site: activation.bounds()
            for site, (activation, _) in self._sites.value.items()
            if not activation.is_fixed
        }

    def trained_ranges(self, student, content, arrays, calibrated):
        """The ranges of a float file's tensors with which the student was trained.

        Args:
            student: What the file was made of: the `rounded_student()`.
            content: The bytes of the float file.
            arrays: Representative data.
            calibrated: The ranges of the file's tensors over them, `{tensor: (low, high)}`.
        """
        return layout.trained_ranges(self, student, content, arrays, calibrated)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`; the file is there whole, or the one before is."""
        return files.save(super().save, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; the file is there whole, or the one before is."""
        return files.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def get_config(self):
        return {
            "student": keras.saving.serialize_keras_object(self.student),
            "scheme": self.scheme,
            "roundings": self._roundings,
            "operands": layout.places(self.rounded_weights),
            "leave": list(self.leave),
            "observe_steps": self.observe_steps,
            "name": self.name,
            "paths": of(self.student),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["student"] = deserialized(config["student"])
        return cls(**config)


# Places of layers in a student that was saved: Keras gives some another name when it is loaded.


_COUNTED = re.compile(r"_\d+(?=/|$)")


def of(student):
    """The paths of a student's layers, in their order."""
    return [path for path, _, _ in paths.walk(student)]


def now_at(student, before, roundings=(), operands=()):
    """`{path of a layer when the student was saved: its path now}` of those that differ.

    Args:
        student: The student.
        before: `of` the student when it was saved, or `None` where that is not known.
        roundings: Configurations of roundings, which name layers.
        operands: Places of operands, likewise.

    Raises:
        ValueError: They name a layer that the student does not have.
    """
    now, named = of(student), _named(roundings, operands)
    if before is not None and len(before) == len(now):
        found = {old: new for old, new in zip(before, now, strict=True) if old != new}
    else:
        found = _by_stem([path for path in named if path not in now], now, named)
    for path in named:
        if path not in now and path not in found:
            what = "operands" if any(path == each for each, _ in operands) else "roundings"
            raise validation.invalid(
                what, f"layers of {student.name!r}, such as {now[:5]}", repr(path)
            )
    return found


def _named(roundings, operands):
    sites_of_layers = [x["site"] for x in roundings if x["site"]["kind"] != points.INPUT]
    named = [x["layer"] for x in sites_of_layers] + [path for path, _ in operands if path]
    return list(dict.fromkeys(named))


def _by_stem(missing, now, named):
    """As `now_at` of a student that was saved without its paths: names but for their counters."""
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


def moved(rounding, now):
    """A rounding whose layer may have another path now."""
    site = dict(rounding["site"])
    if site["kind"] != points.INPUT:
        site["layer"] = now.get(site["layer"], site["layer"])
    return {**rounding, "site": site}
