"""Which tensor is meant of a layer that gives several."""

import keras

from keras_kd.taps import tap


def shape_of(value):
    """The shape of a tensor; `None` of what is none, such as a state that a layer leaves out."""
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def chosen(where, tapped, value):
    """The one tensor that a tap means.

    Args:
        where: Names the layer, for messages.
        tapped: The `Tap`.
        value: What the layer gave, or was given: a tensor, or a structure of them.

    Raises:
        ValueError: Several are there and none is chosen, or the chosen one is not there.
    """
    by_key = _by_key(value)
    there = {key: each for key, each in by_key.items() if shape_of(each) is not None}
    if tapped.index is None:
        if len(there) == 1:
            return next(iter(there.values()))
        if not there:
            raise ValueError(f"{where} {_gives(tapped)} no tensor. Received: {value!r}")
        raise ValueError(
            f"{where} {_gives(tapped)} {len(there)} tensors, with the shapes {_listed(there)}. "
            f"Say which is meant: {tap.remedy(tapped, index=next(iter(there)))}."
        )
    # From the end, as in lists; the keys of a dict are no numbers.
    index = tapped.index
    if isinstance(index, int) and index < 0:
        index += len(by_key)
    if index not in there:
        why = "no tensor" if index in by_key else "nothing"
        raise ValueError(
            f"{where} {_gives(tapped)} {why} at index {tapped.index!r}. Its tensors, with their "
            f"shapes: {_listed(there)}. Choose one of them: "
            f"{tap.remedy(tapped, index=next(iter(there), 0))}."
        )
    return there[index]


def _by_key(value):
    """`{index: tensor}`: of a dict by its keys, of any other structure by position."""
    if isinstance(value, dict) and not any(map(keras.tree.is_nested, value.values())):
        return dict(value)
    return dict(enumerate(keras.tree.flatten(value)))


def _gives(tapped):
    return "is given" if tapped.kind == "input" else "gives"


def _listed(there):
    return ", ".join(f"{key!r}: {shape_of(each)}" for key, each in there.items())
