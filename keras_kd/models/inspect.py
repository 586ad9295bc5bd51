"""Checks teacher and student, and reads what is known of their inputs and outputs before data."""

import contextlib

import keras


class Untracked:
    """Holds a value where Keras does not look: a model, or what Keras would wrap.

    A teacher in an attribute of the distiller would be tracked: its weights would be trained, its
    regularisers added to the loss, its metrics reported, unless its `trainable` were changed. A
    plain object hides it, so that the caller's teacher is left exactly as it was.
    """

    def __init__(self, value):
        self.value = value


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


def losses_outside(model, inner):
    """The losses that the layers of a model add, but for those of a model inside of it."""
    regularised = [v for v in model.trainable_weights if v.regularizer is not None]
    added = model.losses[: len(model.losses) - len(regularised)]  # Keras lists them first
    of_inner = {id(loss) for loss in inner.losses}
    own = {id(weight) for weight in inner.trainable_weights}
    return [loss for loss in added if id(loss) not in of_inner] + [
        v.regularizer(v) for v in regularised if id(v) not in own
    ]


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


def input_names(model):
    """What a functional model calls its inputs, in the order in which they are flattened.

    Returns:
        A list, or `None` where the model does not tell (subclassed ones).
    """
    if isinstance(model, keras.Sequential) or not getattr(model, "inputs", None):
        return None
    if isinstance(model.input, dict):
        return names_in(model.input)
    return [x.name for x in model.inputs]


def output_names(model, outputs=None):
    """What a model calls its outputs, in the order in which they are flattened.

    As `compile` takes losses by name: the keys of a dict, else the names of the layers that make
    them.

    Args:
        model: A Keras model.
        outputs: What it returned, where it does not know its outputs itself.

    Returns:
        A list of different names, or `None` where the outputs have none.
    """
    if outputs is None:
        outputs = output_specs(model)
    if isinstance(outputs, dict):
        return names_in(outputs)
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = list(getattr(model, "output_names", None) or [])
    count = len(names) if outputs is None else len(keras.tree.flatten(outputs))
    return names if names and len(names) == len(set(names)) == count else None


def names_in(structure):
    """The names of what is in a dict, by their paths where it holds other structures."""
    paths = keras.tree.flatten_with_path(structure)
    return ["/".join(str(key) for key in path) for path, _ in paths]


def named_inputs(model, inputs):
    """The inputs of a batch as a dict by their names, where they have any; else as they are."""
    names = None if isinstance(inputs, dict) else input_names(model)
    flat = keras.tree.flatten(inputs)
    return dict(zip(names, flat, strict=True)) if names and len(names) == len(flat) else inputs


def own_inputs(model, inputs):
    """Of the inputs of a batch those that a model reads, in the structure that it takes.

    The data may hold more than one of two models reads: the segments of a BERT beside a DistilBERT.
    Keras would leave them out too, with a warning. A dict that lacks one of the model's inputs
    comes back as it is: Keras says what is missing.
    """
    names = input_names(model)
    if names is None:
        return inputs
    takes_dict = isinstance(model.input, dict)
    if not isinstance(inputs, dict):
        is_one = len(names) == 1 and not keras.tree.is_nested(inputs)
        return {names[0]: inputs} if takes_dict and is_one else inputs
    if not set(names) <= set(inputs):
        return inputs
    if takes_dict:
        return {name: inputs[name] for name in names}
    return keras.tree.pack_sequence_as(model.input, [inputs[name] for name in names])


def reads_more(specs, given):
    """Whether a model reads inputs that those of another one do not name.

    Args:
        specs: What it reads, by their names; `""` for one that has none.
        given: What the other one reads, in its structure.
    """
    if "" in specs:  # one input, whatever it is called
        return False
    # Inputs of another structure are given by their places.
    is_named = isinstance(given, dict)
    return len(specs) > len(keras.tree.flatten(given)) or (
        is_named and not set(specs) <= set(given)
    )


def input_specs(model):
    """The symbolic inputs of a model whose input shapes are known, else `None`."""
    if not getattr(model, "inputs", None):
        return None
    # A Sequential model that was never called has no `input` yet.
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype, name=x.name), inputs
    )


def symbolic(value):
    """What stands for a tensor of any batch; optional inputs may be `None`."""
    if value is None or isinstance(value, keras.KerasTensor):
        return value
    value = keras.ops.convert_to_tensor(value)
    dtype = keras.backend.standardize_dtype(value.dtype)
    return keras.KerasTensor((None, *value.shape[1:]), dtype)


@contextlib.contextmanager
def looking(inputs, *looked_at):
    """While it is open models run, and no variable, state or seed of them changes.

    Args:
        inputs: Of a batch.
        *looked_at: Models, which are built first where they are not, or functions.
    """
    for model in looked_at:
        if isinstance(model, keras.Model) and not model.built:
            model(keras.tree.map_structure(symbolic, own_inputs(model, inputs)), training=False)
    # What is assigned in it stays in it.
    with keras.StatelessScope():
        yield


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


def flat_outputs(outputs, key, names=None, role="model"):
    """The outputs a loss reads: all of them, or the one of a name or an index.

    Args:
        outputs: A tensor, or a structure of them.
        key: A name or an index; `None`: all.
        names: What outputs in a list are called, too.
        role: Whose they are, for the message.
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
            + (f", called {list(names)}" if names else "")
        )
        raise ValueError(
            f"A distillation loss reads output {key!r}, which the {role} does not have. It has: "
            f"{have}."
        ) from error


# Layers that have kernels, by how the axes of these are laid out.


CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
ALL = (
    *CONVOLUTIONS,
    *TRANSPOSED,
    *DEPTHWISE,
    *SEPARABLE,
    keras.layers.Dense,
    keras.layers.EinsumDense,
)
RECURRENT_CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)


def summed_axes(equation):
    """The axes of the kernel of an `EinsumDense` that are summed over: not of its outputs."""
    inputs, outputs = equation.replace(" ", "").split("->")
    kernel = inputs.split(",")[1]
    return tuple(i for i, letter in enumerate(kernel) if letter not in outputs)
