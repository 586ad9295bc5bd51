"""Recipes are the papers' losses and arguments, and their students learn."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.language.plain import from_logits, language_model, tokens


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class Block(keras.layers.Layer):
    """Attention and a dense layer, each added to what comes in."""

    def __init__(self, heads, size=4, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.size = heads, size
        self.attention = keras.layers.MultiHeadAttention(heads, size)
        self.supports_masking = True

    def build(self, shape):
        self.attention.build(shape, shape)
        self.dense = keras.layers.Dense(shape[-1])
        self.dense.build(shape)

    def call(self, inputs):
        return inputs + self.dense(inputs + self.attention(inputs, inputs))

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "size": self.size}


def encoder(blocks, width, heads=2, classes=3, seed=0):
    """Ids and a mask of them to logits; with `classes=None` to hidden states."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((6,), dtype="int32", name="token_ids")
    mask = keras.Input((6,), dtype="int32", name="padding_mask")
    x = keras.layers.Embedding(10, width, name="embedding")(ids)
    for number in range(blocks):
        x = Block(heads, name=f"block_{number}")(x)
    if classes is None:
        return keras.Model({"token_ids": ids, "padding_mask": mask}, x)
    pooled = keras.layers.GlobalAveragePooling1D()(x)
    logits = keras.layers.Dense(classes, name="logits")(pooled)
    return keras.Model({"token_ids": ids, "padding_mask": mask}, logits)


def texts(rows=16):
    rng = np.random.default_rng(0)
    mask = np.arange(6) < rng.integers(2, 7, (rows, 1))
    ids = np.where(mask, rng.integers(1, 10, (rows, 6)), 0)
    x = {"token_ids": ids.astype("int32"), "padding_mask": mask.astype("int32")}
    return x, rng.integers(3, size=rows)


def described(stage):
    """`[(class, weight, teacher's layer, student's layer)]` of a stage's losses."""

    def named(layer):
        if isinstance(layer, tuple):
            return tuple(map(named, layer))
        return str(getattr(layer, "layer", layer))

    return [
        (type(loss).__name__, loss.weight, named(loss.teacher_layer), named(loss.student_layer))
        for loss in stage.losses
    ]


def pair():
    return encoder(4, 16), encoder(2, 8, seed=1)


def test_distilbert():
    recipe = kd.recipes.distilbert(*pair())
    (stage,) = recipe
    assert described(stage) == [
        ("SoftTargets", 5.0, "None", "None"),
        ("CosineHidden", 1.0, "block_3", "block_1"),
    ]
    assert stage.losses[0].temperature == 2.0
    assert stage.arguments == {"alpha": 2.0, "beta": 1.0}


def test_tinybert():
    recipe = kd.recipes.tinybert(*pair(), embeddings=("embedding", "embedding"))
    assert [stage.name for stage in recipe] == ["blocks", "predictions"]
    assert described(recipe.stages[0]) == [
        ("HiddenStates", 1.0, "embedding", "embedding"),
        ("HiddenStates", 1.0, "block_1", "block_0"),
        ("AttentionMaps", 1.0, "block_1/attention", "block_0/attention"),
        ("HiddenStates", 1.0, "block_3", "block_1"),
        ("AttentionMaps", 1.0, "block_3/attention", "block_1/attention"),
    ]
    assert recipe.stages[0].losses[2].loss == "mse"
    assert [stage.arguments["alpha"] for stage in recipe] == [0.0, 0.0]
    with pytest.raises(ValueError, match="has 2 stages.*'blocks', 'predictions'"):
        recipe.distiller()


def test_mobilebert():
    recipe = kd.recipes.mobilebert(encoder(2, 16), encoder(2, 8, seed=1))
    kinds = [kind for kind, *_ in described(recipe.stages[0])]
    assert kinds == ["HiddenStates", "AttentionMaps"] * 2
    assert recipe.stages[0].losses[1].loss == "kl"
    assert recipe.stages[1].arguments == {"alpha": 0.5, "beta": 0.5}


def test_minilm():
    teacher, student = encoder(4, 16, heads=4), encoder(2, 8, seed=1)
    (stage,) = kd.recipes.minilm(teacher, student, relation_heads=8)
    ((kind, _, of_teacher, of_student),) = described(stage)
    assert (kind, of_teacher, of_student) == (
        "SequenceRelations",
        ("block_3",) * 3,
        ("block_1",) * 3,
    )
    (first,) = kd.recipes.minilm(encoder(4, 16), student, version=1)
    assert [kind for kind, *_ in described(first)] == ["AttentionMaps", "SequenceRelations"]
    (chosen,) = kd.recipes.minilm(teacher, student, teacher_layer="block_2")
    assert described(chosen)[0][2] == ("block_2",) * 3
    with pytest.raises(ValueError, match="version.*1 or 2"):
        kd.recipes.minilm(teacher, student, version=3)
    with pytest.raises(ValueError, match="`relation_heads` is of version 2"):
        kd.recipes.minilm(teacher, student, version=1, relation_heads=4)


