"""What can be tapped, in every kind of model, against the values of an extractor model."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.models import paths
from keras_kd.taps import tap
from keras_kd.taps.recorder import Taps
from tests.distiller import linear
from tests.distiller.linear import compiled
from tests.taps import networks
from tests.taps.networks import LENGTH, WIDTH

X = linear.data(6)[0]
PROJECTED = ("queries", "keys", "values")


def tapped(model, layer, inputs=X):
    """What a tap of an eager forward pass gives."""
    result, values = Taps(model, [layer]).run(lambda: model(inputs, training=False))
    np.testing.assert_array_equal(
        keras.tree.flatten(result)[0], keras.tree.flatten(model(inputs, training=False))[0]
    )
    return keras.tree.flatten(values[layer])[0].numpy()


def dense(layer, x):
    kernel, bias = (np.float64(weight) for weight in layer.get_weights())
    return x @ kernel + bias


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [networks.functional, networks.sequential])
def test_names_layers_and_functions(make):
    model = make()
    first = model.get_layer("first")
    for layer in ("first", first, lambda m: m.get_layer("first"), lambda m: "first"):
        key = kd.taps.Tap(layer) if not isinstance(layer, str) else layer
        close(tapped(model, key), dense(first, X))


def test_operations_of_functional_models():
    model = networks.functional()
    expected = np.maximum(dense(model.get_layer("first"), X), 0) + 1
    name = next(
        row["layer"] for row in kd.taps.summary(model, print_fn=None) if "add" in row["layer"]
    )
    close(tapped(model, name), expected)


@pytest.mark.parametrize("path", ["backbone/inner/block", "inner/block", "block"])
def test_paths_into_nested_models(path):
    model = networks.nested()
    block = model.get_layer("backbone").get_layer("inner").get_layer("block")
    close(tapped(model, path), dense(block, X))
    assert paths.path_of(model, block) == "backbone/inner/block"


def test_subclassed_models_are_called_by_their_attributes():
    model = networks.subclassed()
    norm = model.blocks[1].norm
    key = kd.taps.Tap(norm)
    assert paths.path_of(model, norm) == "blocks/1/norm"
    close(tapped(model, "blocks/1/norm"), tapped(model, key))
    # By the names that Keras counts up, too.
    close(tapped(model, f"{model.blocks[1].name}/{norm.name}"), tapped(model, key))
    with pytest.raises(ValueError, match=r"Several layers.*'norm'.*blocks/0/norm.*blocks/1/norm"):
        tapped(model, "norm")


def test_inputs():
    model = networks.functional()
    tap = kd.taps.Tap("relu", "input")
    close(tapped(model, tap), dense(model.get_layer("first"), X))
    # Given by keyword.
    model = networks.transformer()
    tokens = networks.tokens_and_labels()[0]
    tap = kd.taps.Tap("transformer_layer_0/self_attention_layer", "input")
    close(tapped(model, tap, tokens), tapped(model, "embedding", tokens))


def test_shared_layers():
    model = networks.shared()
    layer, x = model.get_layer("shared"), np.float64(X)
    for call in range(3):
        x = np.tanh(dense(layer, x))
        close(tapped(model, kd.taps.Tap("shared", call=call)), x)
    close(tapped(model, kd.taps.Tap(layer, call=-1)), x)
    with pytest.raises(ValueError, match=r"called 3 times.*0: \(6, 5\).*Tap\('shared', call=0\)"):
        tapped(model, "shared")
    with pytest.raises(ValueError, match="no call 3"):
        tapped(model, kd.taps.Tap("shared", call=3))


def attention_truth(model, tokens, block):
    """Logits and scores of one block's attention, from its weights."""
    path = f"transformer_layer_{block}/self_attention_layer"
    layer = paths.find_layer(model, path)
    x = np.float64(tapped(model, kd.taps.Tap(path, "input"), tokens))
    weights = {
        weight.path.split("/")[-2:][0] + weight.name: np.float64(weight) for weight in layer.weights
    }
    query, key = (
        np.einsum("btd,dhk->bthk", x, weights[f"{name}kernel"]) + weights[f"{name}bias"]
        for name in ("query", "key")
    )
    logits = np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(query.shape[-1])
    mask = (tokens != 0)[:, None, None, :] & (tokens != 0)[:, None, :, None]
    shifted = np.where(mask, np.exp(logits - logits.max(-1, keepdims=True)), 0.0)
    return logits, shifted / np.maximum(shifted.sum(-1, keepdims=True), 1e-300)


