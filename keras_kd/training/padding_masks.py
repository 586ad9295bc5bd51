"""Masks that inputs of the student are, on its outputs: padding counts nowhere."""

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.losses import projector as projectors
from keras_kd.taps import recorder


def mask_of(inputs, name):
    """The mask that an input is, boolean: what is not 0 counts.

    Args:
        inputs: Of a batch, `{name: tensor}`.
        name: Of the input.

    Raises:
        ValueError: There is no such input.
    """
    if not isinstance(inputs, dict) or name not in inputs:
        have = sorted(inputs) if isinstance(inputs, dict) else "without names"
        raise ValueError(
            f"A mask is read from input {name!r} (`mask_input`). The student's inputs are {have}. "
            "Name one of them, or pass the inputs as a dict."
        )
    return tf.cast(inputs[name], tf.bool)


def named_by(losses):
    """The inputs that losses on outputs name as their masks, `{output: input}`.

    Args:
        losses: `DistillationLoss`es; of two that name different ones for an output none counts.
    """
    named: dict = {}
    for reading in (loss.reading for loss in losses):
        if reading.student_layer is None and reading.mask_input is not None:
            named.setdefault(reading.output, set()).add(reading.mask_input)
    return {key: min(found) for key, found in named.items() if len(found) == 1}


def with_masks(outputs, names, inputs, given):
    """Outputs that carry masks of their positions, as Keras' tensors do.

    Keras then leaves masked positions out of the hard loss and of metrics, and the distillation
    losses leave them out too. Outputs without these positions stay as they are.

    Args:
        outputs: A tensor, or a structure of them.
        names: What outputs in a list are called, or `None`.
        inputs: Of the batch, `{name: tensor}`.
        given: `{output: input}`; an output `None` means all that have the input's positions.

    Raises:
        ValueError: No output has a mask's positions, or several have though it can be only one's.
    """
    flat = keras.tree.flatten(outputs)
    for key, name in given.items():
        mask = mask_of(inputs, name)
        chosen = [x for x in flat if key is None or _is(x, outputs, key, names)]
        fitting = [id(x) for x in chosen if _begins_with(x.shape, mask.shape)]
        _check(key, name, mask, [tuple(x.shape) for x in chosen], len(fitting), inputs)
        flat = [recorder.with_mask(x, mask) if id(x) in fitting else x for x in flat]
        outputs = keras.tree.pack_sequence_as(outputs, flat)
    return outputs


def has_positions(reading, values, mask):
    """Whether what is read of the student has the positions of a mask."""
    if reading.is_attention:  # [batch, heads, queries, keys]
        return len(mask.shape) == 2 and projectors.shapes_agree(values.shape[-2:-1], mask.shape[1:])
    return _begins_with(values.shape, mask.shape)


def _is(tensor, outputs, key, names):
    return tensor is models.flat_outputs(outputs, key, names, "student")[0]


def _begins_with(shape, positions):
    return len(shape) > len(positions) and projectors.shapes_agree(
        shape[: len(positions)], positions
    )


def _check(key, name, mask, shapes, fitting, inputs):
    if not fitting:
        raise ValueError(
            f"mask_input={name!r} has shape {tuple(mask.shape)}; no output has these positions "
            f"before its last axis: {shapes}. Leave `mask_input` out, and name it in the losses "
            "that read positions."
        )
    rank = len(mask.shape)
    masks_like_it = sorted(x for x in inputs if "mask" in x and len(inputs[x].shape) == rank)
    if key is None and fitting > 1 and len(masks_like_it) > 1:
        raise ValueError(
            f"mask_input={name!r} could be the padding of {fitting} outputs, and the inputs have "
            f"several masks: {masks_like_it}. Say which is whose: mask_input={{output: input}}, or "
            "`output` and `mask_input` of each loss."
        )
