"""Teacher and student may read different inputs of one dict, and the data may hold more."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import assert_same_values

ROWS, CLASSES = 12, 4


def model(seed, names, structure="dict"):
    """A linear model of the sum of its inputs, each `[batch, 3]`."""
    inputs = {name: keras.Input((3,), name=name) for name in names}
    summed = layers.Add()(list(inputs.values())) if len(names) > 1 else next(iter(inputs.values()))
    outputs = layers.Dense(CLASSES, name="head")(summed)
    given = {"dict": inputs, "list": list(inputs.values())}.get(structure, inputs[names[0]])
    made = keras.Model(given, outputs)
    rng = np.random.default_rng(seed)
    made.set_weights([rng.normal(size=weight.shape) for weight in made.weights])
    return made


def data(*names):
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(ROWS, 3)).astype("float32") for name in ("a", "b", "c", "spare")}
    return {name: x[name] for name in names}, rng.integers(CLASSES, size=ROWS)


def logits(made, x, names):
    kernel, bias = made.get_weights()
    return sum(np.float64(x[name]) for name in names) @ kernel + bias


CASES = {
    "teacher reads more": (("a", "b"), ("a",), "dict", ("a", "b")),
    "student reads more": (("a",), ("a", "b"), "dict", ("a", "b")),
    "different ones": (("b",), ("a",), "dict", ("a", "b")),
    "some shared": (("b", "c"), ("a", "b"), "dict", ("a", "b", "c")),
    "nobody reads one": (("a",), ("a",), "dict", ("a", "spare")),
    "a student of one Input": (("a", "b"), ("a",), "one", ("a", "b")),
    "a student of a list": (("a", "b", "c"), ("a", "b"), "list", ("a", "b", "c")),
}


@pytest.mark.filterwarnings("error:.*structure of `inputs`.*")
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
@pytest.mark.parametrize("case", CASES)
def test_each_model_takes_the_inputs_that_it_names(case, kind):
    of_teacher, of_student, structure, of_data = CASES[case]
    teacher, student = model(1, of_teacher), model(2, of_student, structure)
    x, y = data(*of_data)
    expected = reference.soft_target_loss(
        logits(student, x, of_student), logits(teacher, x, of_teacher), 4.0
    ).mean()
    distiller = kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits())
    if kind == "arrays":
        history = distiller.fit(x, y, batch_size=ROWS, verbose=0).history
    else:
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(ROWS)
        history = distiller.fit(batches, shuffle=False, verbose=0).history
    assert_same_values(history, {"soft_targets": expected})
    own = {name: x[name] for name in of_data}
    predicted = distiller.predict(own, verbose=0)
    np.testing.assert_allclose(predicted, logits(student, x, of_student), rtol=1e-5, atol=1e-5)


def test_a_wrong_pair_raises_at_construction_although_the_teacher_reads_more():
    teacher = model(1, ("a", "b"))
    inputs = keras.Input((3,), name="a")
    student = keras.Model({"a": inputs}, layers.Dense(7)(inputs))
    with pytest.raises(ValueError, match="7"):
        kd.Distiller(teacher, student)


def test_a_teacher_of_other_inputs_with_a_projector():
    """The optimizer has the projector's weights from the first step."""
    inputs = {name: keras.Input((3,), name=name) for name in ("a", "b")}
    hidden = layers.Dense(6, name="hidden")(layers.Add()(list(inputs.values())))
    teacher = keras.Model(inputs, layers.Dense(CLASSES)(hidden))
    one = keras.Input((3,), name="a")
    student = keras.Model({"a": one}, layers.Dense(CLASSES)(layers.Dense(2, name="own")(one)))
    hint = kd.losses.FeatureHint("hidden", "own")
    distiller = kd.Distiller(teacher, student, [kd.losses.SoftTargets(), hint])
    distiller.compile("adam", linear.from_logits())
    x, y = data("a", "b")
    before = [weight.numpy() for weight in hint.trainable_weights]
    distiller.fit(x, y, verbose=0)
    assert len(before) == 2
    assert any((b != w.numpy()).any() for b, w in zip(before, hint.trainable_weights, strict=True))


def test_a_function_that_reads_what_only_the_data_has():
    """Logits that were computed before, in the data."""
    student = model(2, ("a",))
    x, y = data("a")
    taught = np.random.default_rng(5).normal(size=(ROWS, CLASSES)).astype("float32")
    distiller = kd.Distiller(lambda inputs: inputs["t"], student)
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits())
    history = distiller.fit({**x, "t": taught}, y, batch_size=ROWS, verbose=0).history
    expected = reference.soft_target_loss(logits(student, x, ("a",)), taught, 4.0).mean()
    assert_same_values(history, {"soft_targets": expected})


def test_a_function_that_fails_on_the_data_fails_before_the_first_update():
    student = model(2, ("a",))
    before = student.get_weights()
    distiller = kd.Distiller(lambda inputs: inputs["t"], student)
    distiller.compile("sgd", linear.from_logits())
    with pytest.raises(KeyError, match="t"):
        distiller.fit(*data("a"), verbose=0)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tensor", [tf.zeros_like, keras.ops.zeros_like])
