"""What is known of a Keras model before data: layers, inputs, outputs; and what it shares."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_kd._utils import validation


class Untracked:
    """Holds a value that Keras must not track or wrap, such as a model, a lock or a list.

    A teacher in an attribute of the distiller would be tracked: its weights would be trained, its
    regularizers added to the loss, its metrics reported, unless its `trainable` were changed. A
    plain object hides it, and leaves the caller's teacher exactly as it was.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


# Whether teacher and student can be distilled.


def check_pair(teacher: Any, student: Any) -> None:
    """Raises unless the teacher can teach the student, as far as both are known without data."""
    validation.model("student", student)
    if teacher is student:
        raise ValueError("`teacher` and `student` are the same model; it would teach itself.")
    if isinstance(teacher, keras.layers.Layer):
        check_shared_weights(teacher, student)


def check_shared_weights(
    model: keras.layers.Layer, trained: keras.Model, who: str = "Teacher and student"
) -> None:
    """Raises if a model has weights that the training of another one changes."""
    changed = {id(weight) for weight in trained.trainable_weights}
    shared = [weight.path for weight in model.weights if id(weight) in changed]
    if shared:
        raise ValueError(
            f"{who} share weights that training would change in both: "
            f"{shared[:5]}{'...' if len(shared) > 5 else ''}. Give each layers of its own "
            "(keras.models.clone_model), or freeze the shared ones (layer.trainable = False)."
        )


# Layers, and what they hold.


def layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers of a model, those of nested models included."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers(layer)


def dtype_policy(student: keras.Model) -> keras.dtype_policies.DTypePolicy:
    """The policy for the distiller, so that Keras scales the loss of a float16 student.

    A Functional model's own policy is the global one when it was made, and is lost in a saved
    file; its layers keep theirs.
    """
    for layer in layers(student):
        if layer.compute_dtype == "float16" and layer.variable_dtype == "float32":
            return layer.dtype_policy
    return student.dtype_policy


def losses_outside(model: keras.Model, inner: keras.Model) -> list:
    """The losses that the layers of a model add, without those of a model inside of it."""
    regularized = [v for v in model.trainable_weights if v.regularizer is not None]
    added = model.losses[: len(model.losses) - len(regularized)]  # Keras lists them first
    of_inner = {id(loss) for loss in inner.losses}
    own = {id(weight) for weight in inner.trainable_weights}
    return [loss for loss in added if id(loss) not in of_inner] + [
        v.regularizer(v) for v in regularized if id(v) not in own
    ]


# Inputs.


def input_specs(model: keras.Model) -> Any:
    """The symbolic inputs of a model whose input shapes are known, else `None`."""
    if not getattr(model, "inputs", None):
        return None
    # A Sequential model that was never called has no `input` yet.
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype, name=x.name), inputs
    )


def input_names(model: keras.Model) -> list[str] | None:
    """The names of a functional model's inputs, in the order in which they are flattened.

    Returns:
        A list, or `None` where they have none (subclassed models).
    """
    if isinstance(model, keras.Sequential) or not getattr(model, "inputs", None):
        return None
    if isinstance(model.input, dict):
        return names_in(model.input)
    return [x.name for x in model.inputs]


def named_inputs(model: keras.Model, inputs: Any) -> Any:
    """The inputs of a batch as a dict by their names, where they have any; else as they are."""
    names = None if isinstance(inputs, dict) else input_names(model)
    flat = keras.tree.flatten(inputs)
    return dict(zip(names, flat, strict=True)) if names and len(names) == len(flat) else inputs


