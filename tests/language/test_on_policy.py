"""Sequences that student or teacher write while `fit` runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.distiller.linear import MODES

keras_hub = extras.require("keras_hub")

from tests.hub import models  # noqa: E402 after the extra is known to be there
from tests.hub.models import LENGTH  # noqa: E402

pytestmark = pytest.mark.in_turn(4)

PROMPT, IGNORED = 3, -100


def data(rows=6):
    x, y, weights = models.next_tokens(rows)
    prompt = np.zeros_like(x["token_ids"])
    prompt[:, :PROMPT] = 1
    return {**x, "prompt_mask": prompt}, np.where(weights > 0, y, IGNORED)


def distiller(mode="graph", student=None, loss=None, **options):
    made = kd.Distiller(
        models.gpt2(layers=2),
        models.gpt2(layers=1, width=8, seed=1) if student is None else student,
        kd.losses.TokenKD(2.0) if loss is None else loss,
        mask_input="padding_mask",
        **options,
    )
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED)
    made.compile(keras.optimizers.Adam(0.02), loss=hard, **MODES[mode])
    return made


def fit(made, on_policy=None, epochs=4, **options):
    x, y = data()
    callbacks = [*([] if on_policy is None else [on_policy]), *options.pop("callbacks", [])]
    return made.fit(
        x, y, batch_size=3, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **options
    ).history


def state(model):
    return [weight.numpy() for weight in model.weights]


def written(on_policy, made, x, y, step=5):
    """What a step would train on."""
    with on_policy.during_fit(made):
        tensors = {name: tf.constant(value) for name, value in x.items()}
        return on_policy.replaced(tensors, tf.constant(y), None, step)


@pytest.mark.parametrize("by", ["student", "teacher"])
def test_completions_are_the_writers_own(by):
    """Greedy: what KerasHub generates from the prompts, and its next tokens as labels."""
    made, (x, y) = distiller(), data()
    found = written(kd.language.OnPolicy(1.0, by, sampler="greedy"), made, x, y)
    model = getattr(made, by)
    model.compile(sampler="greedy")
    prompt = x["prompt_mask"].astype(bool)
    given = {"token_ids": np.where(prompt, x["token_ids"], 0), "padding_mask": prompt}
    expected = model.generate_step({k: tf.constant(v) for k, v in given.items()})
    ids = found.x["token_ids"].numpy()
    np.testing.assert_array_equal(ids, expected["token_ids"])
    np.testing.assert_array_equal(ids[:, :PROMPT], x["token_ids"][:, :PROMPT])
    # From the last token of the prompt on each position is to give the next; the last has none.
    labels = np.full_like(y, IGNORED)
    labels[:, PROMPT - 1 : -1] = ids[:, PROMPT:]
    np.testing.assert_array_equal(found.y, labels)
    assert found.hard_factor == (0.0 if by == "student" else 1.0)


def test_a_completion_ends_with_its_end():
    made, (x, y) = distiller(), data()
    whole = written(kd.language.OnPolicy(1.0, sampler="greedy"), made, x, y)
    end = int(whole.x["token_ids"][0, PROMPT + 1])
    found = written(kd.language.OnPolicy(1.0, sampler="greedy", end_id=end), made, x, y)
    ids, mask = found.x["token_ids"].numpy(), found.x["padding_mask"].numpy()
    stop = int(np.argmax(ids[0, PROMPT:] == end)) + PROMPT
    assert mask[0, : stop + 1].all()
    assert not mask[0, stop + 1 :].any()
    assert found.y[0, stop - 1] == end
    assert (found.y[0, stop:].numpy() == IGNORED).all()


def test_the_share_of_steps():
    made, (x, y) = distiller(), data()
    on_policy = kd.language.OnPolicy(0.3, sampler="greedy", seed=4)
    with on_policy.during_fit(made):
        tensors = {name: tf.constant(value) for name, value in x.items()}
        drawn = [
            float(on_policy.replaced(tensors, tf.constant(y), None, step).hard_factor)
            for step in range(40)
        ]
    assert 0.1 < 1 - np.mean(drawn) < 0.5
    found = [written(on_policy, made, x, y, step) for step in (drawn.index(1.0), drawn.index(0.0))]
    np.testing.assert_array_equal(found[0].y, y)
    assert (found[1].y.numpy() != y).any()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_modes_draw_the_same(mode):
    one, other = distiller(mode), distiller("graph")
    histories = [fit(each, kd.language.OnPolicy(0.5, seed=2), epochs=2) for each in (one, other)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-5)


def test_without_a_share_it_is_the_plain_fit():
    one, other = distiller(), distiller()
    assert fit(one, kd.language.OnPolicy(0.0)) == fit(other)
    for a, b in zip(state(one.student), state(other.student), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_labels_of_own_sequences_teach_nothing():
    """With the student's sequences alone neither alpha nor the hard loss matters."""
    histories = [
        fit(distiller(alpha=alpha), kd.language.OnPolicy(1.0, seed=2)) for alpha in (0.0, 5.0)
    ]
    np.testing.assert_allclose(histories[0]["token_kd"], histories[1]["token_kd"], rtol=1e-4)
    assert histories[1]["hard_loss"] == histories[1]["perplexity"] == [0.0] * 4


