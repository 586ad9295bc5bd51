"""Models with several outputs, as lists and as dicts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import reference
from tests.distiller import heads, linear
from tests.distiller.linear import assert_same_values

SoftTargets = kd.losses.SoftTargets
WEIGHTS = {"a": linear.weights_of(), "b": np.linspace(0.0, 2.0, linear.ROWS)}
EACH = pytest.mark.parametrize("structure", ["dict", "list"])


@pytest.fixture
def x():
    return linear.data()[0]


def pair(structure):
    return heads.model(1, structure), heads.model(2, structure)


def compiled(teacher, student, losses=None, mode="eager", **compile_args):
    distiller = kd.Distiller(teacher, student, losses)
    compile_args.setdefault("loss", linear.from_logits())
    compile_args.update(linear.MODES[mode])
    distiller.compile(keras.optimizers.SGD(0.1), **compile_args)
    return distiller


def soft(teacher, student, x, name, temperature=4.0, weights=None):
    logits = heads.logits_of(student, x)[name], heads.logits_of(teacher, x)[name]
    rows = reference.soft_target_loss(*logits, temperature)
    return np.mean(rows if weights is None else rows * weights)


def hard(student, x, name, weights=None):
    rows = reference.hard_loss(heads.logits_of(student, x)[name], heads.labels()[name])
    return np.mean(rows if weights is None else rows * weights)


def losses_for(structure):
    """`SoftTargets(2)` for the first head, nothing for the second."""
    return {"a": SoftTargets(2.0), "b": None} if structure == "dict" else [SoftTargets(2.0), None]


@pytest.mark.parametrize(
    ("mode", "structure"),
    [("eager", "dict"), ("eager", "list"), ("graph", "list"), ("xla", "dict")],
)
def test_one_loss_reads_every_output(structure, mode, x):
    teacher, student = pair(structure)
    y = heads.arrange(heads.labels(), structure)
    expected = {
        "soft_targets": sum(soft(teacher, student, x, name) for name in "ab"),
        "hard_loss": sum(hard(student, x, name) for name in "ab"),
    }
    expected["loss"] = 0.5 * sum(expected.values())
    loss = heads.arrange({"a": linear.from_logits(), "b": linear.from_logits()}, structure)
    distiller = compiled(teacher, student, mode=mode, loss=loss)
    assert_same_values(distiller.train_on_batch(x, y, return_dict=True), expected)


@EACH
def test_the_gradient_is_the_sum_of_the_heads(structure, x):
    teacher, student = pair(structure)
    labels, expected = heads.labels(), {}
    for name in "ab":
        loop = linear.Loop(teacher.get_layer(name), student.get_layer(name))
        loop.step(x, labels[name])
        expected[name] = loop
    distiller = compiled(teacher, student, loss=heads.arrange(dict.fromkeys("ab"), structure))
    with pytest.raises(ValueError, match="loss"):  # no loss for any output: nothing to learn from
        distiller.train_on_batch(x, heads.arrange(labels, structure))
    loss = heads.arrange({name: linear.from_logits() for name in "ab"}, structure)
    distiller = compiled(teacher, student, loss=loss)
    distiller.train_on_batch(x, heads.arrange(labels, structure))
    for name in "ab":
        linear.assert_same_weights(student.get_layer(name), expected[name])


@EACH
def test_none_leaves_an_output_out(structure, x):
    teacher, student = pair(structure)
    before = student.get_layer("b").get_weights()
    distiller = kd.Distiller(teacher, student, losses_for(structure), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    expected = soft(teacher, student, x, "a", 2.0)
    with pytest.warns(UserWarning, match="Gradients do not exist"):  # Keras', for head b
        logs = distiller.train_on_batch(x, return_dict=True)
    assert_same_values(logs, {"soft_targets": expected})
    for actual, unchanged in zip(student.get_layer("b").get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, unchanged)


@EACH
def test_each_output_its_loss(structure, x):
    teacher, student = pair(structure)
    losses = {"a": SoftTargets(2.0, name="first"), "b": SoftTargets(6.0, name="second")}
    expected = {
        "first": soft(teacher, student, x, "a", 2.0),
        "second": soft(teacher, student, x, "b", 6.0),
    }
    loss = heads.arrange({name: linear.from_logits() for name in "ab"}, structure)
    distiller = compiled(teacher, student, losses, loss=loss)
    y = heads.arrange(heads.labels(), structure)
    assert_same_values(distiller.train_on_batch(x, y, return_dict=True), expected)


def test_losses_choose_their_output_by_name_or_index(x):
    for structure, keys in (("dict", "ab"), ("list", (0, 1))):
        teacher, student = pair(structure)
        losses = [SoftTargets(3.0, output=key, name=f"of_{key}") for key in keys]
        distiller = kd.Distiller(teacher, student, losses, alpha=0.0)
        distiller.compile("sgd", run_eagerly=True)
        expected = {
            f"of_{key}": soft(teacher, student, x, name, 3.0)
            for key, name in zip(keys, "ab", strict=True)
        }
        assert_same_values(distiller.train_on_batch(x, return_dict=True), expected)


def test_one_loss_object_for_two_outputs_is_never_silently_one(x):
    teacher, student = pair("dict")
    shared = SoftTargets(2.0)
    try:
        distiller = kd.Distiller(teacher, student, {"a": shared, "b": shared}, alpha=0.0)
    except ValueError as error:
        assert "same" in str(error)  # noqa: PT017 either refused, or right
        return
    distiller.compile("sgd", run_eagerly=True)
    expected = sum(soft(teacher, student, x, name, 2.0) for name in "ab")
    assert_same_values(distiller.train_on_batch(x, return_dict=True), {"loss": 0.5 * expected})


@EACH
def test_loss_weights_and_losses_of_the_outputs(structure, x):
    teacher, student = pair(structure)
    loss = heads.arrange({"a": linear.from_logits(), "b": linear.from_logits()}, structure)
    weights = heads.arrange({"a": 0.3, "b": 2.0}, structure)
    distiller = compiled(teacher, student, loss=loss, loss_weights=weights)
    logs = distiller.train_on_batch(x, heads.arrange(heads.labels(), structure), return_dict=True)
    expected = 0.3 * hard(student_of(structure), x, "a") + 2.0 * hard(student_of(structure), x, "b")
    assert_same_values(logs, {"hard_loss": expected})


def student_of(structure):
    """The untrained student again."""
    return pair(structure)[1]


@EACH
def test_one_hard_loss_may_be_left_out(structure, x):
    teacher, student = pair(structure)
    loss = heads.arrange({"a": None, "b": linear.from_logits()}, structure)
    distiller = compiled(teacher, student, loss=loss)
    logs = distiller.train_on_batch(x, heads.arrange(heads.labels(), structure), return_dict=True)
    assert_same_values(logs, {"hard_loss": hard(student_of(structure), x, "b")})


@EACH
def test_a_sample_weight_for_each_output(structure, x):
    teacher, student = pair(structure)
    loss = heads.arrange({"a": linear.from_logits(), "b": linear.from_logits()}, structure)
    distiller = compiled(teacher, student, loss=loss)
    arranged = [heads.arrange(values, structure) for values in (heads.labels(), WEIGHTS)]
    logs = distiller.train_on_batch(x, *arranged, return_dict=True)
    fresh = student_of(structure)
    expected = {
        "soft_targets": sum(soft(teacher, fresh, x, name, weights=WEIGHTS[name]) for name in "ab"),
        "hard_loss": sum(hard(fresh, x, name, WEIGHTS[name]) for name in "ab"),
    }
    assert_same_values(logs, expected)


@EACH
def test_the_sample_weight_of_the_output_that_a_loss_reads(structure, x):
    teacher, student = pair(structure)
    loss = heads.arrange({"a": linear.from_logits(), "b": linear.from_logits()}, structure)
    distiller = compiled(teacher, student, losses_for(structure), loss=loss)
    arranged = [heads.arrange(values, structure) for values in (heads.labels(), WEIGHTS)]
    logs = distiller.train_on_batch(x, *arranged, return_dict=True)
    expected = soft(teacher, student_of(structure), x, "a", 2.0, WEIGHTS["a"])
    assert_same_values(logs, {"soft_targets": expected})


def test_metrics_and_losses_of_the_outputs_are_shown():
    x, structure = linear.data()[0], "dict"
    teacher, student = pair(structure)
    loss = {"a": linear.from_logits(), "b": linear.from_logits()}
    metrics = {"a": ["accuracy"], "b": ["accuracy"]}
    distiller = compiled(teacher, student, mode="graph", loss=loss, metrics=metrics)
    y = heads.labels()
    history = distiller.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0).history
    assert {"a_accuracy", "b_accuracy", "a_loss", "b_loss"} <= set(history)
    evaluated = distiller.evaluate(x, y, return_dict=True, verbose=0)
    student.compile(loss=loss, metrics=metrics)
    assert_same_values(evaluated, student.evaluate(x, y, return_dict=True, verbose=0))


def test_losses_of_keras_distillation_for_each_output(x):
    teacher, student = pair("list")
    losses = keras.distillation.LogitsDistillation(temperature=2.0, loss=["kl_divergence", None])
    distiller = kd.Distiller(teacher, student, losses, alpha=0.0)
    distiller.compile("sgd", run_eagerly=True)
    expected = soft(teacher, student, x, "a", 2.0)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        logs = distiller.train_on_batch(x, return_dict=True)
    assert_same_values(logs, {"logits_distillation": expected})


@pytest.mark.parametrize("forms", [("list", "list"), ("list", "dict"), ("dict", "list")])
@pytest.mark.parametrize("choice", [None, "a"])
def test_outputs_are_paired_by_their_names(forms, choice, x):
    """In another order, or of another form, each head learns from the one of its name."""
    teacher = heads.model(1, forms[0], names=("b", "a"))
    student = heads.model(2, forms[1])
    loss = SoftTargets(4.0, output=choice)
    logs = compiled(teacher, student, loss).evaluate(
        x, heads.arrange(heads.labels(), forms[1]), with_teacher=True, return_dict=True, verbose=0
    )
    read = "ab" if choice is None else choice
    expected = sum(soft(teacher, student, x, name) for name in read)
    assert logs["soft_targets"] == pytest.approx(expected, rel=1e-5)


def test_the_heads_of_peers_are_paired_by_their_names(x):
    peers = [heads.model(1, "list", names=("a", "b")), heads.model(2, "dict")]
    made = kd.MutualDistiller(peers, alpha=0.0)
    made.compile(keras.optimizers.SGD(0.0))
    history = made.fit(x, batch_size=len(x), verbose=0).history
    expected = sum(soft(peers[0], peers[1], x, name, 1.0) for name in "ab")
    assert history["peer_1_soft_targets"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("output", [0, -1, "dense"])
def test_the_only_output_by_its_number_or_name(output):
    """Not the first row of the batch."""
    teacher, student = (keras.Model(model.inputs, model.outputs[0]) for model in (linear.pair()))
    x, y = linear.data()
    logs = [
        compiled(teacher, student, SoftTargets(4.0, output=each)).evaluate(
            x, y, with_teacher=True, return_dict=True, verbose=0
        )
        for each in (None, output)
    ]
    assert logs[1]["soft_targets"] == pytest.approx(logs[0]["soft_targets"], rel=1e-6)
    with pytest.raises(
        ValueError, match="reads output 1, which the (teacher|student) does not have"
    ):
        compiled(teacher, student, SoftTargets(4.0, output=1))
    compiled(teacher, student, {"dense": SoftTargets(4.0)})


def test_labels_and_weights_of_one_output_only(x):
    teacher, student = pair("dict")
    weight = WEIGHTS["a"]
    made = compiled(teacher, student, loss={"a": linear.from_logits(), "b": None})
    logs = made.evaluate(
        x,
        {"a": heads.labels()["a"]},
        sample_weight={"a": weight},
        with_teacher=True,
        return_dict=True,
        verbose=0,
    )
    expected = soft(teacher, student, x, "a", weights=weight) + soft(teacher, student, x, "b")
    assert logs["soft_targets"] == pytest.approx(expected, rel=1e-5)
    needy = compiled(teacher, student, kd.losses.DecoupledKD(), loss={"a": linear.from_logits()})
    with pytest.raises(ValueError, match="needs labels of each output.*`output`"):
        needy.fit(x, {"a": heads.labels()["a"]}, verbose=0)


def test_a_loss_of_keras_distillation_for_one_output(x):
    teacher, student = pair("dict")
    logs = compiled(
        teacher, student, {"a": keras.distillation.LogitsDistillation(temperature=4.0)}
    ).evaluate(x, heads.labels(), with_teacher=True, return_dict=True, verbose=0)
    expected = soft(teacher, student, x, "a")
    assert logs["logits_distillation"] == pytest.approx(expected, rel=1e-5)


def with_sigmoid(seed, structure):
    """Head "a" gives logits, "b" probabilities of labels."""
    made = heads.model(seed, structure)
    outputs = [made.get_layer("a").output, keras.activations.sigmoid(made.get_layer("b").output)]
    if structure == "dict":  # its keys are not the names of the layers
        return keras.Model(made.inputs, dict(zip(("first", "second"), outputs, strict=True)))
    return keras.Model(made.inputs, outputs)


@pytest.mark.parametrize(
    "losses",
    [
        lambda: keras.distillation.LogitsDistillation(loss=["kl_divergence", None]),
        lambda: [keras.distillation.LogitsDistillation(), None],
        lambda: [SoftTargets(), None],
    ],
)
def test_sigmoid_where_no_loss_of_classes_reads(losses):
    kd.Distiller(with_sigmoid(1, "list"), with_sigmoid(2, "list"), losses())
    with pytest.raises(ValueError, match=r"output 1\) ends in sigmoid"):
        kd.Distiller(with_sigmoid(1, "list"), with_sigmoid(2, "list"))


def test_sigmoid_of_an_output_in_a_dict(x, tmp_path):
    teacher, student = with_sigmoid(1, "dict"), with_sigmoid(2, "dict")
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    path = kd.cache_teacher(teacher, data, tmp_path / "cache", verbose=0)
    for each in (teacher, kd.teachers.Cached(path)):
        kd.Distiller(each, student, SoftTargets(output="first"))
        with pytest.raises(ValueError, match="output 'second'\\) ends in sigmoid"):
            kd.Distiller(each, student, SoftTargets(output="second"))


def test_outputs_in_tuples(x):
    teacher, student = (keras.Model(model.inputs, tuple(model.outputs)) for model in pair("list"))
    loss = keras.distillation.LogitsDistillation(loss=("kl_divergence", None), temperature=4.0)
    made = compiled(teacher, student, loss)
    logs = made.evaluate(
        x, tuple(heads.labels().values()), with_teacher=True, return_dict=True, verbose=0
    )
    expected = soft(teacher, student, x, "a")
    assert logs["logits_distillation"] == pytest.approx(expected, rel=1e-5)


def unnamed(seed, order):
    """Two heads that nobody named; Keras counts them in this order."""
    keras.utils.clear_session()
    inputs = keras.Input((linear.FEATURES,))
    outputs = [keras.layers.Dense(3)(inputs) for _ in order]
    model = keras.Model(inputs, [outputs[i] for i in order])
    rng = np.random.default_rng(seed)
    for layer in model.layers[1:]:
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return model


def test_automatic_names_do_not_pair_outputs(x):
    teacher, student = unnamed(1, [0, 1]), unnamed(2, [1, 0])
    assert set(teacher.output_names) == set(student.output_names)
    made = kd.Distiller(teacher, student, alpha=0.0, beta=1.0)
    made.compile("sgd")
    logs = made.evaluate(x, with_teacher=True, return_dict=True, verbose=0)
    pairs = zip(teacher.predict(x, verbose=0), student.predict(x, verbose=0), strict=True)
    expected = sum(reference.soft_target_loss(s, t, 4.0).mean() for t, s in pairs)
    assert logs["soft_targets"] == pytest.approx(expected, rel=1e-5)


def test_a_teacher_with_one_output_teaches_the_one_of_its_name(x):
    teacher = heads.model(1, "list", names=("b",))
    teacher = keras.Model(teacher.inputs, teacher.outputs[0])
    student = heads.model(2, "list")
    logs = compiled(teacher, student, {"b": SoftTargets(4.0)}).evaluate(
        x, list(heads.labels().values()), with_teacher=True, return_dict=True, verbose=0
    )
    logits = heads.logits_of(student, x)["b"], linear.logits_of(teacher.get_layer("b"), x)
    expected = reference.soft_target_loss(*logits, 4.0).mean()
    assert logs["soft_targets"] == pytest.approx(expected, rel=1e-5)
    # It would teach head "a" in spite of its name, if that had its classes.
    with pytest.raises(ValueError, match="different numbers of classes"):
        compiled(teacher, student, {"a": SoftTargets(4.0)})


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_cached_teacher_of_a_list(names, x, tmp_path):
    teacher, student = heads.model(1, "list", names), heads.model(2, "list")
    labels = tuple(heads.labels().values())
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(len(x))
    path = kd.cache_teacher(teacher, data, tmp_path / "cache", verbose=0)
    made = compiled(kd.teachers.Cached(path), student)
    history = made.fit(kd.load_cache(path, data), shuffle=False, verbose=0).history
    student = heads.model(2, "list")  # as it was before the step
    expected = sum(soft(teacher, student, x, name) for name in "ab")
    # The graph that writes the cache may round otherwise than a step: 2e-5 were seen.
    assert history["soft_targets"][0] == pytest.approx(expected, rel=1e-3)
