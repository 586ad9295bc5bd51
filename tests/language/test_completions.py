"""Completions that are shown while `fit` runs: the student's own words; training stays as it is."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import extras

extras.require("keras_hub")
extras.require("tokenizers")

from tests.language import hub  # noqa: E402 after the extras are known to be there

pytestmark = pytest.mark.in_turn(4)

PROMPTS = ["abc", "h"]
TEXTS = ["abcdefgh", "hgfedcba", "aceg", "bdfh"] * 2


def distiller(seed=1):
    teacher, student = hub.causal(), hub.causal(seed)
    made = kd.Distiller(teacher, student, kd.losses.TokenKD(2.0), mask_input="padding_mask")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    made.compile(keras.optimizers.Adam(0.05), loss)
    return made


def fit(made, *callbacks, epochs=3):
    x, y, weight = made.student.preprocessor(TEXTS)
    x = {name: np.asarray(value) for name, value in x.items()}
    y = np.where(np.asarray(weight) > 0, y, -100)
    made.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))


def show(*args, **options):
    return kd.language.ShowCompletions(*args, max_length=12, print_fn=lambda line: None, **options)


def greedy(model):
    model.compile(sampler="greedy", jit_compile=False)
    return model.generate(PROMPTS, max_length=12, strip_prompt=True)


def test_they_are_what_student_and_teacher_generate():
    made, lines = distiller(), []
    shown = kd.language.ShowCompletions(PROMPTS, 2, True, max_length=12, print_fn=lines.append)
    first = greedy(made.student)
    fit(made, shown)
    found = {(each["epoch"], each["by"]): [] for each in shown.completions}
    for each in shown.completions:
        found[each["epoch"], each["by"]].append(each["text"])
    assert list(found) == [(0, "teacher"), (2, "student"), (3, "student")]
    assert found[0, "teacher"] == greedy(made.teacher)
    assert found[3, "student"] == greedy(made.student) != first
    assert lines[0] == "the teacher writes:"
    assert lines[3:5] == ["epoch 2, the student writes:", f"  'abc': {found[2, 'student'][0]!r}"]
    assert [each["prompt"] for each in shown.completions] == PROMPTS * 3
    fit(made, shown, epochs=1)
    assert [each["by"] for each in shown.completions].count("teacher") == 2  # known by now


def test_training_is_the_same_without_it():
    states = []
    for callbacks in ([], [show(PROMPTS, teacher=True, sampler="random")]):
        made = distiller()
        sampler = made.student.sampler
        keras.utils.set_random_seed(5)
        fit(made, *callbacks)
        assert made.student.sampler is sampler
        states.append([*made.student.get_weights(), np.random.uniform()])
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


def test_generating_is_traced_once_in_a_fit(monkeypatch):
    made, traces = distiller(), []
    step = made.student.generate_step
    monkeypatch.setattr(
        type(made.student),
        "generate_step",
        lambda self, *args, **options: traces.append(1) or step(*args, **options),
    )
    fit(made, show(PROMPTS), epochs=4)
    assert len(traces) == 1


def test_a_model_that_is_trained_alone():
    model, shown = hub.causal(), show(PROMPTS)
    shown.set_model(model)  # its own `fit` takes texts, and needs another package to read them
    shown.on_train_begin()
    shown.on_epoch_end(0)
    shown.on_train_end()
    assert [each["text"] for each in shown.completions] == greedy(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "argument `prompts`. Expected a list of strings"),
        ({"prompts": "abc"}, "argument `prompts`. Expected a list of strings"),
        ({"prompts": ["abc", 3]}, "argument `prompts`. Expected a list of strings"),
        ({"every": 0}, "argument `every`"),
        ({"teacher": 1}, "argument `teacher`"),
        ({"print_fn": lambda: None}, "`print_fn`"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        kd.language.ShowCompletions(**{"prompts": PROMPTS, **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": ["abcdefghabcdefgh"]}, "Prompt 0 has 14 tokens, and max_length=12"),
        ({"sampler": "best"}, "argument `sampler`. Expected a sampler of KerasHub or its name"),
        ({"max_length": 99}, "positions for 24 tokens"),
    ],
)
def test_what_a_student_cannot_write_is_refused_before_the_first_step(options, message):
    made = distiller()
    shown = kd.language.ShowCompletions(**{"prompts": PROMPTS, "max_length": 12, **options})
    with pytest.raises(ValueError, match=message):
        fit(made, shown)
    assert made.optimizer.iterations == 0


def test_a_model_that_writes_nothing_is_named():
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other = kd.Distiller(plain, keras.models.clone_model(plain))
    other.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="argument `student`. Expected a model with `generate`"):
        other.fit(np.zeros((4, 4)), np.zeros(4), verbose=0, callbacks=[show(PROMPTS)])
    made = distiller()
    made.teacher.preprocessor = None
    with pytest.raises(ValueError, match=r"has no preprocessor \(preprocessor=None\)"):
        fit(made, show(PROMPTS, teacher=True))
