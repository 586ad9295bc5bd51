"""`settings`: all that a distiller trains with, flat, plain and as it is at this moment."""

import json

import keras
import pytest
import tensorflow as tf

import keras_kd as kd


def model(units, width=8):
    stack = [keras.layers.Dense(units, name="hidden"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((width,)), *stack])


def distiller():
    losses = [
        kd.losses.SoftTargets(4.0, weight=0.5),
        kd.losses.FeatureHint("hidden", "hidden", name="hint"),
    ]
    made = kd.Distiller(model(6), model(4), losses, alpha=0.1, beta=0.9)
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.02)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=2)
    return made


EXPECTED = {
    "distiller": "Distiller",
    "alpha": 0.1,
    "beta": 0.9,
    "teacher/class": "Sequential",
    "teacher/parameters": 8 * 6 + 6 + 6 * 3 + 3,
    "student/trainable_parameters": 8 * 4 + 4 + 4 * 3 + 3,
    "student/dtype": "float32",
    "losses/soft_targets/class": "SoftTargets",
    "losses/soft_targets/temperature": 4.0,
    "losses/soft_targets/weight": 0.5,
    "losses/soft_targets/from_logits": True,
    "losses/hint/class": "FeatureHint",
    "losses/hint/teacher_layer": "hidden",
    "optimizer/class": "AdamW",
    "optimizer/learning_rate/class": "CosineDecay",
    "optimizer/learning_rate/initial_learning_rate": 0.01,
    "optimizer/weight_decay": 0.02,
    "loss/class": "SparseCategoricalCrossentropy",
    "loss/from_logits": True,
    "metrics": "accuracy",
    "steps_per_execution": 2,
    "versions/keras_kd": kd.__version__,
    "versions/tensorflow": tf.__version__,
}


def test_everything_is_there_under_its_place():
    found = distiller().settings()
    assert {name: found.get(name) for name in EXPECTED} == pytest.approx(EXPECTED)
    assert all(isinstance(value, (bool, int, float, str)) for value in found.values())
    assert json.loads(json.dumps(found)) == found


def test_no_key_is_the_folder_of_another():
    """MLflow keeps `a` as a file and `a/b` in a folder `a`: it takes one of the two."""
    names = set(distiller().settings())
    folders = {name[:at] for name in names for at in range(len(name)) if name[at] == "/"}
    assert not names & folders


def test_they_are_those_of_this_moment():
    made = distiller()
    made.alpha, made.distillation_losses[0].temperature = 0.0, 2.0
    found = made.settings()
    assert (found["alpha"], found["losses/soft_targets/temperature"]) == (0.0, 2.0)


def test_before_compile_nothing_of_an_optimizer():
    found = kd.Distiller(model(6), model(4)).settings()
    assert not [name for name in found if name.startswith(("optimizer", "loss/", "metrics"))]
    assert found["losses/soft_targets/class"] == "SoftTargets"


def test_two_processes_give_the_same():
    """Names that Keras counts up do not stand among what a table of trials is grouped by."""
    one, other = (distiller().settings() for _ in range(2))
    counted = {"teacher/name", "student/name"}
    assert {k: v for k, v in one.items() if k not in counted} == {
        k: v for k, v in other.items() if k not in counted
    }


@pytest.mark.parametrize(
    ("teacher", "kind"),
    [
        (lambda x: tf.ones((tf.shape(x)[0], 3)), "function"),
        (kd.teachers.Ensemble([model(5), model(6)]), "Ensemble"),
    ],
)
def test_teachers_that_are_not_a_plain_model(teacher, kind):
    found = kd.Distiller(teacher, model(4)).settings()
    assert kind.lower() in found["teacher/class"].lower()


def test_of_peers():
    made = kd.MutualDistiller([model(6), model(4)])
    made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = made.settings()
    assert (found["peers/0/class"], found["peers/1/parameters"]) == (
        "Sequential",
        8 * 4 + 4 + 4 * 3 + 3,
    )
    assert found["optimizer/0/class"] == found["optimizer/1/class"] == "Adam"
    assert found["losses/soft_targets/temperature"] == made.temperature
