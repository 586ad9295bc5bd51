"""Models with several outputs: which belongs to which, told by their names."""

import re

import keras

from keras_kd.models import inspect


def given_names(model):
    """The names of a model's outputs, where somebody gave all of them; else `None`.

    A layer that was given none is `dense_1`, by a counter that begins anew in each process: two
    models may have the same such names in different orders.
    """
    names, outputs = inspect.output_names(model), getattr(model, "outputs", None)
    if not names or not outputs or len(names) != len(outputs):
        return None
    if isinstance(inspect.output_specs(model), dict):
        return names
    automatic = (_automatic(each, name) for name, each in zip(names, outputs, strict=True))
    return None if any(automatic) else list(names)


def _automatic(tensor, name):
    history = getattr(tensor, "_keras_history", None)
    return history is None or is_counted(history.operation, name)


def is_counted(layer, name):
    """Whether a name is one that Keras makes of the class of a layer or model, and a number."""
    kind = keras_name(type(layer).__name__)
    return re.fullmatch(rf"({kind}|functional|model)(_\d+)?", name) is not None


def names_of(outputs, names):
    """What a model's outputs are called, in the order in which they are flattened.

    Args:
        outputs: A tensor, or a list, tuple or dict of tensors.
        names: What the outputs of a list are called, or `None`.

    Returns:
        A list of different names, or `None` where the outputs have none.
    """
    found = inspect.names_in(outputs) if isinstance(outputs, dict) else list(names or ())
    is_known = len(found) == len(set(found)) == len(keras.tree.flatten(outputs))
    return found if is_known else None


def aligned(values, names, outputs, names_of_outputs):
    """What one model gives for several outputs in the structure of another one's outputs.

    By their names, where both have the same: by position a teacher `[a, b]` would teach a student
    `[b, a]` the wrong one. Lists go by position where not both have names, or other ones.

    Args:
        values: A structure of tensors.
        names: As of `names_of`, of these.
        outputs: The other model's outputs.
        names_of_outputs: As of `names_of`, of those.

    Returns:
        `values` in the structure of `outputs`; or as they are, where they do not fit it.
    """
    if not (keras.tree.is_nested(values) and keras.tree.is_nested(outputs)):
        return values
    flat, wanted = keras.tree.flatten(values), names_of(outputs, names_of_outputs)
    have = names_of(values, names)
    if None not in (have, wanted) and set(have) == set(wanted):
        by_name = dict(zip(have, flat, strict=True))
        return keras.tree.pack_sequence_as(outputs, [by_name[name] for name in wanted])
    are_lists = not isinstance(values, dict) and not isinstance(outputs, dict)
    share_some = None not in (have, wanted) and bool(set(have) & set(wanted))
    if are_lists and len(flat) == len(keras.tree.flatten(outputs)) and not share_some:
        return keras.tree.pack_sequence_as(outputs, flat)
    return values


def is_aligned(values, outputs):
    """Whether outputs have the structure of other ones, as `aligned` gives it."""
    one, other = (keras.tree.map_structure(lambda x: 0, x) for x in (values, outputs))
    return type(values) is type(outputs) and one == other


def of_each(values, key, outputs, names):
    """Labels or sample weights for each output that is read.

    Args:
        values: A structure of them like the outputs, some of which may be left out of a dict, or be
            `None`.
        key: Which output is read; `None`: all.
        outputs: Of the model.
        names: As of `names_of`.

    Returns:
        A list, `None` for an output that has none.
    """
    known = names_of(outputs, names)
    if isinstance(values, dict) and known is not None:
        if key is None:
            return [values.get(name) for name in known]
        return [values.get(known[key] if isinstance(key, int) else key)]
    if key is None and isinstance(values, (list, tuple)):
        return list(values)  # flattened, it would lose a None
    return inspect.flat_outputs(values, key, names)


def keras_name(class_name):
    """CamelCase to snake_case, without a counter: history keys must not depend on the process."""
    pieces = []
    # TensorFlow takes no underscore at the beginning, where Python has one of a private class.
    class_name = class_name.lstrip("_")
    for i, letter in enumerate(class_name):
        follows = i > 0 and (not class_name[i - 1].isupper() or class_name[i + 1 : i + 2].islower())
        pieces.append("_" + letter if letter.isupper() and follows else letter)
    return "".join(pieces).lower()
