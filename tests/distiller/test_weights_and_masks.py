"""Weights for each position, or each head, meet every loss by a rule; padding counts nowhere."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import MODES, assert_same_values

BATCH, SIZE, CLASSES = 4, 6, 3


def segmenter(width, seed):
    """`[batch, 6, 6, 2]` to a class for each pixel; features at half of the size."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 2))
    hidden = layers.Conv2D(width, 3, strides=2, padding="same", name="features")(inputs)
    outputs = layers.Conv2D(CLASSES, 1)(layers.UpSampling2D(2)(hidden))
    return keras.Model(inputs, outputs)


def pixels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, SIZE, SIZE, 2)).astype("float32")
    weight = rng.uniform(0.0, 2.0, (BATCH, SIZE, SIZE)).astype("float32")
    weight[1] = 0.0
    return x, rng.integers(CLASSES, size=(BATCH, SIZE, SIZE)), weight


def features(model, x):
    return np.float64(
        keras.Model(model.inputs, model.get_layer("features").output).predict(x, verbose=0)
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_hint_takes_the_mean_weight_of_the_pixels(mode):
    teacher, student = segmenter(4, 1), segmenter(4, 2)
    x, y, weight = pixels()
    of_rows = np.mean((features(teacher, x) - features(student, x)) ** 2, axis=(1, 2, 3))
    pair = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    expected = {
        "soft_targets": np.mean(weight * reference.soft_target_loss(*pair, 4.0)),
        "feature_hint": np.mean(weight.mean((1, 2)) * of_rows),
    }
    hint = kd.losses.FeatureHint("features", "features")
    distiller = kd.Distiller(teacher, student, [kd.losses.SoftTargets(), hint])
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits(), **MODES[mode])
    logs = distiller.train_on_batch(x, y, weight, return_dict=True)
    assert_same_values(logs, expected)


READ = {"teacher_layer": "features", "student_layer": "features"}
FEATURE_LOSSES = [
    lambda: kd.losses.ChannelWise(**READ),
    lambda: kd.losses.AttentionTransfer(**READ),
    lambda: kd.losses.SimilarityPreserving(**READ),
    lambda: kd.losses.RelationalDistance(**READ),
    lambda: kd.losses.NeuronSelectivity(**READ),
]


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("make", FEATURE_LOSSES)
def test_every_loss_of_images_takes_weights_of_pixels(make):
    """Row by row they are those of the row's mean weight."""
    x, y, weight = pixels()
    logs = []
    for given in (weight, weight.mean((1, 2))):
        loss = make()
        distiller = kd.Distiller(segmenter(4, 1), segmenter(4, 2), loss, alpha=0.0)
        distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        logs.append(distiller.train_on_batch(x, y, given, return_dict=True)[loss.name])
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    assert logs[0] > 0


def two_heads(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, name="hidden")(inputs)
    return keras.Model(inputs, {name: layers.Dense(4, name=name)(hidden) for name in ("a", "b")})


@pytest.mark.parametrize("output", [None, "a", "b"])
@pytest.mark.parametrize("left_out", [False, True])
def test_a_hint_takes_the_weights_of_a_head_or_their_mean(output, left_out):
    teacher, student = two_heads(1), two_heads(2)
    x, y = linear.data(9)
    rng = np.random.default_rng(4)
    weights = {name: rng.uniform(size=9).astype("float32") for name in ("a", "b")}
    if left_out:
        weights["b"] = None
    factors = {name: np.ones(9) if w is None else w for name, w in weights.items()}
    factor = factors[output] if output else (factors["a"] + factors["b"]) / 2
    gap = np.float64(teacher.get_layer("hidden")(x)) - np.float64(student.get_layer("hidden")(x))
    hint = kd.losses.FeatureHint("hidden", "hidden", output=output)
    distiller = kd.Distiller(teacher, student, [kd.losses.SoftTargets(), hint])
    loss = {name: linear.from_logits() for name in ("a", "b")}
    distiller.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    logs = distiller.train_on_batch(x, {"a": y, "b": y}, weights, return_dict=True)
    assert_same_values(logs, {"feature_hint": np.mean(factor * np.mean(gap**2, axis=-1))})


TIME, WORDS = 7, 20
LENGTHS = (7, 2, 5, 3)


