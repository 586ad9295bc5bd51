"""`distil_whisper`: a short decoder over the teacher's own encoder, which runs once."""

from collections.abc import Callable
from typing import Any

import keras

from keras_kd import losses, models
from keras_kd.recipes.recipe import Recipe, Stage

ENCODED = "encoded_features"


def distil_whisper(
    teacher: keras.Model,
    student: keras.Model,
    encoder_output: Any = None,
    temperature: float = 2.0,
    mask_input: str | None = "decoder_padding_mask",
) -> Recipe:
    """Distil-Whisper: a decoder of few layers learns the teacher's tokens, over a frozen encoder.

    `1.0 * hard + 0.8 * T^2 KL`: the hard loss is of pseudo-labels, texts that the teacher wrote
    (`keras_kd.language.label` with a `WordErrorFilter`). Teacher and student have the same encoder,
    so it runs once: the recipe trains the decoders alone, whose inputs are what the encoder gave.
    `recipe.encode` makes these of a batch of inputs: call it before the dataset is made, batch by
    batch where the sounds are many. (Inside `Dataset.map` it would run in every epoch.) The
    student's own decoder is what learns; its encoder must be the teacher's, weight by weight.

    Args:
        teacher: A functional model with an encoder and a decoder, whose output is logits.
        student: The same with a shorter decoder, such as
            `keras_kd.students.shrink(teacher, layers={"encoder": [...], "decoder": [0, 3]})`.
        encoder_output: A function from a model to the symbolic tensor that its encoder gives;
            default: `backbone.output["encoder_sequence_output"]` of a model with a KerasHub
            backbone.
        temperature: `T`.
        mask_input: The decoder's input that is 0 where there is padding, or `None`.

    Returns:
        A `Recipe` of one stage, with the attribute `encode`.

    Raises:
        ValueError: The encoders differ, or no encoder is found.

    Example:

    ```python
    import keras
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    def model(depth, seed):
        sound = keras.Input((8, 4), name="encoder_features")
        ids = keras.Input((6,), dtype="int32", name="decoder_token_ids")
        keras.utils.set_random_seed(0)
        encoded = keras.layers.Dense(8, name="encoder")(sound)
        keras.utils.set_random_seed(seed)
        x = keras.layers.Embedding(20, 8)(ids)
        for _ in range(depth):
            x = x + keras.layers.Attention()([x, encoded])
        return keras.Model([sound, ids], keras.layers.Dense(20)(x))

    recipe = kd.recipes.distil_whisper(
        model(4, 1), model(2, 2), lambda each: each.get_layer("encoder").output, mask_input=None
    )
    sounds, ids = np.random.normal(size=(16, 8, 4)), np.random.randint(20, size=(16, 6))
    x = recipe.encode({"encoder_features": sounds, "decoder_token_ids": ids})
    distiller = recipe.distiller()
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensor_slices((x, np.roll(ids, -1, axis=1))).batch(8)
    distiller.fit(data, epochs=2, shuffle=False, verbose=0)
    ```

    Reference: Gandhi et al., "Distil-Whisper: Robust Knowledge Distillation",
    https://arxiv.org/abs/2311.00430
    """
    find = _encoder_output if encoder_output is None else encoder_output
    decoders, encoders = [], []
    for role, model in (("teacher", teacher), ("student", student)):
        encoder, decoder = split(model, find(model), role)
        encoders.append(encoder)
        decoders.append(decoder)
    _check_same(*encoders)
    stage = Stage(
        "decoder",
        decoders[0],
        decoders[1],
        [losses.TokenKD(temperature, weight=0.8)],
        {"alpha": 1.0, "beta": 1.0, "mask_input": mask_input},
        {"learning_rate": 1e-4},
    )
    return SharedEncoderRecipe(
        "distil-whisper", "https://arxiv.org/abs/2311.00430", [stage], encode=_encode(encoders[0])
    )


class SharedEncoderRecipe(Recipe):
    """A recipe whose data passes an encoder first.

    Attributes:
        encode: A function from a batch's inputs to those of the decoders; to be called once for
            each batch, before the dataset is made.
    """

    def __init__(self, *args: Any, encode: Callable[[Any], dict]) -> None:
        super().__init__(*args)
        self.encode = encode


def split(model: keras.Model, encoded: Any, role: str) -> tuple[keras.Model, keras.Model]:
    """An encoder and a decoder that share the layers of a functional model.

    Args:
        model: The model.
        encoded: The symbolic tensor between them.
        role: Of the model, for messages.
    """
    if not isinstance(encoded, keras.KerasTensor) or not getattr(model, "inputs", None):
        raise ValueError(
            f"The encoder of {role} {model.name!r} is not known. Pass `encoder_output`, a function "
            "from a functional model to the symbolic tensor that its encoder gives. "
            f"Received: {encoded!r}"
        )
    names = models.input_names(model) or []
    inputs = dict(zip(names, keras.tree.flatten(model.input), strict=True))
    needed = _inputs_of(encoded, inputs)
    encoder = keras.Model({name: inputs[name] for name in needed}, encoded, name=f"{role}_encoder")
    rest = {name: tensor for name, tensor in inputs.items() if name not in needed}
    # Around it a model whose inputs have names: that of what the encoder gives is Keras' own.
    inner = keras.Model([encoded, *rest.values()], keras.tree.flatten(model.output)[0])
    named = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in {ENCODED: encoded, **rest}.items()
    }
    decoder = keras.Model(named, inner(list(named.values())), name=f"{role}_decoder")
    return encoder, decoder


def _inputs_of(tensor: Any, inputs: dict[str, Any]) -> list[str]:
    """The names of the inputs that a symbolic tensor depends on."""
    # Not by walking from layer to layer: `layer.input` is that of its first call, in another model
    # where layers are shared, as in those that `keras_kd.students.shrink` makes of KerasHub's.
    others = {name: [x for other, x in inputs.items() if other != name] for name in inputs}
    return [name for name in inputs if not _can_be_made(tensor, others[name])]


def _can_be_made(tensor: Any, inputs: list[Any]) -> bool:
    try:
        keras.Model(inputs, tensor)
    except ValueError:  # an input is missing
        return False
    return True


def _encoder_output(model: keras.Model) -> Any:
    backbone = getattr(model, "backbone", model)
    outputs = getattr(backbone, "output", None)
    return outputs.get("encoder_sequence_output") if isinstance(outputs, dict) else None


def _check_same(teacher: keras.Model, student: keras.Model) -> None:
    ours, theirs = student.get_weights(), teacher.get_weights()
    same = len(ours) == len(theirs) and all(
        one.shape == other.shape and (one == other).all()
        for one, other in zip(ours, theirs, strict=False)
    )
    if not same:
        raise ValueError(
            "The encoders of teacher and student differ, and one run cannot serve both. Make the "
            "student of the teacher's encoder (keras_kd.students.shrink with all layers of the "
            "encoder), or distill them as they are: keras_kd.recipes.causal_lm."
        )


def _encode(encoder: keras.Model) -> Callable[[Any], dict]:
    def encode(inputs: Any) -> dict:
        inputs = {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}
        given = models.own_inputs(encoder, inputs)
        rest = {name: value for name, value in inputs.items() if name not in given}
        return {ENCODED: encoder(given, training=False), **rest}

    return encode