RECIPES = {
    "distilbert": lambda: kd.recipes.distilbert(*pair()),
    "tinybert": lambda: kd.recipes.tinybert(*pair()),
    "mobilebert": lambda: kd.recipes.mobilebert(*pair()),
    "minilm": lambda: kd.recipes.minilm(*pair(), relation_heads=4),
    "sentence_encoder": lambda: kd.recipes.sentence_encoder(
        encoder(4, 16, classes=None), encoder(2, 8, classes=None, seed=1)
    ),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_trains(name):
    recipe, (x, y) = RECIPES[name](), texts()
    for stage in recipe:
        made = stage.distiller()
        hard = from_logits() if made.alpha else None
        made.compile(keras.optimizers.Adam(0.01), loss=hard, jit_compile=False)
        labels = y if made.alpha else None
        losses = made.fit(x, labels, epochs=12, verbose=0).history["loss"]
        assert min(losses[1:]) < losses[0], stage.name
        assert all(loss.mask_input == "padding_mask" for loss in stage.losses if of_layers(loss))
    assert recipe.paper in str(recipe)
    assert all(loss.name in str(recipe) for stage in recipe for loss in stage.losses)


def of_layers(loss):
    return loss.student_layer is not None


def test_causal_lm():
    recipe = kd.recipes.causal_lm(
        language_model(12, seed=1), language_model(8, seed=2), 2.0, "jsd", alpha=0.2, memory_mb=8
    )
    made = recipe.distiller()
    (loss,) = made.distillation_losses
    assert (loss.temperature, loss.divergence, loss.memory_mb) == (2.0, "jsd", 8)
    np.testing.assert_allclose([made.alpha, made.beta], [0.2, 0.8], rtol=1e-6)
    assert recipe.distiller(alpha=1.0).alpha == 1.0
    made.compile("adam", loss=from_logits(ignore_class=-100))
    losses = made.fit(*tokens(), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def listener(depth, seed, encoder_seed=0):
    """Sound and ids to logits, with an encoder that is the same for one seed."""
    sound = keras.Input((8, 4), name="encoder_features")
    ids = keras.Input((6,), dtype="int32", name="decoder_token_ids")
    keras.utils.set_random_seed(encoder_seed)
    encoded = keras.layers.Dense(8, activation="tanh", name="encoder")(sound)
    keras.utils.set_random_seed(seed)
    x = keras.layers.Embedding(20, 8)(ids)
    for _ in range(depth):
        x = keras.layers.Add()([x, keras.layers.Attention()([x, encoded])])
    return keras.Model([sound, ids], keras.layers.Dense(20, name="head")(x))


def encoder_of(model):
    return model.get_layer("encoder").output


def test_distil_whisper_runs_the_encoder_once_and_trains_the_students_own_decoder():
    import tensorflow as tf

    teacher, student = listener(4, 1), listener(2, 2)
    recipe = kd.recipes.distil_whisper(teacher, student, encoder_of, mask_input=None)
    (stage,) = recipe
    assert described(stage) == [("TokenKD", 0.8, "None", "None")]
    assert (stage.arguments["alpha"], stage.arguments["beta"]) == (1.0, 1.0)
    rng = np.random.default_rng(0)
    x = {
        "encoder_features": rng.normal(size=(8, 8, 4)).astype("float32"),
        "decoder_token_ids": rng.integers(20, size=(8, 6)).astype("int32"),
    }
    y = np.roll(x["decoder_token_ids"], -1, axis=1)
    encoded = recipe.encode(x)
    whole = student([x["encoder_features"], x["decoder_token_ids"]])
    np.testing.assert_allclose(stage.student(encoded), whole, rtol=1e-5, atol=1e-6)
    before = {weight.path: weight.numpy() for weight in student.weights}
    made = recipe.distiller()
    made.compile(keras.optimizers.Adam(0.02), loss=from_logits())
    data = tf.data.Dataset.from_tensors((x, y)).map(lambda x, y: (recipe.encode(x), y))
    losses = made.fit(data, epochs=10, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    moved = {w.path for w in student.weights if (w.numpy() != before[w.path]).any()}
    assert moved
    assert not any("encoder" in path for path in moved)


def test_a_whisper_whose_decoder_was_shrunk():
    """Its backbone was made in two calls of the same layers: the last one counts."""
    from tests.hub import cases, models

    backbone = models.whisper(layers=3)
    teacher = cases.WhisperWithLogits(backbone, name="teacher")
    small = kd.students.shrink(backbone, layers={"decoder": [0, -1]}, print_fn=None)
    student = cases.WhisperWithLogits(small, name="student")
    recipe = kd.recipes.distil_whisper(teacher, student)
    (stage,) = recipe
    x = models.speech()
    encoded = recipe.encode(x)
    for whole, decoder in ((teacher, stage.teacher), (student, stage.student)):
        assert "encoder_features" not in decoder.input
        np.testing.assert_allclose(decoder(encoded), whole(x), rtol=1e-5, atol=1e-6)


def test_encoders_that_differ_are_refused():
    with pytest.raises(ValueError, match="encoders of teacher and student differ"):
        kd.recipes.distil_whisper(
            listener(4, 1), listener(2, 2, encoder_seed=5), encoder_of, mask_input=None
        )
    with pytest.raises(ValueError, match="encoder of teacher .* is not known.*`encoder_output`"):
        kd.recipes.distil_whisper(listener(4, 1), listener(2, 2))


def test_models_without_blocks():
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="No layers of .* fit each other"):
        kd.recipes.distilbert(flat, keras.models.clone_model(flat))
