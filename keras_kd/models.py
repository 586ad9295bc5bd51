"""Checks teacher and student, and reads what is known of their outputs before any data."""

import keras


class Untracked:
    """Holds a model where Keras does not look.

    A teacher in an attribute of the distiller would be tracked: its weights would be trained, its
    regularisers added to the loss, its metrics reported, unless its `trainable` were changed. A
    plain object hides it, so that the caller's teacher is left exactly as it was.
    """

    def __init__(self, model):
        self.model = model


def check(teacher, student):
    """Raises unless teacher and student can be distilled."""
    if not isinstance(student, keras.Model):
        raise ValueError(
            "`student` must be a keras.Model. "
            f"Received: student={student!r} of type {type(student).__name__}"
        )
    if teacher is student:
        raise ValueError("`teacher` and `student` are the same model; it would teach itself.")
    if isinstance(teacher, keras.layers.Layer):
        check_shared_weights(teacher, student)


def check_shared_weights(model, trained, who="Teacher and student"):
    """Raises if a model has weights that the training of another one changes."""
    changed = {id(weight) for weight in trained.trainable_weights}
    shared = [weight.path for weight in model.weights if id(weight) in changed]
    if shared:
        raise ValueError(
            f"{who} share weights that training would change in both: "
            f"{shared[:5]}{'...' if len(shared) > 5 else ''}. Give each layers of its own "
            "(keras.models.clone_model), or freeze the shared ones (layer.trainable = False)."
        )


def layers(model):
    """All layers of a model, those of nested models included."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers(layer)


def dtype_policy(student):
    """The policy the distiller takes over, so that Keras scales the loss of a float16 student.

    A Functional model's own policy is the global one when it was made, and is lost in a saved
    file; its layers know better.
    """
    for layer in layers(student):
        if layer.compute_dtype == "float16" and layer.variable_dtype == "float32":
            return layer.dtype_policy
    return student.dtype_policy


def input_specs(model):
    """The symbolic inputs of a model whose input shapes are known, else `None`."""
    if not getattr(model, "inputs", None):
        return None
    # A Sequential model that was never called has no `input` yet.
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), inputs)


def output_shapes(model):
    """The shapes of a model's outputs, or `None` where they are not known."""
    outputs = getattr(model, "outputs", None)
    return [tuple(x.shape) for x in outputs] if outputs else None


def output_specs(model):
    """The symbolic outputs of a model whose shapes are known, else `None`."""
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        return None
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def is_masked(mask):
    """Whether the mask that Keras gives a `call` holds any: of several inputs it may be Nones."""
    return any(each is not None for each in keras.tree.flatten(mask))


def flat_outputs(outputs, key, names=None):
    """The outputs a loss reads: all of them, or the one of a name or an index.

    `names` are the student's output names, by which the outputs in a list may be called too.
    """
    if key is None:
        return keras.tree.flatten(outputs)
    if not keras.tree.is_nested(outputs):
        outputs = [outputs]  # indexed itself, it would give a row of the batch
        names = names if len(names or ()) == 1 else None  # else they are another model's
    if isinstance(outputs, (list, tuple)) and names and key in names:
        key = list(names).index(key)
    try:
        return [outputs[key]]
    except (KeyError, IndexError, TypeError) as error:
        have = (
            sorted(outputs)
            if isinstance(outputs, dict)
            else f"{len(keras.tree.flatten(outputs))} output(s) in a list"
        )
        raise ValueError(
            f"A distillation loss reads output {key!r}, which the model does not have. It has: "
            f"{have}."
        ) from error
