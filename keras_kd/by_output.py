"""Models with several outputs: which belongs to which, told by their names."""

import keras

from keras_kd import models


def names_of(outputs, names):
    """What a model's outputs are called, in the order in which they are flattened.

    Args:
        outputs: A tensor, or a list, tuple or dict of tensors.
        names: What the model calls the outputs of a list, or `None`.

    Returns:
        A list of different names, or `None` where the outputs have none.
    """
    if isinstance(outputs, dict):
        found = keras.tree.flatten({key: key for key in outputs})
    else:
        found = list(names or ())
    is_known = len(found) == len(set(found)) == len(keras.tree.flatten(outputs))
    return found if is_known else None


def aligned(outputs, names, student):
    """A teacher's outputs in the structure of the student's, where both have the same names.

    By position a teacher `[a, b]` would teach a student `[b, a]` the wrong one.

    Args:
        outputs: Of the teacher.
        names: As of `names_of`, of the teacher.
        student: The student's `Outputs`, or `None`.
    """
    if student is None or not keras.tree.is_nested(outputs):
        return outputs
    of_teacher, of_student = names_of(outputs, names), names_of(student.outputs, student.names)
    if None in (of_teacher, of_student) or set(of_teacher) != set(of_student):
        return outputs
    by_name = dict(zip(of_teacher, keras.tree.flatten(outputs), strict=True))
    if isinstance(student.outputs, dict):
        return {name: by_name[name] for name in student.outputs}
    return [by_name[name] for name in of_student]


def of_each(values, key, outputs, names):
    """Labels or sample weights for each output that is read.

    Args:
        values: A structure of them like the outputs, some of which may be left out of a
            dict, or be `None`.
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
    return models.flat_outputs(values, key, names)