@pytest.mark.parametrize("block", [0, 1])
def test_attention_before_and_after_softmax(block):
    model = networks.transformer()
    tokens = networks.tokens_and_labels()[0]
    path = f"backbone/transformer_layer_{block}/self_attention_layer"
    logits, scores = attention_truth(model, tokens, block)
    close(tapped(model, kd.taps.Tap(path, "attention_logits"), tokens), logits)
    close(tapped(model, kd.taps.Tap(path, "attention_scores"), tokens), scores)


@pytest.mark.parametrize("kind", [keras.layers.Attention, keras.layers.AdditiveAttention])
def test_keras_single_head_attention(kind):
    inputs = keras.Input((LENGTH, WIDTH))
    model = keras.Model(inputs, kind(name="attention")([inputs, inputs]))
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype("float32")
    _, expected = model.get_layer("attention")([x, x], return_attention_scores=True)
    close(tapped(model, kd.taps.Tap("attention", "attention_scores"), x), expected)
    with pytest.raises(ValueError, match="computes no attention_logits"):
        tapped(model, kd.taps.Tap("attention", "attention_logits"), x)


def test_attention_of_layers_that_have_none():
    with pytest.raises(
        ValueError,
        match=r"'embedding'.*Embedding, computes no attention_scores.*self_attention_layer",
    ):
        Taps(networks.transformer(), [kd.taps.Tap("embedding", "attention_scores")])


def test_a_custom_attention_layer_with_a_softmax():
    class Own(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.normalize = keras.layers.Softmax()

        def call(self, x):
            return keras.ops.matmul(
                self.normalize(2.0 * keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))), x
            )

    inputs = keras.Input((LENGTH, WIDTH))
    model = keras.Model(inputs, Own(name="own")(inputs))
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype("float32")
    logits = 2.0 * np.einsum("bti,bsi->bts", x, x)
    close(tapped(model, kd.taps.Tap("own", "attention_logits"), x), logits)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    close(
        tapped(model, kd.taps.Tap("own", "attention_scores"), x),
        exponentials / exponentials.sum(-1, keepdims=True),
    )


@pytest.mark.parametrize("block", [0, 1])
def test_projections_of_keras_attention_carry_the_mask_of_what_they_project(block):
    model = networks.transformer()
    tokens = networks.tokens_and_labels()[0]
    path = f"backbone/transformer_layer_{block}/self_attention_layer"
    x = np.float64(tapped(model, kd.taps.Tap(path, "input"), tokens))
    layer = paths.find_layer(model, path)
    for kind, name in (("queries", "query"), ("keys", "key"), ("values", "value")):
        kernel, bias = (
            np.float64(next(w for w in layer.weights if w.path.endswith(f"{name}/{part}")))
            for part in ("kernel", "bias")
        )
        read = kd.taps.Tap(path, kind)
        _, values = Taps(model, [read]).run(lambda: model(tokens, training=False))
        close(values[read], np.einsum("btd,dhk->bthk", x, kernel) + bias)
        np.testing.assert_array_equal(values[read]._keras_mask, tokens != 0)


