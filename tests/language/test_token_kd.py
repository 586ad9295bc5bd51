"""`TokenKD` trains as `SoftTargets` does, without the logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import matrix, reference
from tests.distiller.linear import MODES, assert_same_values
from tests.language import plain
from tests.language.plain import LENGTH, WORDS, from_logits, language_model, tokens

TEMPERATURE, ALPHA, BETA = 2.0, 0.3, 0.7


def distiller(loss=None, teacher=None, student=None, mode="eager", rate=0.5, **options):
    options = {"alpha": ALPHA, "beta": BETA, **options}
    made = kd.Distiller(
        language_model(12, seed=1) if teacher is None else teacher,
        language_model(8, seed=2) if student is None else student,
        kd.losses.TokenKD(TEMPERATURE, memory_mb=1e-3) if loss is None else loss,
        **options,
    )
    optimizer = keras.optimizers.SGD(rate)
    made.compile(optimizer, loss=from_logits(ignore_class=-100), **MODES[mode])
    return made


def weights():
    """Sample weights of positions; some are 0."""
    found = np.random.default_rng(3).uniform(0.1, 2.0, (plain.ROWS, LENGTH)).astype("float32")
    found[2, 1:4] = 0.0
    return found


def state(model):
    return [weight.numpy() for weight in model.weights]


def assert_same_weights(one, other, tolerance=2e-6):
    for a, b in zip(state(one), state(other), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


class Ignoring(kd.losses.DistillationLoss):
    """What `TokenKD` computes, of logits that exist."""

    def call(self, teacher_outputs, student_outputs, labels):
        loss = kd.ops.soft_target_loss(student_outputs, teacher_outputs, TEMPERATURE)
        return loss * tf.cast(labels != -100, tf.float32)


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_equals_one_with_logits(mode, weighted):
    x, y = tokens()
    data = {"sample_weight": weights()} if weighted else {}
    # All positions count in the mean of a loss of one's own; here those of `ignore_class` do not.
    factor = y.size / (y != -100).sum()
    one = distiller(mode=mode)
    other = distiller(Ignoring(weight=factor, name="token_kd"), mode=mode)
    logs = [d.fit(x, y, epochs=2, verbose=0, shuffle=False, **data).history for d in (one, other)]
    assert_same_weights(one.student, other.student)
    for name in ("loss", "hard_loss"):
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-5)
    np.testing.assert_allclose(
        logs[0]["token_kd"], factor * np.array(logs[1]["token_kd"]), rtol=1e-5
    )


def truth(student, teacher, x, y, sample_weight=None):
    """What is reported, in float64."""
    counts = y != -100
    weight = counts * (1.0 if sample_weight is None else sample_weight)
    logits = [np.float64(model.predict(x, verbose=0)) for model in (student, teacher)]
    labels = np.where(counts, y, 0)
    hard = reference.hard_loss(logits[0], labels)
    soft = (weight * reference.soft_target_loss(*logits, TEMPERATURE)).sum() / counts.sum()
    hard_mean = (weight * hard).sum() / counts.sum()
    correct = logits[0].argmax(-1) == labels
    return {
        "loss": ALPHA * hard_mean + BETA * soft,
        "hard_loss": hard_mean,
        "token_kd": soft,
        "token_accuracy": (weight * correct).sum() / weight.sum(),
        "perplexity": np.exp((weight * hard).sum() / weight.sum()),
    }


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("sample_weight", [None, weights()])
def test_what_is_reported(mode, sample_weight):
    x, y = tokens()
    made = distiller(mode=mode)
    expected = truth(made.student, made.teacher, x, y, sample_weight)
    options = {"verbose": 0, "return_dict": True, "batch_size": 2}
    found = made.evaluate(x, y, sample_weight=sample_weight, with_teacher=True, **options)
    # Batches have other shares of positions that count, and losses are means over the rows.
    whole = made.evaluate(
        x, y, sample_weight=sample_weight, with_teacher=True, **{**options, "batch_size": 8}
    )
    assert_same_values(whole, expected)
    for name in ("token_accuracy", "perplexity"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    alone = made.evaluate(x, y, sample_weight=sample_weight, **{**options, "batch_size": 8})
    assert set(alone) == {"loss", "token_accuracy", "perplexity"}
    np.testing.assert_allclose(alone["loss"], expected["hard_loss"], rtol=1e-5)
    logs = made.fit(x, y, sample_weight=sample_weight, batch_size=8, verbose=0).history
    assert_same_values({name: value[0] for name, value in logs.items()}, expected)


def test_no_tensor_of_a_step_has_all_logits():
    x, y = tokens(rows=4)
    made = distiller(mode="graph")
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    made.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    seen = []
    made.train_function = tf.function(lambda it: seen.append(made.train_step(next(it))) or 0)
    traced = made.train_function.get_concrete_function(iter(data))
    largest = max(elements(graph) for graph in graphs(traced.graph))
    assert largest < x.size * WORDS
    # The same of logits that exist has some.
    whole = distiller(kd.losses.SoftTargets(TEMPERATURE), mode="graph")
    whole.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    traced = tf.function(lambda it: whole.train_step(next(it)) and 0)
    traced = traced.get_concrete_function(iter(data))
    assert max(elements(graph) for graph in graphs(traced.graph)) >= x.size * WORDS


def graphs(graph):
    """A graph and those of all functions in it."""
    found = [graph]
    for name in (f.signature.name for f in graph.as_graph_def().library.function):
        inner = graph._get_function(name)
        if getattr(inner, "graph", None) is not None:
            found.append(inner.graph)
    return found


def elements(graph):
    sizes = [tensor.shape.num_elements() for op in graph.get_operations() for tensor in op.outputs]
    return max((size for size in sizes if size is not None), default=0)


def test_numbers_are_live():
    x, y = tokens()
    made = distiller()
    loss = made.distillation_losses[0]
    options = {"with_teacher": True, "verbose": 0, "return_dict": True}
    before = made.evaluate(x, y, **options)
    loss.temperature, loss.weight, made.alpha, made.beta = 5.0, 2.0, 0.1, 0.9
    after = made.evaluate(x, y, **options)
    assert after["hard_loss"] == before["hard_loss"]
    assert after["token_kd"] != before["token_kd"]
    expected = 0.1 * after["hard_loss"] + 0.9 * 2.0 * after["token_kd"]
    np.testing.assert_allclose(after["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_without_beta_it_is_the_students_own_fit(mode):
    x, y = tokens()
    made = distiller(mode=mode, alpha=1.0, beta=0.0)
    alone = language_model(8, seed=2)
    alone.compile(keras.optimizers.SGD(0.5), loss=from_logits(ignore_class=-100), **MODES[mode])
    logs = made.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    own = alone.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(logs["loss"], own["loss"], rtol=1e-5)
    assert_same_weights(made.student, alone)
    assert logs["token_kd"] == [0.0, 0.0]


def test_from_the_teacher_alone_without_labels_or_a_loss():
    x, y = tokens()
    made = kd.Distiller(
        language_model(12, seed=1), language_model(8, seed=2), kd.losses.TokenKD(2.0), alpha=0.0
    )
    made.compile(keras.optimizers.Adam(0.01))
    losses = made.fit(x, epochs=15, verbose=0).history["token_kd"]
    assert losses[-1] < 0.7 * losses[0]
    # With labels the language model is reported, although no loss of them counts.
    found = made.evaluate(x, y, verbose=0, return_dict=True)
    expected = truth(made.student, made.teacher, x, y)
    np.testing.assert_allclose(found["perplexity"], expected["perplexity"], rtol=1e-5)
    np.testing.assert_allclose(found["loss"], expected["token_kd"] * 0.5, rtol=1e-4)


def test_beside_a_loss_of_inner_layers():
    x, y = tokens()
    y = np.maximum(y, 0)
    logs, students = [], []
    for loss in (kd.losses.TokenKD(TEMPERATURE), kd.losses.SoftTargets(TEMPERATURE)):
        loss = [loss, kd.losses.HiddenStates("hidden", "hidden", projector=None)]
        made = distiller(loss, language_model(8, seed=1))
        logs.append(made.fit(x, y, epochs=2, shuffle=False, verbose=0).history)
        students.append(made.student)
    assert_same_weights(*students)
    np.testing.assert_allclose(logs[0]["hidden_states"], logs[1]["hidden_states"], rtol=1e-5)


def test_teachers_that_give_logits():
    x, y = tokens()
    members = [language_model(12, seed=1), language_model(6, seed=4)]
    ensemble = kd.teachers.Ensemble(members)
    made = distiller(teacher=ensemble)
    other = distiller(kd.losses.SoftTargets(TEMPERATURE), teacher=kd.teachers.Ensemble(members))
    y = np.maximum(y, 0)
    for each in (made, other):
        each.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert_same_weights(made.student, other.student)
    with pytest.raises(ValueError, match="`teacher_head` names a layer of a Keras model; a Ense"):
        distiller(kd.losses.TokenKD(teacher_head="head"), teacher=ensemble)


@pytest.mark.parametrize("top_k", [None, 5])
def test_a_cached_teacher(top_k, tmp_path):
    x, y = tokens()
    y = np.maximum(y, 0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    teacher = language_model(12, seed=1)
    path = kd.cache_teacher(teacher, data, tmp_path / "cache", top_k=top_k, verbose=0)
    students = []
    for loss in (kd.losses.TokenKD(TEMPERATURE, memory_mb=1e-3), kd.losses.SoftTargets(2.0)):
        made = distiller(loss, teacher=kd.teachers.Cached(path))
        made.fit(kd.load_cache(path, data), epochs=2, shuffle=False, verbose=0)
        students.append(made.student)
    assert_same_weights(*students)


def test_vocabularies_with_rows_in_common():
    x, y = tokens()
    teacher = language_model(12, WORDS + 5, seed=1)
    with pytest.raises(ValueError, match="student has 37 words, the teacher 42.*common"):
        distiller(teacher=teacher)
    made = distiller(kd.losses.TokenKD(TEMPERATURE, vocabulary="common"), teacher=teacher)
    found = made.evaluate(x, y, verbose=0, return_dict=True, with_teacher=True)
    cut = keras.Model(teacher.input, teacher.outputs[0][..., :WORDS])
    assert_same_values(found, truth(made.student, cut, x, y))


def test_a_file_and_the_student_in_it(tmp_path):
    x, y = tokens()
    made = distiller()
    made.fit(x, y, verbose=0)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    options = {"verbose": 0, "return_dict": True, "with_teacher": True}
    assert loaded.evaluate(x, y, **options) == made.evaluate(x, y, **options)
    loss = loaded.distillation_losses[0]
    assert (loss.temperature, loss.ignore_class, loss.memory_mb) == (TEMPERATURE, -100, 1e-3)
    logs = [d.fit(x, y, verbose=0, shuffle=False).history for d in (made, loaded)]
    assert logs[0] == logs[1]
    np.testing.assert_array_equal(made.predict(x, verbose=0), made.student.predict(x, verbose=0))


def test_a_file_without_the_teacher(tmp_path):
    x, y = tokens()
    made = distiller(save_teacher=False)
    made.fit(x, y, verbose=0)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    options = {"verbose": 0, "return_dict": True}
    assert loaded.evaluate(x, y, **options) == made.evaluate(x, y, **options)
    loaded.set_teacher(made.teacher)
    logs = [d.fit(x, y, verbose=0, shuffle=False).history for d in (made, loaded)]
    assert logs[0] == logs[1]


def test_the_summary_names_the_loss(capsys):
    distiller().summary()
    assert "token_kd" in capsys.readouterr().out


def test_it_cannot_be_attached():
    made = distiller(kd.losses.HiddenStates("hidden", "hidden"))
    with pytest.raises(ValueError, match="TokenKD cannot be attached.*constructor"):
        made.attach(kd.losses.TokenKD())


def test_mixed_precision_trains():
    x, y = tokens()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = language_model(8, seed=2)
    finally:
        keras.config.set_dtype_policy("float32")
    made = distiller(student=student, mode="graph")
    logs = made.fit(x, y, epochs=30, verbose=0).history
    assert logs["loss"][-1] < 0.96 * logs["loss"][0]
    exact = distiller(mode="graph")
    np.testing.assert_allclose(
        logs["hard_loss"][0], exact.fit(x, y, verbose=0).history["hard_loss"][0], rtol=0.01
    )


def test_heads_that_are_named():
    x, y = tokens()
    inner = language_model(8, seed=2)
    outer = keras.Sequential([keras.Input((LENGTH,), dtype="int32"), inner])
    found = distiller(student=outer)
    named = distiller(
        kd.losses.TokenKD(TEMPERATURE, student_head="language_model/head"), student=outer
    )
    options = {"verbose": 0, "return_dict": True, "with_teacher": True}
    assert_same_values(found.evaluate(x, y, **options), named.evaluate(x, y, **options))


class Custom(keras.layers.Dense):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def ends_in(layer):
    inner = language_model(8)
    return keras.Model(inner.input, layer(inner.outputs[0]))


def with_two_outputs():
    inner = language_model(8)
    return keras.Model(inner.input, [*inner.outputs, *inner.outputs])


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (lambda: language_model(activation="softmax"), "'head'.*ends in softmax.*activation=None"),
        (lambda: ends_in(keras.layers.Softmax(name="last")), r"made by 'last'.*\['hidden', 'head'"),
        (lambda: ends_in(Custom(WORDS, name="own")), "made by 'own', a Custom"),
        (with_two_outputs, "it has 2 outputs"),
        (lambda: language_model(activity_regularizer="l2"), "activity regularizer"),
    ],
)
def test_heads_that_cannot_be_left_out(student, message):
    with pytest.raises(ValueError, match=f"(?s)The logits of student.*{message}"):
        distiller(student=student())


def test_a_model_that_does_more_with_its_logits():
    student = ends_in(keras.layers.Rescaling(2.0, name="last"))
    with pytest.raises(ValueError, match="does more with its logits"):
        distiller(kd.losses.TokenKD(student_head="head"), student=student)


@pytest.mark.parametrize(
    ("compiled", "message"),
    [
        ({"metrics": ["accuracy"]}, "leaves the logits out, and metrics need them.*token_accuracy"),
        ({"weighted_metrics": ["accuracy"]}, "metrics need them"),
        ({"loss": "mse"}, r"Expected: keras.losses.SparseCategoricalCrossentropy\(from_logits"),
        ({"loss": keras.losses.SparseCategoricalCrossentropy()}, "from_logits=True"),
        ({"loss": from_logits(reduction="sum")}, "averaged"),
        ({"loss": from_logits(), "loss_weights": [1.0]}, "loss_weights"),
    ],
)
def test_what_needs_logits_is_refused(compiled, message):
    made = distiller()
    with pytest.raises(ValueError, match=message):
        made.compile("sgd", **{"loss": from_logits(), **compiled})


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda: [kd.losses.TokenKD(), kd.losses.TokenKD(name="b")], "takes one TokenKD"),
        (lambda: [kd.losses.TokenKD(), kd.losses.SoftTargets()], "'soft_targets' reads the stud"),
        (lambda: kd.losses.TokenKD(teacher_layer="hidden"), "`teacher_layer` cannot be chosen"),
        (lambda: kd.losses.TokenKD(from_logits=False), "`from_logits` cannot be chosen"),
        (lambda: kd.losses.TokenKD(ignore_class=1.5), "ignore_class"),
        (lambda: kd.losses.TokenKD(memory_mb=-1), "memory_mb"),
        (lambda: kd.losses.TokenKD(mixing_weight=0.3), "mixing_weight"),
        (lambda: kd.losses.TokenKD(vocabulary="any"), "vocabulary"),
        (lambda: kd.losses.TokenKD(student_head="heads"), "no layer 'heads'"),
    ],
)
def test_wrong_losses(losses, message):
    with pytest.raises(ValueError, match=message):
        distiller(losses())


def test_a_weighting_needs_logits():
    with pytest.raises(ValueError, match="and weighting need them"):
        distiller(weighting=kd.weighting.TeacherConfidence())


def test_peers_have_logits():
    peers = [language_model(8, seed=seed) for seed in (1, 2)]
    with pytest.raises(ValueError, match="'token_kd' is of a keras_kd.Distiller"):
        kd.MutualDistiller(peers, distillation_loss=kd.losses.TokenKD())


def test_a_subclass_sees_logits_that_it_asks_for():
    """`compute_loss` of a user gets what Keras would give: they are computed for it."""

    class Calm(kd.Distiller):
        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            self.seen = keras.ops.convert_to_numpy(y_pred)
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            return loss + 0.1 * keras.ops.mean(keras.ops.square(y_pred))

    x, y = tokens()
    made = Calm(language_model(12, seed=1), language_model(8, seed=2), kd.losses.TokenKD())
    made.compile(keras.optimizers.SGD(0.1), loss=from_logits(), run_eagerly=True)
    y = np.maximum(y, 0)
    before = made.student.predict(x, verbose=0)
    made.fit(x, y, verbose=0, shuffle=False)
    np.testing.assert_allclose(made.seen, before, rtol=1e-5, atol=1e-6)


def test_compute_loss_takes_no_logits_of_ones_own():
    x, y = tokens()
    made = distiller()
    expected = made.evaluate(x, y, verbose=0, return_dict=True, with_teacher=True)["loss"]
    np.testing.assert_allclose(made.compute_loss(x, y), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="takes no other logits.*Pass the `y_pred`"):
        made.compute_loss(x, y, made.student(x))
