"""An ensemble says what its members say, combined by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import matrix
from tests.cache import caches

ROWS = 6


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def logits_of(members, x, temperatures):
    return [
        np.float64(member.predict(x, verbose=0)) / t
        for member, t in zip(members, temperatures, strict=True)
    ]


def by_hand(logits, weights, combine, labels=None):
    """The combined logits in float64, from the definitions."""
    weights = np.float64(weights) / np.sum(weights)
    p = np.stack([softmax(z) for z in logits])
    if combine == "mean_logits":
        return np.tensordot(weights, np.stack(logits), 1)
    if combine == "mean_probabilities":
        return np.log(np.tensordot(weights, p, 1))
    if combine == "confidence":
        c = weights[:, None] * p.max(-1)
        return np.log(((c / c.sum(0))[..., None] * p).sum(0))
    rows = np.arange(p.shape[1])
    score = p.max(-1) if labels is None else weights[:, None] * p[:, rows, labels]
    return np.log(p[score.argmax(0), rows])


def two_headed(seed):
    """Outputs "a" and "b"."""
    inputs = keras.Input((caches.FEATURES,))
    return keras.Model(inputs, {n: caches.model(seed + i)(inputs) for i, n in enumerate("ab")})


WAYS = ["mean_logits", "mean_probabilities", "confidence", "per_sample_best"]


@pytest.mark.parametrize("combine", WAYS)
@pytest.mark.parametrize("options", [{}, {"weights": [1, 2, 0.5], "temperatures": [1, 3, 0.5]}])
def test_the_answer_is_the_members_combined_by_hand(combine, options):
    members, (x, _) = [caches.model(seed) for seed in range(3)], caches.arrays(ROWS)
    ensemble = kd.teachers.Ensemble(members, combine=combine, **options)
    logits = logits_of(members, x, options.get("temperatures", [1, 1, 1]))
    expected = by_hand(logits, options.get("weights", [1, 1, 1]), combine)
    np.testing.assert_allclose(ensemble(x), expected, rtol=1e-5, atol=1e-5)


def test_the_best_member_of_a_row_is_the_one_that_knows_its_label():
    members, (x, y) = [caches.model(seed) for seed in range(3)], caches.arrays(ROWS)
    ensemble = kd.teachers.Ensemble(members, [1, 2, 3], "per_sample_best")
    expected = by_hand(logits_of(members, x, [1, 1, 1]), [1, 2, 3], "per_sample_best", y)
    np.testing.assert_allclose(ensemble(x, labels=y), expected, rtol=1e-5, atol=1e-5)
    unlabeled = by_hand(logits_of(members, x, [1, 1, 1]), [1, 2, 3], "per_sample_best")
    found = ensemble(x, labels=np.full(ROWS, -1))
    np.testing.assert_allclose(found, unlabeled, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - unlabeled).max() > 0.1


@pytest.mark.parametrize("combine", WAYS)
def test_classes_that_a_member_does_not_know_are_left_to_the_others(combine):
    members, (x, _) = [caches.model(seed) for seed in range(2)], caches.arrays(ROWS)
    first = np.arange(caches.CLASSES) < 4
    masks = [first.tolist(), None]
    ensemble = kd.teachers.Ensemble(members, combine=combine, class_masks=masks)
    z = logits_of(members, x, [1, 1])
    z[0][:, ~first] = -np.inf
    p = [softmax(each) for each in z]
    if combine == "mean_logits":
        with np.errstate(divide="ignore"):
            logs = [np.log(each) for each in p]
        expected = np.where(first, (logs[0] + logs[1]) / 2, logs[1])
    elif combine == "mean_probabilities":
        expected = np.log(np.where(first, (p[0] + p[1]) / 2, p[1]))
    elif combine == "confidence":
        c = [each.max(-1, keepdims=True) for each in p]
        both = (c[0] * p[0] + c[1] * p[1]) / (c[0] + c[1])
        expected = np.log(np.where(first, both, p[1]))
    else:
        surer = p[0].max(-1, keepdims=True) >= p[1].max(-1, keepdims=True)
        with np.errstate(divide="ignore"):
            expected = np.log(np.where(surer, p[0], p[1]))
    np.testing.assert_allclose(ensemble(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", matrix.MODES)
def test_it_teaches_as_a_model_that_says_the_same(mode):
    members = [caches.model(seed) for seed in (3, 4)]
    inputs = keras.Input((caches.FEATURES,))
    mean = keras.layers.Average()([member(inputs) for member in members])
    one, _ = caches.trained(keras.Model(inputs, mean), caches.dataset(), mode=mode)
    other, _ = caches.trained(kd.teachers.Ensemble(members), caches.dataset(), mode=mode)
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-6)


def test_members_are_left_as_they_were_and_may_have_inputs_of_their_own():
    members = [caches.model(1), caches.model(2)]
    before = [member.get_weights() for member in members]
    doubled = kd.teachers.KerasTeacher(members[1], preprocess=lambda x: 2.0 * x)
    ensemble = kd.teachers.Ensemble([members[0], doubled])
    x, _ = caches.arrays(ROWS)
    expected = (members[0].predict(x, verbose=0) + members[1].predict(2 * x, verbose=0)) / 2
    np.testing.assert_allclose(ensemble(x), expected, rtol=1e-5, atol=1e-6)
    history, student = caches.trained(ensemble, caches.dataset(), epochs=30)
    assert history["soft_targets"][-1] < 0.6 * history["soft_targets"][0]
    for member, weights in zip(members, before, strict=True):
        assert member.trainable
        for one, other in zip(member.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, other)
    ids = {id(weight) for member in members for weight in member.weights}
    assert not ids & {id(weight) for weight in student.weights}


def test_layers_of_members_are_tapped():
    members = [caches.model(1), caches.model(2)]
    hint = kd.losses.FeatureHint("members/1/h", "h")
    living = kd.losses.FeatureHint("h", "h")
    one, _ = caches.trained(kd.teachers.Ensemble(members), caches.dataset(), [hint])
    other, _ = caches.trained(members[1], caches.dataset(), [living])
    np.testing.assert_allclose(one["feature_hint"], other["feature_hint"], rtol=1e-6)


def test_several_outputs_are_combined_one_by_one():
    members, (x, _) = [two_headed(1), two_headed(5)], caches.arrays(ROWS)
    found = kd.teachers.Ensemble(members)(x)
    for name in ("a", "b"):
        expected = (members[0](x)[name] + members[1](x)[name]) / 2
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_the_best_member_for_the_label_of_each_output():
    members, (x, y) = [two_headed(1), two_headed(5)], caches.arrays(ROWS)
    ensemble = kd.teachers.Ensemble(members, combine="per_sample_best")
    found = ensemble(x, labels={"a": y, "b": y[::-1].copy()})
    for name, labels in (("a", y), ("b", y[::-1])):
        logits = [np.float64(each(x)[name]) for each in members]
        expected = by_hand(logits, [1, 1], "per_sample_best", labels)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)


def test_outputs_of_members_belong_together_by_name():
    a, b = (two_headed(seed) for seed in (1, 5))
    x, y = caches.arrays(ROWS)
    inputs = keras.Input((caches.FEATURES,))
    heads = b(inputs)
    named = {n: keras.layers.Identity(name=n)(heads[n]) for n in "ba"}
    swapped = keras.Model(inputs, [named["b"], named["a"]])
    for combine in ("mean_logits", "per_sample_best"):
        expected = kd.teachers.Ensemble([a, b], combine=combine)(x, labels={"a": y, "b": y[::-1]})
        found = kd.teachers.Ensemble([a, swapped], combine=combine)(
            x, labels={"a": y, "b": y[::-1]}
        )
        for name in "ab":
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    other = keras.Model(inputs, {"a": heads["a"], "c": heads["b"]})
    with pytest.raises(ValueError, match="structure"):
        kd.teachers.Ensemble([a, other])(x)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_labels_in_a_list_are_in_the_students_order(order):
    members, (x, y) = [two_headed(1), two_headed(5)], caches.arrays(ROWS)
    labels = {"a": y, "b": y[::-1].copy()}
    ensemble = kd.teachers.Ensemble(members, combine="per_sample_best")
    inputs = keras.Input((caches.FEATURES,))
    outputs = [keras.layers.Dense(caches.CLASSES, name=name)(inputs) for name in order]
    made = kd.Distiller(ensemble, keras.Model(inputs, outputs))
    student = made.student_forward(tf.constant(x), training=False)
    given = [tf.constant(labels[name]) for name in order]
    answer = made.teacher_forward(tf.constant(x), given, student).outputs
    expected = ensemble(x, labels=labels)
    for name, found in zip(order, answer, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6)


def test_it_is_saved_with_the_distiller(tmp_path):
    members = [caches.model(1), caches.model(2)]
    options = {"weights": [1, 3], "combine": "confidence", "temperatures": [1, 2]}
    masks = [None, [True] * 6 + [False]]
    teacher = kd.teachers.Ensemble(members, class_masks=masks, **options)
    distiller = kd.Distiller(teacher, caches.model(3))
    distiller.compile("sgd", caches.from_logits())
    distiller.save(tmp_path / "distiller.keras")
    again = keras.models.load_model(tmp_path / "distiller.keras")
    x, _ = caches.arrays(ROWS)
    np.testing.assert_array_equal(again.teacher(x), teacher(x))


BAD = [
    ({"members": []}, "`members`. Expected a list of teachers"),
    ({"members": caches.model(1)}, "`members`. Expected a list of teachers"),
    ({"members": [caches.model(1), 3]}, "`teacher` must be a keras.Model"),
    ({"combine": "vote"}, "`combine`. Expected one of"),
    ({"weights": [1]}, "one positive number for each of the 2 members"),
    ({"weights": [1, 0]}, r"`weights\[1\]`. Expected a finite number above 0"),
    ({"weights": [1, -1]}, r"`weights\[1\]`. Expected a finite number, at least 0"),
    ({"temperatures": [1, 0]}, r"`temperatures\[1\]`. Expected a finite number above 0"),
    ({"temperatures": [1]}, "`temperatures`. Expected one positive number for each of the 2"),
    ({"class_masks": [None]}, "`class_masks`. Expected None or a list"),
    ({"class_masks": [None, [1, 0]]}, "must be a list of booleans"),
    ({"class_masks": [None, [True]]}, "a boolean for each of the 7 classes"),
    ({"class_masks": [[True] * 6 + [False]] * 2}, r"knows the classes \[6\]"),
    ({"members": [caches.model(1), caches.model(1, classes=3)]}, "outputs of different sizes"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_arguments(options, message):
    options = {"members": [caches.model(1), caches.model(2)], **options}
    with pytest.raises(ValueError, match=message):
        kd.Distiller(kd.teachers.Ensemble(**options), caches.model(3))


def test_a_member_that_ends_in_softmax_is_refused():
    probabilities = keras.Sequential([caches.model(1), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="The teacher ends in softmax"):
        kd.Distiller(kd.teachers.Ensemble([caches.model(2), probabilities]), caches.model(3))


def test_members_run_one_after_another():
    import tensorflow as tf

    log = []

    def member(seed):
        model = caches.model(seed)

        def mark(x, what):
            log.append((seed, what.decode()))
            return x

        def run(inputs):
            begun = tf.numpy_function(mark, [inputs, "begin"], tf.float32)
            begun.set_shape(inputs.shape)
            outputs = model(begun)
            ended = tf.numpy_function(mark, [outputs, "end"], tf.float32)
            ended.set_shape(outputs.shape)
            return ended

        return run

    ensemble = kd.teachers.Ensemble([member(seed) for seed in range(4)])
    x, _ = caches.arrays()
    ask = tf.function(lambda x: ensemble(x), autograph=False)
    for _ in range(5):
        log.clear()
        ask(x)
        assert log == [(seed, what) for seed in range(4) for what in ("begin", "end")]
