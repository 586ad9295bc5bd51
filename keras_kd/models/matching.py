"""Several outputs of two models: which belongs to which, matched by name or by position."""

import re
from typing import Any

import keras

from keras_kd.models import inspect


def given_names(model: keras.Model) -> list[str] | None:
    """The names of a model's outputs, where its author gave all of them; else `None`.

    A layer that was given none is `dense_1`, by a counter that starts again in each process: two
    models may have the same such names in different orders.
    """
    names, outputs = inspect.output_names(model), getattr(model, "outputs", None)
    if not names or not outputs or len(names) != len(outputs):
        return None
    if isinstance(inspect.output_specs(model), dict):
        return names
    automatic = (_automatic(each, name) for name, each in zip(names, outputs, strict=True))
    return None if any(automatic) else list(names)


def _automatic(tensor: Any, name: str) -> bool:
    history = getattr(tensor, "_keras_history", None)
    return history is None or is_counted(history.operation, name)


def is_counted(layer: Any, name: str) -> bool:
    """Whether Keras made a name, from the class of a layer or model and a number."""
    kind = keras_name(type(layer).__name__)
    return re.fullmatch(rf"({kind}|functional|model)(_\d+)?", name) is not None


def flatten_names(outputs: Any, names: Any) -> list[str] | None:
    """The names of a model's outputs, in the order in which they are flattened.

    Args:
        outputs: A tensor, or a list, tuple or dict of tensors.
        names: The names of the outputs in a list, or `None`.

    Returns:
        A list of different names, or `None` where the outputs have none.
    """
    found = inspect.names_in(outputs) if isinstance(outputs, dict) else list(names or ())
    is_known = len(found) == len(set(found)) == len(keras.tree.flatten(outputs))
    return found if is_known else None


def align_outputs(values: Any, names: Any, outputs: Any, names_of_outputs: Any) -> Any:
    """One model's outputs in the structure of another one's.

    They are matched by name, where both have the same names: by position a teacher `[a, b]` would
    teach a student `[b, a]` the wrong one. Lists are matched by position where they share no names.

    Args:
        values: The outputs of the one model.
        names: Their names in a list, see `flatten_names`.
        outputs: The other model's outputs.
        names_of_outputs: Their names in a list.

    Returns:
        `values` in the structure of `outputs`; or unchanged, where they do not fit it.
    """
    if not (keras.tree.is_nested(values) and keras.tree.is_nested(outputs)):
        return values
    flat, wanted = keras.tree.flatten(values), flatten_names(outputs, names_of_outputs)
    have = flatten_names(values, names)
    shared = set(have or ()) & set(wanted or ())
    if have is not None and wanted is not None and len(shared) == len(have) == len(wanted):
        by_name = dict(zip(have, flat, strict=True))
        return keras.tree.pack_sequence_as(outputs, [by_name[name] for name in wanted])
    are_lists = not isinstance(values, dict) and not isinstance(outputs, dict)
    share_some = bool(shared)
    if are_lists and len(flat) == len(keras.tree.flatten(outputs)) and not share_some:
        return keras.tree.pack_sequence_as(outputs, flat)
    return values


def is_aligned(values: Any, outputs: Any) -> bool:
    """Whether outputs have the structure of other ones, as `aligned` returns them."""
    one, other = (keras.tree.map_structure(lambda x: 0, x) for x in (values, outputs))
    return type(values) is type(outputs) and one == other


def split_by_output(values: Any, key: str | int | None, outputs: Any, names: Any) -> list:
    """Labels or sample weights for each output that is read.

    Args:
        values: A structure of them like the outputs; a dict may lack some, and some may be `None`.
        key: Which output is read; `None`: all.
        outputs: The outputs of the model.
        names: Their names in a list, see `flatten_names`.

    Returns:
        A list, `None` for an output that has none.
    """
    known = flatten_names(outputs, names)
    if isinstance(values, dict) and known is not None:
        if key is None:
            return [values.get(name) for name in known]
        return [values.get(known[key] if isinstance(key, int) else key)]
    if key is None and isinstance(values, (list, tuple)):
        return list(values)  # flattened, it would lose a None
    return inspect.flat_outputs(values, key, names)


def keras_name(class_name: str) -> str:
    """CamelCase to snake_case, without a counter: history keys must not depend on the process."""
    pieces = []
    # TensorFlow takes no leading underscore, such as that of a private class.
    class_name = class_name.lstrip("_")
    for i, letter in enumerate(class_name):
        follows = i > 0 and (not class_name[i - 1].isupper() or class_name[i + 1 : i + 2].islower())
        pieces.append("_" + letter if letter.isupper() and follows else letter)
    return "".join(pieces).lower()