def tagger(seed, width=5):
    ids = keras.Input((TIME,), dtype="int32", name="ids")
    mask = keras.Input((TIME,), dtype="int32", name="padding_mask")
    hidden = layers.Dense(width, name="hidden")(layers.Embedding(WORDS, 4, name="words")(ids))
    model = keras.Model(
        {"ids": ids, "padding_mask": mask}, layers.Dense(CLASSES, name="head")(hidden)
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def tokens(padding=0):
    rng = np.random.default_rng(1)
    mask = np.arange(TIME)[None] < np.array(LENGTHS)[:, None]
    ids = np.where(mask, rng.integers(1, WORDS, (BATCH, TIME)), padding)
    y = np.where(mask, rng.integers(CLASSES, size=(BATCH, TIME)), 0)
    return {"ids": ids, "padding_mask": mask.astype("int32")}, y, mask


def logits(model, x):
    words, k1, b1, k2, b2 = (np.float64(weight) for weight in model.get_weights())
    return (words[x["ids"]] @ k1 + b1) @ k2 + b2


PADDED = {"mask_input": "padding_mask"}
SPELLINGS = {
    "distiller": ({"mask_input": "padding_mask"}, {}),
    "loss": ({}, {"mask_input": "padding_mask"}),
    "both": ({"mask_input": "padding_mask"}, {"mask_input": "padding_mask"}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_hard_and_soft_loss_divide_by_the_positions_that_count(spelling, mode):
    teacher, student = tagger(1), tagger(2)
    x, y, mask = tokens()
    pair = logits(student, x), logits(teacher, x)
    right = (pair[0].argmax(-1) == y)[mask].mean()
    expected = {
        "hard_loss": reference.hard_loss(pair[0], y)[mask].mean(),
        "soft_targets": reference.soft_target_loss(*pair, 4.0)[mask].mean(),
        "accuracy": right,
    }
    of_distiller, of_loss = SPELLINGS[spelling]
    losses = kd.losses.SoftTargets(4.0, **of_loss)
    distiller = kd.Distiller(teacher, student, losses, **of_distiller)
    options = {"metrics": ["accuracy"], **MODES[mode]}
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits(), **options)
    assert_same_values(distiller.train_on_batch(x, y, return_dict=True), expected)
    evaluated = distiller.evaluate(x, y, return_dict=True, verbose=0)
    assert_same_values(evaluated, {"loss": expected["hard_loss"], "accuracy": right})
    evaluated = distiller.evaluate(x, y, with_teacher=True, return_dict=True, verbose=0)
    assert_same_values(evaluated, expected)


@pytest.mark.parametrize("hard_loss", [linear.from_logits, lambda: [linear.from_logits()]])
def test_what_is_under_the_padding_changes_not_a_bit(hard_loss):
    found = []
    for padding in (0, 13):
        teacher, student = tagger(1), tagger(2, width=3)
        mask = {"mask_input": "padding_mask"}
        hidden = kd.losses.HiddenStates("hidden", "hidden", projector="auto", **mask)
        keras.utils.set_random_seed(0)
        losses = [kd.losses.SoftTargets(2.0), hidden]
        distiller = kd.Distiller(teacher, student, losses, **mask)
        distiller.compile(keras.optimizers.SGD(0.1), hard_loss(), weighted_metrics=["accuracy"])
        x, y, mask = tokens(padding)
        y = np.where(mask, y, padding % CLASSES)
        logs = distiller.train_on_batch(x, y, return_dict=True)
        words = student.get_weights()[0]
        found.append((logs, [words[1:13], *student.get_weights()[1:]]))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


def padding_warnings(x, y, weight=None, losses=None, **options):
    """The warnings of two calls of `fit` about padding."""
    distiller = kd.Distiller(tagger(1), tagger(2), losses, **options)
    distiller.compile("sgd", linear.from_logits())
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            distiller.fit(x, y, sample_weight=weight, epochs=2, verbose=0)
    return [str(w.message) for w in found if "padding" in str(w.message)]


def test_padding_that_no_loss_honors_warns_once():
    x, y, mask = tokens()
    (message,) = padding_warnings(x, y)
    assert f"{(~mask).sum()} of {mask.size} positions are padding" in message
    assert "mask_input='padding_mask'" in message
    assert padding_warnings(x, y, mask_input="padding_mask") == []
    assert padding_warnings(x, y, losses=kd.losses.SoftTargets(mask_input="padding_mask")) == []
    assert padding_warnings(x, y, mask.astype("float32")) == []
    full = {**x, "padding_mask": np.ones_like(x["padding_mask"])}
    assert padding_warnings(full, y) == []


def test_a_mask_of_positions_that_no_output_has():
    ids, mask = keras.Input((TIME,), dtype="int32", name="ids"), keras.Input((TIME,), name="mask")
    models = [
        keras.Model(
            {"ids": ids, "mask": mask},
            layers.Dense(CLASSES)(layers.Embedding(WORDS, 4)(ids)[:, 0]),
        )
        for _ in "ts"
    ]
    with pytest.raises(ValueError, match=r"mask_input='mask' has shape \(None, 7\); no output has"):
        kd.Distiller(*models, mask_input="mask")
    with pytest.raises(ValueError, match=r"from input 'masc'.*inputs are \['ids', 'mask'\]"):
        kd.Distiller(*models, mask_input="masc")
    with pytest.raises(ValueError, match="argument `mask_input`.*Received: mask_input=3"):
        kd.Distiller(*models, mask_input=3)


class OfRows(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=(1, 2))


def test_a_loss_without_positions_tells_that_padding_counts():
    ids = keras.Input((TIME,), dtype="int32")
    embeddings = [layers.Embedding(WORDS, 4, mask_zero=True, name="words") for _ in "ts"]
    models = [keras.Model(ids, layers.Dense(CLASSES)(each(ids))) for each in embeddings]
    loss = OfRows(teacher_layer="words", student_layer="words")
    with pytest.warns(UserWarning, match="padded positions count in it.*HiddenStates"):
        kd.Distiller(*models, loss)


def two_sides(seed):
    """An encoder and a decoder, each with tokens and padding of its own."""
    inputs = {
        f"{side}_{kind}": keras.Input((TIME,), dtype="int32", name=f"{side}_{kind}")
        for side in ("encoder", "decoder")
        for kind in ("ids", "mask")
    }
    outputs = {
        side: layers.Dense(CLASSES)(layers.Embedding(WORDS, 4)(inputs[f"{side}_ids"]))
        for side in ("encoder", "decoder")
    }
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def of_two_sides(padding):
    rng = np.random.default_rng(2)
    x = {}
    for side, lengths in (("encoder", LENGTHS), ("decoder", LENGTHS[::-1])):
        mask = np.arange(TIME)[None] < np.array(lengths)[:, None]
        x[f"{side}_ids"] = np.where(mask, rng.integers(1, WORDS, (BATCH, TIME)), padding)
        x[f"{side}_mask"] = mask.astype("int32")
    return x


MASKS = {"encoder": "encoder_mask", "decoder": "decoder_mask"}


@pytest.mark.parametrize("where", ["distiller", "losses"])
def test_outputs_with_different_padding(where, tmp_path):
    def made():
        of_loss = {side: {"mask_input": MASKS[side]} if where == "losses" else {} for side in MASKS}
        losses = {side: kd.losses.SoftTargets(2.0, **of_loss[side], name=side) for side in MASKS}
        masks = MASKS if where == "distiller" else None
        distiller = kd.Distiller(two_sides(1), two_sides(2), losses, alpha=0.0, mask_input=masks)
        distiller.compile(keras.optimizers.SGD(0.1))
        return distiller

    found = []
    for padding in (0, 13):
        distiller = made()
        found.append(distiller.train_on_batch(of_two_sides(padding), return_dict=True))
    assert found[0] == found[1]
    distiller.save(tmp_path / "d.keras")
    again = keras.saving.load_model(tmp_path / "d.keras")
    assert again.forward_passes.padding_inputs == MASKS


def test_one_mask_for_outputs_that_may_have_others_is_refused():
    with pytest.raises(ValueError, match=r"could be the padding of 2 outputs.*'encoder_mask'.*Say"):
        kd.Distiller(two_sides(1), two_sides(2), mask_input="decoder_mask")
    with pytest.raises(ValueError, match="argument `mask_input`. Expected names of outputs"):
        kd.Distiller(two_sides(1), two_sides(2), mask_input={0: "decoder_mask"})


def test_peers_and_generations_leave_the_padding_out_of_the_labels_too():
    x, y, mask = tokens()
    loss = kd.losses.SoftTargets(1.0, mask_input="padding_mask")
    peers = [tagger(1), tagger(2)]
    hard = reference.hard_loss(logits(peers[0], x), y)[mask].mean()
    mutual = kd.MutualDistiller(peers, loss)
    mutual.compile(keras.optimizers.SGD(0.0), linear.from_logits())
    logs = mutual.train_on_batch(x, y, return_dict=True)
    assert logs["peer_0_hard_loss"] == pytest.approx(hard, rel=1e-5)

    found = []
    for padding in (0, 13):
        keras.utils.set_random_seed(0)  # the generations' seeds are drawn from it
        x, _, mask = tokens(padding)
        born_again = kd.BornAgain(
            tagger(1), generations=2, distillation_losses=kd.losses.SoftTargets(**PADDED)
        )
        born_again.compile(keras.optimizers.SGD(0.1), linear.from_logits())
        report = born_again.fit(x, np.where(mask, y, padding % CLASSES), epochs=1, verbose=0)
        found.append(report.histories)
    assert found[0] == found[1]
