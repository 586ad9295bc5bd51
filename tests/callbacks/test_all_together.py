"""T from 5 to 1, confidence weighting, a late hint and layerwise hints in one `fit`.

Under `MirroredStrategy`: `tests/distribution`, scenario `everything_at_once`.
"""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.callbacks import together
from tests.distiller import linear
from tests.losses.checks import softmax

X, Y = linear.data(48)


def made(jit_compile):
    keras.utils.set_random_seed(0)
    teacher = together.network(8, linear.FEATURES, linear.CLASSES, "t")
    student = together.network(4, linear.FEATURES, linear.CLASSES, "s")
    distiller = kd.Distiller(teacher, student, **together.arguments(teacher, student))
    optimizer = keras.optimizers.Adam(0.02)
    distiller.compile(
        optimizer, linear.from_logits(), metrics=["accuracy"], jit_compile=jit_compile
    )
    return distiller


def fit(distiller, **options):
    options = {"epochs": together.EPOCHS, "callbacks": together.callbacks(), **options}
    return distiller.fit(X, Y, batch_size=16, shuffle=False, verbose=0, **options).history


@pytest.fixture(scope="module")
def histories():
    return {jit: fit(made(jit)) for jit in (True, False)}


@pytest.mark.parametrize("jit_compile", [True, False])
def test_all_of_it_happens(histories, jit_compile):
    history = histories[jit_compile]
    np.testing.assert_allclose(history["temperature"], [5.0, 4.2, 3.4, 2.6, 1.8, 1.0])
    assert history["late_weight"] == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    for name in ("hint_0", "hint_1", "late"):
        assert history[name][-1] < 0.97 * history[name][0], name
    assert history["late"][-1] < 0.97 * history["late"][2]
    assert {"loss", "hard_loss", "soft_targets", "accuracy"} <= set(history)


def test_xla_and_the_graph_give_the_same_numbers(histories):
    for name, values in histories[True].items():
        np.testing.assert_allclose(values, histories[False][name], rtol=2e-4, atol=1e-6)


def test_the_objective_is_what_it_says():
    """One batch's loss, taken apart in float64."""
    distiller = made(False)
    callbacks = together.callbacks()
    callbacks[1].prepare(distiller, callbacks)
    distiller.distillation_losses[3].weight = 0.5
    found = distiller.evaluate(X, Y, batch_size=48, with_teacher=True, return_dict=True, verbose=0)
    teacher, student = (
        [
            np.float64(keras.Model(m.inputs, layer.output).predict(X, verbose=0))
            for layer in m.layers
        ]
        for m in (distiller.teacher, distiller.student)
    )
    share = np.where(softmax(teacher[2]).max(-1) < 0.5, 0.2, 0.8)
    p, q = softmax(teacher[2] / 5.0), softmax(student[2] / 5.0)
    rows = {
        "hard_loss": -np.log(softmax(student[2])[np.arange(48), Y]) * 2 * (1 - share),
        "soft_targets": 25.0 * (p * np.log(p / q)).sum(-1) * 2 * share,
    }
    targets = {"hint_0": (0, 0), "hint_1": (1, 1), "late": (1, 0)}
    for loss in distiller.distillation_losses[1:]:
        of_teacher, of_student = targets[loss.name]
        kernel, bias = (np.float64(w) for w in loss.projection_layers[0].get_weights())
        t, s = teacher[of_teacher], student[of_student] @ kernel + bias
        mse = ((t - s) ** 2).mean(-1)
        cosine = 1 - (t * s).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(s, axis=-1)
        rows[loss.name] = (cosine if loss.name == "late" else mse) * 2 * share
    means = {name: values.mean() for name, values in rows.items()}
    for name, value in means.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name
    weights = {"soft_targets": 1.0, "hint_0": 0.15, "hint_1": 0.15, "late": 0.5}
    soft = sum(weight * means[name] for name, weight in weights.items())
    assert found["loss"] == pytest.approx(0.5 * means["hard_loss"] + 0.5 * soft, rel=2e-5)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_an_interrupted_run_gives_the_same_numbers(histories, jit_compile, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                raise KeyboardInterrupt

    def callbacks(*others):
        return [*together.callbacks(), keras.callbacks.BackupAndRestore(tmp_path / "run"), *others]

    with pytest.raises(KeyboardInterrupt):
        fit(made(jit_compile), callbacks=callbacks(Interrupt()))
    resumed = fit(made(jit_compile), callbacks=callbacks())
    for name, values in resumed.items():
        assert values == histories[jit_compile][name][4:], name