@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore:keras_kd, first batch")
def test_a_preprocess_that_adds_inputs(tensor):
    """Also where the data is arrays, which the look at the first batch keeps."""
    teacher, student = model(1, ("a", "b")), model(2, ("a",))
    add = lambda x: {**x, "b": tensor(x["a"])}  # noqa: E731
    distiller = kd.Distiller(teacher, student, teacher_preprocess=add)
    distiller.compile("sgd", linear.from_logits())
    assert np.isfinite(distiller.fit(*data("a"), verbose=0).history["loss"]).all()


class Boxes(kd.losses.DistillationLoss):
    """Its labels, `[batch, 2, 5]`, have not the outputs' shape, nor are they classes of them."""

    def call(self, teacher_outputs, student_outputs, labels):
        gap = keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=-1)
        return gap * keras.ops.mean(labels[:, :, 4], axis=1)


@pytest.mark.parametrize("eager", [True, False])
def test_labels_of_a_shape_of_their_own(eager):
    teacher, student = model(1, ("a",)), model(2, ("a",))
    x, _ = data("a")
    boxes = np.random.default_rng(1).uniform(size=(ROWS, 2, 5)).astype("float32")
    distiller = kd.Distiller(teacher, student, Boxes(name="boxes"), alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=eager)
    history = distiller.fit(x, boxes, batch_size=ROWS, verbose=0).history
    gap = logits(teacher, x, "a") - logits(student, x, "a")
    expected = np.mean(np.mean(gap**2, axis=-1) * boxes[:, :, 4].mean(1))
    assert_same_values(history, {"boxes": expected})


def heads(seed, names, structure="dict"):
    inputs = keras.Input((3,), name="a")
    outputs = {
        name: layers.Dense(CLASSES, name=f"dense_{i}")(inputs) for i, name in enumerate(names)
    }
    made = keras.Model(inputs, outputs if structure == "dict" else list(outputs.values()))
    rng = np.random.default_rng(seed)
    made.set_weights([rng.normal(size=weight.shape) for weight in made.weights])
    return made


def head(made, x, index):
    kernel, bias = made.get_weights()[2 * index : 2 * index + 2]
    return np.float64(x) @ kernel + bias


def evaluated(distiller, x):
    distiller.compile("sgd")
    return distiller.evaluate(x, return_dict=True, verbose=0, batch_size=ROWS)


@pytest.mark.parametrize("by", ["dict", "argument", "index"])
def test_a_teacher_of_one_output_teaches_a_named_head(by):
    """As DeiT's distillation token learns; the keys of the dict name the heads, not the layers."""
    student, teacher = heads(2, ("cls", "dist")), model(1, ("a",))
    x, _ = data("a")
    losses = {
        "dict": lambda: {"dist": kd.losses.SoftTargets(1.0)},
        "argument": lambda: kd.losses.SoftTargets(1.0, output="dist"),
        "index": lambda: kd.losses.SoftTargets(1.0, output="dist"),
    }[by]()
    logs = evaluated(kd.Distiller(teacher, student, losses, alpha=0.0), x)
    expected = reference.soft_target_loss(head(student, x["a"], 1), logits(teacher, x, "a"), 1.0)
    assert_same_values(logs, {"soft_targets": expected.mean()})


def test_an_output_that_the_teacher_calls_otherwise():
    student, teacher = heads(2, ("cls", "dist")), heads(1, ("aux", "logits"))
    x, _ = data("a")
    loss = kd.losses.SoftTargets(1.0, output="dist", teacher_output="logits")
    logs = evaluated(kd.Distiller(teacher, student, loss, alpha=0.0), x)
    pair = head(student, x["a"], 1), head(teacher, x["a"], 1)
    assert_same_values(logs, {"soft_targets": reference.soft_target_loss(*pair, 1.0).mean()})


@pytest.mark.parametrize(
    ("teacher", "student", "loss", "message"),
    [
        (
            ("cls", "box"),
            ("cls",),
            {},
            r"reads 2 outputs of the teacher and 1 of the student.*teach",
        ),
        (
            ("x", "y"),
            ("cls", "dist"),
            {},
            r"'x', 'y'.*'cls', 'dist'.*which belong together is not known",
        ),
        (
            ("cls", "x"),
            ("cls", "dist"),
            {},
            r"which belong together is not known.*teacher_output",
        ),
        (("cls",), ("cls", "dist"), {"output": "typo"}, "'typo', which the student does not have"),
        (("x", "y"), ("cls", "dist"), {"output": "cls"}, "'cls', which the teacher does not have"),
        (("x",), ("x",), {"teacher_output": "z"}, "'z', which the teacher does not have"),
    ],
)
def test_outputs_that_cannot_be_paired_name_the_model(teacher, student, loss, message):
    with pytest.raises(ValueError, match=message):
        kd.Distiller(heads(1, teacher), heads(2, student), kd.losses.SoftTargets(**loss), alpha=0.0)


def test_a_name_that_no_output_has():
    with pytest.raises(
        ValueError, match=r"names output 'dense_0'; the student's .*\['cls', 'dist'\]"
    ):
        kd.Distiller(
            model(1, ("a",)), heads(2, ("cls", "dist")), {"dense_0": kd.losses.SoftTargets()}
        )
