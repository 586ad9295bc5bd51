"""What goes into a model's ONNX graph and comes out: structure, shapes, names."""

import dataclasses
import re

import keras
import tensorflow as tf

from keras_kd import models

_MADE_UP = re.compile(r"(keras_tensor|input_layer)(_\d+)?")


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of a graph.

    Args:
        structure: The model's inputs, one in each place.
        names: Names of the inputs, flat.
        specs: A `tf.TensorSpec` for each.
    """

    structure: object
    names: list
    specs: list


def signature(model, example, batch_size):
    """The signature of a model.

    Args:
        model: A built `keras.Model`.
        example: Inputs as arrays or specs, in their structure, for a model that does not know the
            shapes of its own; else `None`.
        batch_size: Rows of each call; `None`: any number.

    Raises:
        ValueError: The shapes are not known, or an input is text.
    """
    structure = models.input_specs(model)
    if structure is None:
        structure = _from_example(model, example)
    flat = keras.tree.flatten(structure)
    names = _input_names(model, structure, flat)
    for name, x in zip(names, flat, strict=True):
        if x.dtype == "string":
            raise ValueError(
                f"Input {name!r} of {model.name!r} is text, which ONNX models cannot be given. "
                "Turn text into numbers outside of the student (TextVectorization, StringLookup)."
            )
    specs = [
        tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype, name=_plain(name))
        for name, x in zip(names, flat, strict=True)
    ]
    return Signature(structure, names, specs)


def _from_example(model, example):
    if example is None:
        raise ValueError(
            f"The shapes of the inputs of {model.name!r}, a {type(model).__name__}, are not known: "
            "it is no Sequential or Functional model. Pass some inputs: to_onnx(..., data=inputs)."
        )
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor((None, *x.shape[1:]), x.dtype), example
    )


def _input_names(model, structure, flat):
    """The keys of a dict, else the names that the user gave, else `input`."""
    if isinstance(structure, dict):
        return models.names_in(structure)
    own = [x.name for x in model.inputs] if getattr(model, "inputs", None) else [""] * len(flat)
    alone = len(own) == 1
    return _distinct(
        name if name and not _MADE_UP.fullmatch(name) else "input" if alone else f"input_{i}"
        for i, name in enumerate(own)
    )


def output_names(model, outputs, taken):
    """Names of a model's outputs.

    Args:
        model: The model.
        outputs: What it returned, in its structure.
        taken: Names that the inputs have.

    Returns:
        The keys of a dict, else the names of the layers, else `output`; flat, all distinct.
    """
    count = len(keras.tree.flatten(outputs))
    # Of a layer that is called twice both outputs have its name.
    own = models.output_names(model, outputs) or list(getattr(model, "output_names", None) or [])
    if len(own) != count:
        own = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    return _distinct(own, taken)


def _distinct(names, taken=()):
    found = []
    for name in names:
        other, number = name, 1
        while other in found or other in taken:
            other, number = f"{name}_{number}", number + 1
        found.append(other)
    return found


def _plain(name):
    """A name that TensorFlow takes for an argument."""
    return re.sub(r"\W", "_", name)