def test_the_student_learns_on_its_own_sequences():
    losses = fit(distiller(), kd.language.OnPolicy(1.0, seed=2), epochs=25)["token_kd"]
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_it_ends_with_the_fit():
    made = distiller()
    sampler = made.student.sampler
    fit(made, kd.language.OnPolicy(1.0), epochs=1)
    assert made.student.sampler is sampler
    assert fit(made, epochs=1)["perplexity"][0] > 1.0
    with pytest.raises(KeyboardInterrupt):
        fit(made, kd.language.OnPolicy(1.0), callbacks=[Stopped(0)])
    assert made.sequences is None
    assert fit(made, epochs=1)["perplexity"][0] > 1.0


class Stopped(keras.callbacks.Callback):
    """Ends `fit` as a signal would, after an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch + 1:
            raise KeyboardInterrupt


def test_an_interrupted_fit_ends_as_one_that_was_not(tmp_path):
    whole = distiller()
    fit(whole, kd.language.OnPolicy(0.5, seed=3))
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    with pytest.raises(KeyboardInterrupt):
        fit(distiller(), kd.language.OnPolicy(0.5, seed=3), callbacks=[backup, Stopped(1)])
    resumed = distiller()
    fit(
        resumed,
        kd.language.OnPolicy(0.5, seed=3),
        callbacks=[keras.callbacks.BackupAndRestore(tmp_path)],
    )
    for a, b in zip(state(whole.student), state(resumed.student), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_encoder_and_a_decoder():
    from tests.hub.test_token_kd import bart

    x = models.translations(rows=4)
    prompt = np.zeros_like(x["decoder_token_ids"])
    prompt[:, :1] = 1
    labels = np.roll(x["decoder_token_ids"], -1, axis=1)
    made = kd.Distiller(
        bart(),
        bart(layers=1, width=8, seed=1),
        kd.losses.TokenKD(),
        mask_input="decoder_padding_mask",
    )
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED)
    made.compile("sgd", loss=hard, jit_compile=False)
    on_policy = kd.language.OnPolicy(1.0, by="teacher")
    history = made.fit({**x, "prompt_mask": prompt}, labels, verbose=0, callbacks=[on_policy])
    assert history.history["perplexity"][0] > 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generate": 1.5}, "generate.*from 0 to 1"),
        ({"by": "me"}, "by"),
        ({"prompts": 3}, "prompts"),
        ({"sampler": "beam"}, "sampler"),
        ({"sampler": 3}, "sampler.*of KerasHub"),
        ({"sampler": "greedy", "temperature": 2.0}, "any temperature"),
        ({"temperature": 0.0}, "temperature"),
        ({"end_id": "stop"}, "end_id"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kd.language.OnPolicy(**arguments)


def test_a_sampler_of_its_own_has_its_own_temperature():
    sampler = keras_hub.samplers.TopPSampler(p=0.5)
    assert kd.language.OnPolicy(sampler=sampler).sampler is sampler
    with pytest.raises(ValueError, match="this one has its own"):
        kd.language.OnPolicy(sampler=sampler, temperature=2.0)


def without(name):
    x, y = data()
    del x[name]
    return x, y


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (
            lambda: distiller(loss=kd.losses.SoftTargets()),
            data,
            "needs a keras_kd.losses.TokenKD.*'soft_targets'",
        ),
        (
            lambda: distiller(loss=kd.losses.TokenKD(ignore_class=None)),
            data,
            "with an `ignore_class`",
        ),
        (distiller, lambda: without("prompt_mask"), "Missing: .'prompt_mask'"),
    ],
)
def test_what_it_cannot_work_with(made, given, message):
    x, y = given()
    with pytest.raises(ValueError, match=message):
        made().fit(x, y, verbose=0, callbacks=[kd.language.OnPolicy()])


def test_a_student_that_cannot_write():
    from tests.language.plain import language_model

    teacher, student = language_model(12), language_model(8, seed=1)
    made = kd.Distiller(teacher, student, kd.losses.TokenKD(), alpha=0.0)
    made.compile("sgd")
    with pytest.raises(ValueError, match="student cannot write sequences: a Functional has no"):
        made.fit(np.zeros((2, 6)), verbose=0, callbacks=[kd.language.OnPolicy()])
    assert LENGTH > PROMPT
