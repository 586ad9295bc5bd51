"""Whatever `fit` of Keras takes, the distiller takes: the numbers are those of the NumPy loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_values, assert_same_weights, compiled

BATCH = 8


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // BATCH)

    def __getitem__(self, index):
        return tuple(array[index * BATCH : (index + 1) * BATCH] for array in self.arrays)


def dataset(*arrays, batch=BATCH, **kwargs):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch, **kwargs)


def generator(*arrays):
    batches = Batches(*arrays)
    for index in range(len(batches)):
        yield batches[index]


KINDS = {
    "numpy": lambda *arrays: arrays,
    "tensors": lambda *arrays: tuple(map(tf.constant, arrays)),
    "tf.data": lambda *arrays: (dataset(*arrays),),
    "static tf.data": lambda *arrays: (dataset(*arrays, batch=BATCH - 1, drop_remainder=True),),
    "generator": lambda *arrays: (generator(*arrays),),
    "PyDataset": lambda *arrays: (Batches(*arrays),),
}


def mode_of(kind):
    """Datasets also by a compiled step, which sees static shapes and unknown ones."""
    return "graph" if "tf.data" in kind else "eager"


def fit(distiller, kind, *arrays, **kwargs):
    options = {"verbose": 0, "shuffle": False, **kwargs}
    if kind in ("numpy", "tensors"):
        options |= {"batch_size": BATCH}
        options |= {"sample_weight": arrays[2]} if len(arrays) > 2 else {}
        arrays = arrays[:2]
    if kind == "generator":
        options |= {"steps_per_epoch": 3}
    return distiller.fit(*KINDS[kind](*arrays), **options).history


@pytest.mark.parametrize("kind", KINDS)
def test_training(kind):
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student)
    batch, rows = (BATCH - 1, 21) if kind == "static tf.data" else (BATCH, len(x))
    weights = linear.weights_of()
    history = fit(compiled(teacher, student, mode=mode_of(kind)), kind, x, y, weights)
    assert_same_values(history, loop.fit(x[:rows], y[:rows], weights[:rows], batch_size=batch))
    assert_same_weights(student, loop)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "static tf.data"])
def test_inputs_without_labels(kind):
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student, alpha=0.0)
    distiller = kd.Distiller(teacher, student, alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), **linear.MODES[mode_of(kind)])
    history = fit(distiller, kind, x)
    assert_same_values(history, loop.fit(x, y), ["loss", "soft_targets"])
    assert_same_weights(student, loop)


@pytest.mark.parametrize("mode", linear.MODES)
def test_inputs_without_labels_although_a_loss_is_compiled(mode):
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student, alpha=0.0)
    distiller = compiled(teacher, student, alpha=0.0, mode=mode)
    logs = distiller.train_on_batch(x, return_dict=True)
    assert_same_values(logs, loop.step(x, y), ["loss", "soft_targets"])
    assert_same_weights(student, loop)


def test_labels_that_are_not_needed():
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student, alpha=0.0)
    distiller = kd.Distiller(teacher, student, alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    distiller.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    loop.fit(x, y)
    assert_same_weights(student, loop)


def test_metrics_without_a_loss():
    teacher, student = linear.pair()
    x, y = linear.data()
    right = np.argmax(linear.logits_of(student, x), axis=-1) == y
    distiller = kd.Distiller(teacher, student, alpha=0.0)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="right")]
    distiller.compile(keras.optimizers.SGD(0.1), metrics=metrics, run_eagerly=True)
    assert_same_values(distiller.train_on_batch(x, y, return_dict=True), {"right": right.mean()})


@pytest.mark.parametrize(("mode", "steps"), [("graph", 2), ("graph", 5), ("xla", 5)])
def test_several_steps_per_execution(mode, steps):
    # 23 rows are 6 batches of 4, the last of 3 rows: executions of 2 fit, of 5 do not.
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student)
    options = {"steps_per_execution": steps}
    distiller = compiled(teacher, student, mode=mode, compile_args=options)
    history = distiller.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    assert_same_values(history, loop.fit(x, y, batch_size=4, epochs=2))
    assert_same_weights(student, loop)


def test_batches_of_every_size():
    teacher, student = linear.pair()
    loop, distiller = Loop(teacher, student), compiled(teacher, student, mode="graph")
    for rows in (1, 7, 16):
        x, y = linear.data(rows)
        distiller.reset_metrics()
        logs = distiller.train_on_batch(x, y, return_dict=True)
        assert_same_values(logs, loop.step(x, y))
    assert_same_weights(student, loop)


def test_lists_that_train_and_test_on_batch_return():
    x, y = linear.data()
    distiller = compiled(*linear.pair(), compile_args={"metrics": ["accuracy"]})
    values = distiller.train_on_batch(x, y)
    assert len(values) == 4
    distiller.reset_metrics()
    loss = distiller.test_on_batch(x, y)[0]
    hard, _ = Loop(distiller.teacher, distiller.student).gradients(x, y)
    np.testing.assert_allclose(loss, hard["hard_loss"], rtol=1e-5)


@pytest.mark.parametrize("after_evaluate", [False, True])
def test_test_on_batch_reports_no_loss_that_was_not_computed(after_evaluate):
    x, y = linear.data()
    distiller = compiled(*linear.pair(), mode="graph")
    if after_evaluate:
        distiller.evaluate(x, y, verbose=0)
    assert "soft_targets" not in distiller.test_on_batch(x, y, return_dict=True)


def test_predict_and_call_are_the_students():
    x, _ = linear.data()
    teacher, student = linear.pair()
    distiller = kd.Distiller(teacher, student)
    expected = student.predict(x, verbose=0)
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), expected)
    np.testing.assert_array_equal(distiller.predict_on_batch(x), student.predict_on_batch(x))
    np.testing.assert_array_equal(distiller(x), student(x))


def test_evaluate_is_the_students():
    x, y = linear.data()
    teacher, student = linear.pair(kernel_regularizer="l2")
    options = {"loss": linear.from_logits(), "metrics": ["accuracy"]}
    distiller = compiled(teacher, student, mode="graph", compile_args=options)
    student.compile(**options)
    expected = student.evaluate(x, y, batch_size=10, return_dict=True, verbose=0)
    actual = distiller.evaluate(x, y, batch_size=10, return_dict=True, verbose=0)
    assert set(actual) == set(expected)
    assert_same_values(actual, expected)
    as_list = distiller.evaluate(x, y, batch_size=10, verbose=0)
    np.testing.assert_allclose(as_list, student.evaluate(x, y, batch_size=10, verbose=0), rtol=1e-5)


def test_validation_is_the_students():
    x, y = linear.data()
    teacher, student = linear.pair()
    distiller = compiled(teacher, student, mode="graph")
    history = distiller.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    assert {key for key in history if key.startswith("val_")} == {"val_loss"}
    expected, _ = Loop(teacher, student).gradients(x, y)
    np.testing.assert_allclose(history["val_loss"][-1], expected["hard_loss"], rtol=1e-5)


@pytest.mark.parametrize("in_fit", [False, True], ids=["evaluate", "fit"])
def test_evaluation_without_labels_needs_the_teacher(in_fit):
    """Keras would report a loss of 0."""
    x, _ = linear.data()
    distiller = compiled(*linear.pair(), alpha=0, mode="graph")

    def run():
        if in_fit:
            return distiller.fit(x, validation_data=(x,), verbose=0).history
        return distiller.evaluate(x, return_dict=True, verbose=0)

    with pytest.raises(ValueError, match="evaluation data has no labels.*with_teacher=True"):
        run()
    distiller.evaluate_with_teacher = True
    assert np.mean(run()["val_loss" if in_fit else "loss"]) > 0


def test_evaluations_with_and_without_the_teacher_are_traced_once_each():
    x, y = linear.data()
    teacher, student = linear.pair()
    calls = []

    def counted(inputs):
        calls.append(1)
        return teacher(inputs)

    distiller = compiled(counted, student, mode="graph")
    expected, _ = Loop(teacher, student).gradients(x, y)
    options = {"batch_size": len(x), "return_dict": True, "verbose": 0}
    calls.clear()
    for with_teacher in (False, True, None, True, False):
        logs = distiller.evaluate(x, y, with_teacher=with_teacher, **options)
        key = "loss" if with_teacher else "hard_loss"
        np.testing.assert_allclose(logs["loss"], expected[key], rtol=1e-5)
        assert ("soft_targets" in logs) == bool(with_teacher)
    assert len(calls) == 1
    assert distiller.evaluate_with_teacher is False
