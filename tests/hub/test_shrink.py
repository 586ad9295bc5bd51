"""Students of KerasHub's models: blocks that stay, channels that stay, tasks around them."""

import contextlib
import functools

import keras
import keras_hub
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.models import paths
from keras_kd.taps.recorder import Taps
from tests.hub import models
from tests.hub.cases import spread

pytestmark = pytest.mark.in_turn(4)

M = keras_hub.models


def masked_lm(layers):
    return M.BertMaskedLM(models.bert_backbone(layers=layers), preprocessor=None)


def of_class(name, width=16, **options):
    """A causal model of another class, with four heads."""

    def build(layers):
        config = {"num_layers": layers, "hidden_dim": width, "intermediate_dim": 20, **options}
        backbone = getattr(M, f"{name}Backbone")(vocabulary_size=models.TOKENS, **config)
        task = getattr(M, f"{name}CausalLM", None)
        return backbone if task is None else task(backbone=backbone, preprocessor=None)

    return build


def masked():
    positions = np.array([[1, 2]] * 8, "int32")
    return {**models.pairs_of_segments()[0], "mask_positions": positions}


GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}
BUILDERS = {
    "bart": models.bart,
    "bert": models.bert_classifier,
    "bert_masked_lm": masked_lm,
    "distilbert": models.distilbert_classifier,
    "gemma": models.gemma,
    "gemma3": of_class("Gemma3", head_dim=6, image_size=None, **GROUPED),
    "gpt2": models.gpt2,
    "llama3": models.llama3,
    "llama_tied": of_class("Llama", tie_word_embeddings=True, **GROUPED),
    "mistral": of_class("Mistral", **GROUPED),
    "opt": of_class("OPT", num_heads=4, max_sequence_length=models.LENGTH),
    "qwen": models.qwen,
    "qwen3": models.qwen3,
    "roberta": of_class("Roberta", num_heads=4, max_sequence_length=models.LENGTH),
    "t5": models.t5,
    "whisper": models.whisper,
}
BATCHES = {
    **dict.fromkeys(BUILDERS, models.tokens),
    "bart": models.translations,
    "bert": lambda: models.pairs_of_segments()[0],
    "bert_masked_lm": masked,
    "t5": models.translations,
    "whisper": models.speech,
}
SEQUENCES = ["bart", "t5", "whisper"]
# T5 is slow to make.
LAYERS = {**dict.fromkeys(BUILDERS, 3), "t5": 2}


@pytest.fixture(scope="module")
def made():
    """Each teacher once, by kind; no test changes it."""
    return functools.cache(lambda kind: spread(BUILDERS[kind](layers=LAYERS[kind])))


def shrink(teacher, **options):
    return kd.students.shrink(teacher, print_fn=None, **options)


def outputs(model, x):
    found = model({name: x[name] for name in model.input}, training=False)
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(found)]


def backbone_of(model):
    return getattr(model, "backbone", model)


def blocks_of(model, side=""):
    name = f"{side}_transformer_layers" if side else "transformer_layers"
    return getattr(backbone_of(model), name)


@contextlib.contextmanager
def bypassed(blocks):
    """Blocks that pass on what they get; of T5's the position bias too."""

    def passing(call):
        def record(*args, **kwargs):
            hidden = args[0] if args else kwargs["decoder_sequence"]
            made = call(*args, **kwargs)
            return (hidden, made[1]) if isinstance(made, tuple) else hidden

        return record

    for block in blocks:
        block.call = passing(block.call)
    try:
        yield
    finally:
        for block in blocks:
            del block.call


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_exact_copy_of_its_own_class(kind, made):
    teacher, x = made(kind), BATCHES[kind]()
    student = shrink(teacher)
    assert type(student) is type(teacher)
    assert student.name == f"{teacher.name}_student"
    assert_equal(outputs(student, x), outputs(teacher, x))
    assert student.count_params() == teacher.count_params()
    assert not {id(w) for w in teacher.weights} & {id(w) for w in student.weights}


