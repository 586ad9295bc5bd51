"""Batches that carry the teacher's outputs with them.

A cached teacher, and one that runs outside of TensorFlow, cannot be asked in a step. The data
pipeline puts what it said into the batch, beside the inputs:

`{"inputs": inputs, "keras_kd_teacher": {"outputs": ..., "taps": {origin: {layer: ...}}}}`

Datasets, strategies and Keras take such a dict as any other structure of inputs.
"""

import dataclasses
from typing import Any

import keras

INPUTS, TEACHER = "inputs", "keras_kd_teacher"


@dataclasses.dataclass
class Carried:
    """What a teacher said of a batch: its outputs, those of its layers by name, and its cache."""

    outputs: Any
    taps: dict
    origin: str = ""


def join(inputs, outputs, taps=None, origin=""):
    """The inputs of a batch with the teacher's outputs.

    Args:
        inputs: The batch's inputs.
        outputs: The teacher's outputs.
        taps: Those of its layers by name.
        origin: The identity of the cache that they come from. A name of the dict holds it, because
            structures of tensors have no other place for a text that XLA would not see.
    """
    # A tuple, because datasets take a list for one array.
    outputs = tuple(outputs) if isinstance(outputs, list) else outputs
    return {
        INPUTS: inputs,
        TEACHER: {"outputs": outputs, "taps": {origin: dict(taps or {})}},
    }


def split(x):
    """Returns `(inputs, carried)`; `carried` is `None` for a batch that carries nothing."""
    if not carries(x):
        return x, None
    ((origin, taps),) = x[TEACHER]["taps"].items()
    return x[INPUTS], Carried(x[TEACHER]["outputs"], taps, origin)


def carries(x):
    """Whether a batch, or the specification of one, carries teacher outputs."""
    return isinstance(x, dict) and TEACHER in x


def element_of(parts):
    """The element of a dataset of which `map` gave the parts."""
    return parts if len(parts) > 1 else parts[0]


def parts_of(element):
    """What `map` gives a function of an element: `element_of` the other way round."""
    return element if isinstance(element, tuple) else (element,)


def inputs_of(element):
    """The inputs of an element of a dataset: `x`, or that of `(x, y)` or `(x, y, weight)`."""
    return element[0] if isinstance(element, tuple) else element


def with_inputs(element, inputs):
    """The element of a dataset with other inputs."""
    return (inputs, *element[1:]) if isinstance(element, tuple) else inputs


def placeholder(spec, inputs):
    """Zeros of a specification `[batch, ...]`, with as many rows as the inputs have.

    For the rehearsal, in which no batch exists.
    """
    rows = keras.ops.shape(keras.tree.flatten(inputs)[0])[0]
    return keras.tree.map_structure(lambda x: keras.ops.zeros((rows, *x.shape[1:]), x.dtype), spec)
