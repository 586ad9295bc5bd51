"""`summary` of distillers: Keras' own table, with the teacher and the losses in it.

Keras lists what a model tracks. A distiller does not track its teacher, which is left as it was,
so it would be missing; and of the losses there would be one line for all.
"""

import shutil
import textwrap
import types

import keras
import numpy as np

from keras_kd._utils import progress
from keras_kd.models.inspect import Untracked, output_specs
from keras_kd.teachers import self_distillation
from keras_kd.teachers.keras_model import FunctionTeacher, adapt


def of_distiller(distiller, **options):
    """Prints the summary of a `Distiller`.

    Args:
        distiller: The `Distiller`.
        **options: The arguments of `keras.Model.summary`.
    """
    losses = distiller.loss_list
    layers: list = []
    for layer in distiller.layers:
        layers += losses.losses_in_order if layer is losses else [layer]
    teacher = _teacher_row(distiller.teacher)
    tail = [_of_teacher(distiller.teacher), *_of_totals(distiller, layers)]
    optimizer = getattr(distiller, "optimizer", None)  # before `compile` there is none
    _print(_View(distiller, [*layers, teacher], optimizer), tail, **options)


def of_mutual(distiller, **options):
    """Prints the summary of a `MutualDistiller`.

    Args:
        distiller: The `MutualDistiller`.
        **options: The arguments of `keras.Model.summary`.
    """
    layers = [*distiller.peers, distiller.distillation_loss]
    made = [each for each in distiller.optimizers if each is not None and each.built]
    variables = [variable for each in made for variable in each.variables]
    optimizer = types.SimpleNamespace(built=True, variables=variables) if made else None
    tail = [*_of_totals(distiller, layers), *_of_peers(distiller)]
    _print(_View(distiller, layers, optimizer), tail, **options)


class _View(keras.Model):
    """A model as `keras.Model.summary` is to see it; it owns nothing.

    Args:
        model: Whose totals are shown.
        layers: What the lines of the table are.
        optimizer: Whose variables are counted, or `None`.
    """

    def __init__(self, model, layers, optimizer):
        super().__init__(name=model.name)
        self._model, self._layers_shown = Untracked(model), Untracked(layers)
        self.built, self.compiled = True, model.compiled
        self._optimizer_shown = Untracked(optimizer)

    @property
    def layers(self):
        return self._layers_shown.value

    @property
    def optimizer(self):
        return self._optimizer_shown.value

    @optimizer.setter
    def optimizer(self, value):
        del value  # Keras' constructors set one

    @property
    def trainable_weights(self):
        return self._model.value.trainable_weights

    @property
    def non_trainable_weights(self):
        return self._model.value.non_trainable_weights


class _Frozen(keras.layers.Layer):
    """A teacher's layer as a line of the table: whatever its `trainable` says, it is not trained.

    Args:
        layer: The layer.
    """

    def __init__(self, layer):
        super().__init__(name=layer.name, trainable=False, dtype="float32")
        self._layer, self._outputs = Untracked(layer), Untracked(_output_shapes(layer))
        if self._outputs.value is not None:
            self.build((None,))  # Keras shows shapes of layers that know what they are built with
        self.built = layer.built

    @property
    def weights(self):
        return self._layer.value.weights

    @property
    def layers(self):
        return [_frozen(each) for each in _parts(self._layer.value)]

    def count_params(self):
        return _count(self.weights)

    def build(self, input_shape):
        del input_shape  # it has no weights of its own

    def compute_output_shape(self, input_shape):
        del input_shape
        return self._outputs.value


def _frozen(layer):
    # Keras shows the name of the class.
    return type(type(layer).__name__, (_Frozen,), {})(layer)


def _teacher_row(teacher):
    return _frozen(teacher if isinstance(teacher, keras.layers.Layer) else adapt(teacher))


def _parts(layer):
    """The layers inside of a model, and the models inside of a teacher that is not one."""
    if isinstance(layer, keras.Model):
        return layer.layers
    held = [
        each
        for value in vars(layer).values()
        for each in (value if isinstance(value, (list, tuple)) else [value])
    ]
    found = {id(each): each for each in held if isinstance(each, keras.Model)}
    return list(found.values())


def _output_shapes(layer):
    """The shapes of a layer's outputs in their structure, or `None` where they are not known."""
    outputs = output_specs(layer)
    if outputs is None:
        try:
            outputs = layer.output
        except AttributeError:  # it was never called on symbolic inputs
            return None
    return keras.tree.map_structure(lambda x: tuple(x.shape), outputs)


def _count(weights):
    unique = {id(weight): weight for weight in weights}
    return sum(int(np.prod(weight.shape)) for weight in unique.values())


def _of_teacher(teacher):
    source = adapt(teacher)
    kind = "function" if isinstance(source, FunctionTeacher) else type(teacher).__name__
    known = _count(source.weights)
    params = f"{known:,} params" if known else "no params that Keras knows of"
    frozen = "frozen: it is not trained, and not counted above"
    if isinstance(source, self_distillation.StudentTeacher):
        frozen = "not trained, it follows the student's weights, and not counted above"
    return f"Teacher: {source.name} ({kind}), {params}, {frozen}"


def _of_totals(model, layers):
    """What the totals are made of."""
    lines = []
    for kind, title in (("trainable", "Trained"), ("non_trainable", "Not trained")):
        listed, left = [], {id(each): each for each in getattr(model, f"{kind}_weights")}
        for layer in layers:
            own = [left.pop(id(each), None) for each in getattr(layer, f"{kind}_weights")]
            count = _count(each for each in own if each is not None)
            listed += [f"{count:,} of {layer.name}"] if count else []
        rest = _count(left.values())
        listed += [f"{rest:,} of {model.name} (alpha, beta)"] if rest else []
        lines.append(f"{title}: {', '.join(listed) or 'nothing'}")
    return lines


def _of_peers(distiller):
    names = [peer.name for peer in distiller.peers]
    lines = []
    for name, row in zip(names, distiller.teaching, strict=True):
        teachers = [f"{each} ({share:g})" for each, share in zip(names, row, strict=True) if share]
        lines.append(f"{name} learns from the labels{''.join(f', {each}' for each in teachers)}")
    return lines


def _print(view, tail, line_length=None, print_fn=None, **options):
    """Keras' table, and lines behind it that are as wide."""
    width = line_length or min(88, shutil.get_terminal_size().columns - 4)
    lines = [
        line
        for each in tail
        for line in textwrap.wrap(each, width, initial_indent=" ", subsequent_indent="   ")
    ]
    text = "\n".join(lines)
    if print_fn is None:
        view.summary(line_length=line_length, **options)
        progress.print_line(text)
        return
    tables: list = []
    view.summary(line_length=line_length, print_fn=tables.append, **options)
    print_fn("".join([*tables, f"{text}\n"]))