def own_inputs(model: keras.Model, inputs: Any) -> Any:
    """The inputs of a batch that a model reads, in the structure that it takes.

    The data may hold more than one of two models reads: the segments of a BERT beside a DistilBERT.
    Keras would leave them out too, with a warning. A dict that lacks one of the model's inputs is
    returned as it is: Keras reports what is missing.
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


def reads_more(specs: dict[str, Any], given: Any) -> bool:
    """Whether a model reads inputs that another one does not.

    Args:
        specs: The inputs of the model, by name; `""` for one under any name.
        given: The inputs of the other one, in its structure.
    """
    if "" in specs:
        return False
    # Inputs of another structure are matched by position.
    is_named = isinstance(given, dict)
    return len(specs) > len(keras.tree.flatten(given)) or (
        is_named and not set(specs) <= set(given)
    )


def symbolic(value: Any) -> keras.KerasTensor | None:
    """A symbolic tensor like one of any batch; optional inputs may be `None`."""
    if value is None or isinstance(value, keras.KerasTensor):
        return value
    value = keras.ops.convert_to_tensor(value)
    dtype = keras.backend.standardize_dtype(value.dtype)
    return keras.KerasTensor((None, *value.shape[1:]), dtype)


@contextlib.contextmanager
def without_changes(inputs: Any, *looked_at: Any) -> Iterator[None]:
    """While it is open, models run without any change of their variables, states or seeds.

    Args:
        inputs: The inputs of a batch.
        *looked_at: Models, which are built first where they are not, or functions.
    """
    for model in looked_at:
        if isinstance(model, keras.Model) and not model.built:
            model(keras.tree.map_structure(symbolic, own_inputs(model, inputs)), training=False)
    # What is assigned in this scope is dropped with it.
    with keras.StatelessScope():
        yield


# Outputs.


def output_specs(model: Any) -> Any:
    """The symbolic outputs of a model whose shapes are known, else `None`."""
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        return None
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def producer(tensor: Any) -> Any:
    """The layer or operation that made a symbolic tensor, or `None`."""
    # Not by comparing with each operation's `output`: that of a nested model is its own, inner one.
    history = getattr(tensor, "_keras_history", None)
    return None if history is None else history.operation


def output_shapes(model: keras.Model) -> list[tuple] | None:
    """The shapes of a model's outputs, or `None` where they are not known."""
    outputs = getattr(model, "outputs", None)
    return [tuple(x.shape) for x in outputs] if outputs else None


def output_names(model: keras.Model, outputs: Any = None) -> list[str] | None:
    """The names of a model's outputs, in the order in which they are flattened.

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


def names_in(structure: Any) -> list[str]:
    """The keys of a dict; their paths where it holds other structures."""
    paths = keras.tree.flatten_with_path(structure)
    return ["/".join(str(key) for key in path) for path, _ in paths]


def flat_outputs(
    outputs: Any, key: str | int | None, names: list[str] | None = None, role: str = "model"
) -> list:
    """The outputs a loss reads: all of them, or the one of a name or an index.

    Args:
        outputs: A tensor, or a structure of them.
        key: A name or an index; `None`: all.
        names: The names of outputs in a list, if they have any.
        role: Whose they are, for the message.
    """
    if key is None:
        return keras.tree.flatten(outputs)
    if not keras.tree.is_nested(outputs):
        outputs = [outputs]  # indexed itself, it would give a row of the batch
        names = names if len(names or ()) == 1 else None  # else they are another model's
    if isinstance(outputs, (list, tuple)) and names and key in names:
        key = list(names).index(str(key))
    try:
        return [outputs[key]]
    except (KeyError, IndexError, TypeError) as error:
        have = (
            sorted(outputs)
            if isinstance(outputs, dict)
            else f"{len(keras.tree.flatten(outputs))} output(s) in a list"
            + (f", named {list(names)}" if names else "")
        )
        raise ValueError(
            f"A distillation loss reads output {key!r}, which the {role} does not have. It has: "
            f"{have}."
        ) from error


def is_masked(mask: Any) -> bool:
    """Whether the mask that Keras passes to a `call` has one; of several inputs all may be None."""
    return any(each is not None for each in keras.tree.flatten(mask))


# Layers that have kernels, by the layout of their axes.


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


def summed_axes(equation: str) -> tuple[int, ...]:
    """The axes of the kernel of an `EinsumDense` that are summed over: its inputs, not outputs."""
    inputs, outputs = equation.replace(" ", "").split("->")
    kernel = inputs.split(",")[1]
    return tuple(i for i, letter in enumerate(kernel) if letter not in outputs)