@pytest.mark.parametrize("kind", BUILDERS)
def test_without_a_block_it_is_the_teacher_without_that_block(kind, made):
    teacher, x = made(kind), BATCHES[kind]()
    sides = ("encoder", "decoder") if kind in SEQUENCES else ("",)
    kept = list(range(1, LAYERS[kind]))
    student = shrink(teacher, layers=[*kept[:-1], -1])
    assert all(len(blocks_of(student, side)) == len(kept) for side in sides)
    with bypassed([blocks_of(teacher, side)[0] for side in sides]):
        expected = outputs(teacher, x)
    for one, other in zip(outputs(student, x), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert any((a != b).any() for a, b in zip(expected, outputs(teacher, x), strict=True))


@pytest.mark.parametrize("kind", BUILDERS)
def test_narrower_by_position_and_by_activation(kind, made):
    teacher, x = made(kind), BATCHES[kind]()
    by_activation = {"rank": "activation", "data": x}
    # T5 is in `test_the_flat_heads_of_a_t5` by position.
    for options in [by_activation] if kind == "t5" else [{}, by_activation]:
        student = shrink(teacher, depth=0.5, width=0.5, **options)
        assert type(student) is type(teacher)
        config, before = backbone_of(student).get_config(), backbone_of(teacher).get_config()
        heads = next(key for key in config if key in ("num_heads", "num_query_heads"))
        for key in ("hidden_dim", "intermediate_dim", heads):
            assert config[key] == before[key] // 2, key
        made_heads = before["hidden_dim"] // before[heads]
        of_head = next((key for key in config if key in ("head_dim", "key_value_dim")), None)
        if of_head is None or before[of_head] is None:
            assert config["hidden_dim"] // config[heads] == made_heads
        else:
            assert config[of_head] == before[of_head]
        assert config["num_layers"] == (LAYERS[kind] + 1) // 2
        for each, of_teacher in zip(outputs(student, x), outputs(teacher, x), strict=True):
            assert np.isfinite(each).all()
            # Logits keep their shape, hidden states do not.
            assert each.shape[:-1] == of_teacher.shape[:-1]
            assert each.shape[-1] in (of_teacher.shape[-1], config["hidden_dim"])


def kernels(model, path):
    found = [w for w in model.weights if w.path.endswith(path)]
    assert len(found) == 1, path
    return found[0].numpy()


def test_the_channels_of_a_bert(made):
    teacher = made("bert")
    student = shrink(teacher, width=0.5)
    hidden, units, heads = np.arange(16) * 2, np.arange(32) * 2, [0, 2]
    for path, axes in {
        "token_embedding/embeddings": [None, hidden],
        "position_embedding/embeddings": [None, hidden],
        "transformer_layer_1/self_attention_layer/query/kernel": [hidden, heads, None],
        "transformer_layer_1/self_attention_layer/value/bias": [heads, None],
        "transformer_layer_1/self_attention_layer/attention_output/kernel": [heads, None, hidden],
        "transformer_layer_2/feedforward_intermediate_dense/kernel": [hidden, units],
        "transformer_layer_2/feedforward_output_dense/kernel": [units, hidden],
        "transformer_layer_2/feedforward_layer_norm/gamma": [hidden],
        "pooled_dense/kernel": [hidden, hidden],
        "logits/kernel": [hidden, None],
        "logits/bias": [None],
    }.items():
        expected = kernels(teacher, path)
        for axis, kept in enumerate(axes):
            if kept is not None:
                expected = expected[(slice(None),) * axis + (kept,)]
        np.testing.assert_array_equal(kernels(student, path), expected, err_msg=path)


def test_groups_of_heads_keep_their_keys():
    teacher = spread(models.llama3(layers=1, width=32, heads=8))  # 8 queries, 4 keys
    student = shrink(teacher, width=0.5)
    path = "self_attention/{}/kernel"
    hidden = np.arange(16) * 2
    # Keys 0 and 2 of four, with both of their queries each.
    for name, heads in {"query": [0, 1, 4, 5], "key": [0, 2]}.items():
        expected = kernels(teacher, path.format(name))[hidden][:, heads]
        np.testing.assert_array_equal(kernels(student, path.format(name)), expected)
    # One key less than a half: of its two queries one stays.
    few = backbone_of(shrink(teacher, width=0.125)).get_config()
    assert (few["num_query_heads"], few["num_key_value_heads"], few["hidden_dim"]) == (1, 1, 4)


def test_the_flat_heads_of_a_t5(made):
    teacher = made("t5")
    student = shrink(teacher, width=0.5)
    hidden, head = np.arange(8) * 2, np.arange(8)
    for side in ("encoder", "decoder"):
        path = f"transformer_{side}_layer_0/self_attention/query_projector/kernel"
        expected = kernels(teacher, path)[hidden][:, head]
        np.testing.assert_array_equal(kernels(student, path), expected)
        biases = [
            paths.find_layer(model, f"transformer_{side}_layer_0/self_attention").weights[0]
            for model in (teacher, student)
        ]
        np.testing.assert_array_equal(biases[1], biases[0][:, :1])


def test_by_activation_what_is_dead_goes():
    teacher = spread(models.gpt2(layers=3, width=16, heads=2))
    weights = {w.path: w for w in teacher.weights}

    def zero(path, *where):
        value = weights[path].numpy()
        value[where] = 0.0
        weights[path].assign(value)

    # The first head of the first block, and its even units, whose bias silences them.
    zero("transformer_layer_0/self_attention/value/kernel", slice(None), 0)
    zero("transformer_layer_0/self_attention/value/bias", 0)
    even = slice(0, None, 2)
    zero("transformer_layer_0/feedforward_intermediate_dense/kernel", slice(None), even)
    zero("transformer_layer_0/feedforward_intermediate_dense/bias", even)
    # The second block adds nothing.
    for layer in ("self_attention/attention_output", "feedforward_output_dense"):
        zero(f"transformer_layer_1/{layer}/kernel", slice(None))
        zero(f"transformer_layer_1/{layer}/bias", slice(None))
    x = models.tokens()
    student = shrink(teacher, depth=0.67, width=0.5, rank="activation", data=x)
    value = "transformer_layer_0/self_attention/value/kernel"
    hidden = kept_channels(teacher, x)
    np.testing.assert_array_equal(kernels(student, value), kernels(teacher, value)[hidden][:, [1]])
    units = "transformer_layer_0/feedforward_intermediate_dense/kernel"
    np.testing.assert_array_equal(kernels(student, units), kernels(teacher, units)[hidden][:, 1::2])
    # Of the third block.
    norm = "self_attention_layer_norm/gamma"
    np.testing.assert_array_equal(
        kernels(student, f"transformer_layer_1/{norm}"),
        kernels(teacher, f"transformer_layer_2/{norm}")[hidden],
    )


def kept_channels(teacher, x, count=8):
    """By the mean absolute output of the normalizations in blocks, of positions that count."""
    norms = [
        f"backbone/transformer_layer_{i}/{name}_layer_norm"
        for i in range(3)
        for name in ("self_attention", "feedforward")
    ]
    _, values = Taps(teacher, norms).run(lambda: teacher(x, training=False))
    counts = x["padding_mask"] != 0
    scores = sum(np.abs(np.float64(values[norm].numpy()))[counts].mean(axis=0) for norm in norms)
    return np.sort(np.argsort(-scores)[:count])


@pytest.mark.parametrize("kind", ["bert", "llama3", "bart"])
def test_by_activation_padding_does_not_count(kind, made):
    teacher, x = made(kind), BATCHES[kind]()
    other = models.other_padding(x)
    students = [
        shrink(teacher, depth=0.34, width=0.5, rank="activation", data=data)
        for data in (x, (other, np.zeros(8)))
    ]
    assert_equal(*[student.get_weights() for student in students])
    by_position = shrink(teacher, depth=0.34, width=0.5).get_weights()
    pairs = zip(students[0].get_weights(), by_position, strict=True)
    assert any((one != two).any() for one, two in pairs)


def test_windows_of_attention_stay_where_they_are():
    teacher = spread(
        models.gemma(layers=4, use_sliding_window_attention=True, sliding_window_size=3)
    )
    with pytest.raises(
        ValueError,
        match=r"Block 2 of the teacher would become block 1 .*use_sliding_window_attention=False "
        r"instead of True.*layers=\[0, 3\]",
    ):
        shrink(teacher, layers=[0, 2])
    student, x = shrink(teacher, depth=0.5), models.tokens()
    with bypassed(blocks_of(teacher)[1:3]):
        expected = outputs(teacher, x)
    np.testing.assert_allclose(outputs(student, x)[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_all_of_the_encoder_and_two_layers_of_the_decoder(kind, made, tmp_path):
    """As distil-whisper has them."""
    teacher, x = made(kind), BATCHES[kind]()
    kept = [0, -1] if LAYERS[kind] > 2 else [-1]
    student = shrink(teacher, layers={"decoder": kept})
    assert len(blocks_of(student, "encoder")) == LAYERS[kind]
    assert len(blocks_of(student, "decoder")) == len(kept)
    assert isinstance(backbone_of(student), type(backbone_of(teacher)))
    with bypassed([blocks_of(teacher, "decoder")[len(kept) - 1]]):
        expected = outputs(teacher, x)
    for one, other in zip(outputs(student, x), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    assert type(loaded) is type(student)
    assert_equal(outputs(loaded, x), outputs(student, x))
    # Once more, from what was loaded: both depths are its own now.
    smaller = shrink(loaded, layers={"encoder": [0], "decoder": [-1]}, width=0.5)
    assert len(blocks_of(smaller, "encoder")) == len(blocks_of(smaller, "decoder")) == 1
    assert len(outputs(smaller, x)) == len(outputs(teacher, x))


def test_a_student_with_two_depths_generates(made):
    student = shrink(made("bart"), layers={"encoder": [0, 1, 2], "decoder": [0]})
    x = models.translations(2)
    made_ids = student.generate(x, stop_token_ids=None)
    assert made_ids["decoder_token_ids"].shape == (2, models.LENGTH)


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class Lowercase(keras.layers.Layer):
    """Stands for a preprocessor."""


def test_the_head_of_a_task_and_its_preprocessor():
    backbone = models.bert_backbone(layers=2)
    preprocessor = Lowercase(name="lowercase")
    teacher = M.BertTextClassifier(
        backbone, num_classes=5, preprocessor=preprocessor, activation="softmax", dropout=0.3
    )
    teacher.backbone.trainable = False
    student = shrink(teacher, layers=[1], width=0.5, name="small")
    config = student.get_config()
    assert (config["num_classes"], config["dropout"], student.name) == (5, 0.3, "small")
    assert student.preprocessor is preprocessor
    x = models.pairs_of_segments()[0]
    np.testing.assert_allclose(outputs(student, x)[0].sum(axis=-1), 1.0, rtol=1e-5)
    assert len(student.trainable_weights) == len(student.weights)


def test_tied_embeddings_stay_tied(made):
    for kind in ("gpt2", "llama_tied", "bert_masked_lm"):
        teacher = made(kind)
        student = shrink(teacher, depth=0.5, width=0.5)
        large = [w.path for w in student.weights if models.TOKENS in w.shape and len(w.shape) == 2]
        assert large == ["token_embedding/embeddings"], kind
    untied = [w.path for w in shrink(made("llama3"), width=0.5).weights if "embeddings" in w.path]
    assert len(untied) == 2


def test_in_half_precision():
    teacher = spread(of_class("GPT2", num_heads=2, dtype="bfloat16")(2))
    student = shrink(teacher, layers=[1], width=0.5)
    assert {w.dtype for w in student.weights} == {"bfloat16"}
    np.testing.assert_array_equal(
        kernels(student, "transformer_layer_0/feedforward_output_dense/bias"),
        kernels(teacher, "transformer_layer_1/feedforward_output_dense/bias")[::2],
    )


def test_new_weights_of_the_same_shapes(made):
    student = shrink(made("gpt2"), depth=0.5, copy=None)
    copied = shrink(made("gpt2"), depth=0.5)
    assert [w.shape for w in student.weights] == [w.shape for w in copied.weights]
    path = "token_embedding/embeddings"
    assert (kernels(student, path) != kernels(copied, path)).all()


def test_the_plan(made):
    teacher = made("bert")
    rows = kd.students.plan(teacher, layers=[0, 2], width=0.5)
    named = {row["layer"]: row for row in rows}
    path = "backbone/transformer_layer_"
    assert named[f"{path}1"]["student_layer"] is None
    assert named[f"{path}1"]["how"] == "removed"
    assert named[f"{path}2"]["student_layer"] == f"{path}1"
    assert named["logits"]["how"] == "sliced"
    student = shrink(teacher, layers=[0, 2], width=0.5)
    assert sum(row["student_parameters"] for row in rows) == student.count_params()
    assert sum(row["teacher_parameters"] for row in rows) == teacher.count_params()
    assert {row["how"] for row in kd.students.plan(teacher)} == {"copied"}
    assert {row["how"] for row in kd.students.plan(teacher, copy=None)} == {"new"}
    lines = []
    kd.students.shrink(teacher, depth=0.5, print_fn=lines.append)
    assert len(lines) == len(rows) + 2
    assert lines[-1].startswith(f"parameters: {teacher.count_params():,} -> ")


def test_adapters_alone_are_trained_and_merged_in_the_file(made, tmp_path):
    teacher, x = made("gpt2"), models.tokens()
    student = shrink(teacher, layers=[0, 2], lora_rank=2)
    names = {w.path.rpartition("/")[2] for w in student.trainable_weights}
    assert names == {"bias", "lora_kernel_a", "lora_kernel_b"}
    assert_equal(outputs(student, x), outputs(shrink(teacher, layers=[0, 2]), x))
    before = {w.path: w.numpy() for w in student.weights}
    distiller = kd.Distiller(teacher, student, alpha=0.0, mask_input="padding_mask")
    distiller.compile(keras.optimizers.Adam(0.05))
    history = distiller.fit(x, epochs=3, verbose=0).history["soft_targets"]
    assert history[-1] < history[0]
    moved = {w.path for w in student.weights if (w.numpy() != before[w.path]).any()}
    assert moved == {w.path for w in student.trainable_weights}
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    assert not [w.path for w in loaded.weights if "lora" in w.path]
    np.testing.assert_allclose(outputs(loaded, x)[0], outputs(student, x)[0], rtol=1e-5, atol=1e-5)
    # A teacher with adapters gives what it computes, not what lies below them.
    assert_equal(outputs(shrink(student), x), outputs(loaded, x))


def test_bad_arguments(made):
    bert, whisper, gpt2 = made("bert"), made("whisper"), made("gpt2")
    cases = [
        (bert, {"layers": [0, 3]}, r"numbers of the 3 blocks, from 0 .* to 2. Received.*\[0, 3\]"),
        (bert, {"layers": [2, 0]}, "rising, each once"),
        (bert, {"layers": [0, -3]}, "rising, each once"),
        (bert, {"layers": []}, "a list of numbers of the 3 blocks"),
        (bert, {"layers": 2}, "a list of numbers of the 3 blocks"),
        (bert, {"layers": {"encoder": [0]}}, "the model has one kind of them"),
        (whisper, {"layers": {"encodr": [0]}}, r"for \['decoder', 'encoder'\]"),
        (whisper, {"layers": {"decoder": [4]}}, "3 blocks of the decoder"),
        (bert, {"layers": [0], "depth": 0.5}, "`layers` or `depth`, not both"),
        (bert, {"depth": 0.99}, r"of \{'blocks': 3\} blocks all would stay"),
        (gpt2, {"width": 0.999}, "it has 2 heads, which stay whole"),
        (bert, {"width": 0.5, "copy": "average"}, "'slice' or None for a model of KerasHub"),
        (bert, {"keep": ["logits"]}, "Name blocks with `layers`"),
        (bert, {"rank": "size"}, r"\('position', 'magnitude', 'activation'\)"),
        (bert, {"rank": "magnitude", "data": models.tokens()}, "Leave `data` out"),
        (bert, {"rank": "activation"}, "Pass some hundred samples"),
        (bert, {"data": models.tokens()}, "Leave `data` out"),
        (
            bert,
            {"rank": "activation", "data": models.tokens()},
            r"batches of dicts with the inputs .*'segment_ids'.*Received: data=\['padding_mask', "
            r"'token_ids'\]",
        ),
        (bert, {"rank": "activation", "data": np.ones((2, 3))}, "a dict of arrays, "),
        (bert, {"lora_rank": 0}, "an integer, at least 1"),
        (bert, {"vocabulary": [0, 1]}, "a keras_kd.students.VocabularyMap, or None"),
        (
            bert,
            {"vocabulary": kd.students.VocabularyMap([0, 1], size=9)},
            r"a map of 9 words, but model 'bert.*' has 100",
        ),
    ]
    for teacher, options, message in cases:
        with pytest.raises(ValueError, match=message):
            shrink(teacher, **options)


def test_by_activation_there_must_be_positions_and_numbers(made):
    x = models.tokens()
    nothing = {**x, "padding_mask": np.zeros_like(x["padding_mask"])}
    with pytest.raises(ValueError, match="positions that are not padding"):
        shrink(made("gpt2"), width=0.5, rank="activation", data=nothing)
    teacher = models.gpt2(layers=2)
    teacher.weights[0].assign(np.full(teacher.weights[0].shape, np.nan))
    with pytest.raises(ValueError, match="are not finite, first in block 0"):
        shrink(teacher, width=0.5, rank="activation", data=x)


def test_backbones_and_models_that_are_not_known():
    image = M.ViTBackbone((8, 8, 3), (4, 4), 1, 2, 8, 8)
    with pytest.raises(ValueError, match="does not know the configuration of ViTBackbone"):
        shrink(image, depth=0.5)
    quantized = models.gpt2(layers=1)
    quantized.quantize("int8", filters="query|key")
    with pytest.raises(ValueError, match=r"is quantized \(int8\).*Shrink the model first"):
        shrink(quantized, width=0.5)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    for options, what in (
        ({"lora_rank": 2}, "lora_rank"),
        ({"vocabulary": kd.students.VocabularyMap([0], size=9)}, "vocabulary"),
    ):
        with pytest.raises(ValueError, match=f"{what} works for the backbones and tasks of KerasH"):
            shrink(plain, **options)