def test_projections_of_grouped_queries_have_heads_of_their_own():
    inputs = keras.Input((LENGTH, WIDTH))
    attention = keras.layers.GroupQueryAttention(3, 4, 2, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype("float32")
    heads = {kind: tapped(model, kd.taps.Tap("attention", kind), x).shape for kind in PROJECTED}
    assert heads == {
        "queries": (2, LENGTH, 4, 3),
        "keys": (2, LENGTH, 2, 3),
        "values": (2, LENGTH, 2, 3),
    }


def test_an_attention_layer_that_is_called_twice():
    inputs = keras.Input((LENGTH, WIDTH))
    attention = keras.layers.MultiHeadAttention(2, 3, name="attention")
    x = attention(inputs, inputs)
    model = keras.Model(inputs, attention(x, x))
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype("float32")
    message = r"'attention'.*called 2 times.*Tap\('attention', 'queries', call=0\)"
    with pytest.raises(ValueError, match=message):
        tapped(model, kd.taps.Tap("attention", "queries"), x)
    both = [tapped(model, kd.taps.Tap("attention", "queries", call=i), x) for i in (0, 1)]
    kernel, bias = attention.get_weights()[:2]
    close(both[0], np.einsum("btd,dhk->bthk", np.float64(x), np.float64(kernel)) + bias)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_one_layer_of_all_three_projections_is_refused():
    class Own(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.qkv_dense = keras.layers.Dense(3 * WIDTH)

        def call(self, x):
            return self.qkv_dense(x)[..., :WIDTH]

    inputs = keras.Input((LENGTH, WIDTH))
    model = keras.Model(inputs, Own(name="own")(inputs))
    message = (
        r"'own'.*no keys that are found.*It holds \['qkv_dense'\]. Layers that have them: \[\]"
    )
    with pytest.raises(ValueError, match=message):
        Taps(model, [kd.taps.Tap("own", "keys")])


def test_a_function_that_chooses_another_kind_than_it_is_asked_for():
    model = networks.transformer()
    path = "backbone/transformer_layer_0/self_attention_layer"
    chosen = [
        tap.resolve(model, kd.taps.Tap(lambda _: returned, "queries"))[0]  # noqa: B023
        for returned in (path, kd.taps.Tap(path), kd.taps.Tap(path, "queries", call=0))
    ]
    assert chosen == [*[kd.taps.Tap(path, "queries")] * 2, kd.taps.Tap(path, "queries", call=0)]
    with pytest.raises(ValueError, match=r"given for its queries.*Received: .*\(keys\)"):
        tap.resolve(model, kd.taps.Tap(lambda _: kd.taps.Tap(path, "keys"), "queries"))


def test_layers_inside_of_loops_are_refused():
    inputs = keras.Input((LENGTH, 3))
    cell = keras.layers.LSTMCell(4)
    model = keras.Model(inputs, keras.layers.RNN(cell, name="rnn")(inputs))
    distiller = kd.Distiller
    loss = kd.losses.FeatureHint("rnn/cell", "rnn/cell")
    with pytest.raises(ValueError, match=r"'rnn/cell'.*(inside of a loop|called \d+ times)"):
        distiller(keras.models.clone_model(model), model, loss)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_what_reaches_the_models_from_outside_in_a_traced_step(kind):
    """The teacher runs in a condition, whose graph did not make its inputs."""

    def passing():
        layers = [keras.Input((linear.FEATURES,)), keras.layers.Dropout(0.1, name="first")]
        return keras.Sequential([*layers, networks.head()])

    tap = kd.taps.Tap("first", kind)
    made = compiled(passing(), passing(), Gap(teacher_layer=tap, student_layer=tap), mode="graph")
    assert made.fit(*linear.data(6), verbose=0).history["gap"] == [pytest.approx(0.0, abs=0.3)]


KINDS = {
    "functional": (networks.functional, "first"),
    "operation": (networks.functional, lambda m: m.operations[3]),
    "sequential": (networks.sequential, "first"),
    "nested": (networks.nested, "block"),
    "subclassed": (networks.subclassed, "blocks/1/norm"),
    "subclassed, by function": (networks.subclassed, lambda m: m.blocks[0]),
    "shared": (networks.shared, kd.taps.Tap("shared", call=1)),
    "several outputs": (networks.several_outputs, "first"),
    "backbone": (networks.transformer, "transformer_layer_1"),
    "attention": (
        networks.transformer,
        kd.taps.Tap("transformer_layer_0/self_attention_layer", "attention_logits"),
    ),
}


# Its values have no positions.
@pytest.mark.filterwarnings("ignore:Distillation loss .hint. gives values of shape")
# XLA sees the same graph: it is asked where tensors come from other layers' inside.
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, "graph") for kind in KINDS] + [("subclassed", "xla"), ("attention", "xla")],
)
def test_a_hint_is_trained_saved_and_loaded(kind, mode, tmp_path):
    make, layer = KINDS[kind]
    teacher, student = make(), make()
    hint = Gap(teacher_layer=layer, student_layer=layer, name="hint")
    compile_args = {"optimizer": keras.optimizers.Adam(0.01)}
    if make is networks.several_outputs:
        compile_args["loss"] = {"a": linear.from_logits(), "b": linear.from_logits()}
    distiller = compiled(
        teacher, student, [hint], mode=mode, alpha=0.0, beta=1.0, compile_args=compile_args
    )
    x, y = networks.tokens_and_labels() if make is networks.transformer else linear.data(12)
    if make is networks.several_outputs:
        y = {"a": y, "b": y}
    history = distiller.fit(x, y, epochs=8, verbose=0, batch_size=6).history["hint"]
    assert history[-1] < 0.9 * history[0]
    if kind != "backbone" and kind != "attention":
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert loaded.distillation_losses[0].student_layer == hint.student_layer
        values = [
            d.evaluate(x, y, with_teacher=True, verbose=0, return_dict=True)["hint"]
            for d in (distiller, loaded)
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Gap(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        difference = teacher_outputs - student_outputs
        rows = keras.ops.reshape(difference * difference, (keras.ops.shape(difference)[0], -1))
        return keras.ops.mean(rows, axis=1)


def test_the_layers_objects_are_not_tracked():
    teacher, student = networks.functional(), networks.functional()
    layers = teacher.get_layer("first"), student.get_layer("first")
    loss = kd.losses.FeatureHint(*layers)
    distiller = kd.Distiller(teacher, student, [loss])
    assert not loss.weights[1:]
    assert (loss.teacher_layer, loss.student_layer) == ("first", "first")
    assert len(distiller.trainable_weights) == len(student.trainable_weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "layer=3"),
        ((keras.layers.Dense,), "layer=<class"),
        (("a", "outputs"), r"one of \('output', 'input'.*kind='outputs'"),
        (("a", "output", 1.5), "call=1.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kd.taps.Tap(*arguments)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("frist", r"no layer 'frist'.*'first'.*taps.summary"),
        (keras.layers.Dense(2, name="other"), "'other' does not belong to model.*not of a copy"),
        (lambda model: 7, "must return a layer.*Received: 7"),
    ],
)
def test_layers_that_are_not_there(layer, message):
    with pytest.raises(ValueError, match=message):
        kd.Distiller(
            networks.functional(), networks.functional(), kd.losses.FeatureHint("first", layer)
        )


def test_a_layer_that_is_not_called():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = networks.head(), keras.layers.ReLU()

        def call(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match="'unused'.*was not called"):
        tapped(Model(), "unused")


def test_summary_lists_every_call_with_shapes():
    lines = []
    rows = kd.taps.summary(networks.transformer(), print_fn=lines.append)
    by_name = {row["layer"]: row for row in rows}
    attention = by_name["backbone/transformer_layer_1/self_attention_layer"]
    assert attention["attention"] == (None, networks.HEADS, None, None)
    assert attention["output"] == (None, None, WIDTH)
    assert by_name["backbone/embedding"]["output"] == (None, None, WIDTH)
    assert len(lines) == len(rows) + 1
    assert any("self_attention_layer" in line and "MultiHeadAttention" in line for line in lines)
    calls = [
        row["call"]
        for row in kd.taps.summary(networks.shared(), print_fn=None)
        if row["layer"] == "shared"
    ]
    assert calls == [0, 1, 2]


def test_summary_of_a_subclassed_model_needs_inputs():
    model = networks.subclassed()
    with pytest.raises(ValueError, match="Pass `inputs`"):
        kd.taps.summary(model)
    rows = kd.taps.summary(model, X, print_fn=None)
    assert [row["layer"] for row in rows if row["type"] == "Block"] == ["blocks/0", "blocks/1"]
    for row in rows:
        tapped(model, row["layer"])


def test_scores_of_a_layer_around_and_the_output_of_the_one_inside():
    model = networks.transformer()
    tokens = networks.tokens_and_labels()[0]
    outer = kd.taps.Tap("transformer_layer_0", "attention_scores")
    inner = "transformer_layer_0/self_attention_layer"
    _, both = Taps(model, [outer, inner]).run(lambda: model(tokens, training=False))
    close(both[outer], attention_truth(model, tokens, 0)[1])
    close(both[inner], tapped(model, inner, tokens))
