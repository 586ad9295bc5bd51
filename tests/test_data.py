"""Views that teacher and student share, and rows without labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import logits_of

X, Y = linear.data(12)


def dataset(x=X, y=Y, batch=6):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)


def arrays(data):
    batches = [keras.tree.map_structure(lambda x: x.numpy(), batch) for batch in data]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def test_mixup_mixes_inputs_and_labels_by_one_share():
    # Inputs that are their own labels show that both were mixed alike.
    identity = np.eye(12, dtype="float32")
    x, y = arrays(kd.data.mixup(dataset(identity, np.arange(12)), 12, seed=1))
    np.testing.assert_allclose(x, y, rtol=1e-6)
    np.testing.assert_allclose(y.sum(1), np.ones(12), rtol=1e-6)
    own = y[np.arange(12), np.arange(12)]
    assert np.std(own) > 0.05  # a share for each row
    assert (np.count_nonzero(y > 0, axis=1) <= 2).all()


def test_mixtures_differ_from_epoch_to_epoch_and_not_from_run_to_run():
    data, again = (kd.data.mixup(dataset(), 4, seed=1) for _ in range(2))
    first, second = arrays(data)[0], arrays(data)[0]
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(first, arrays(again)[0])


def test_the_share_is_beta():
    identity = np.eye(400, dtype="float32")
    data = kd.data.mixup(dataset(identity, np.arange(400), 400), 400, alpha=0.2, seed=0)
    own = arrays(data)[1][np.arange(400), np.arange(400)]
    # Of Beta(0.2, 0.2) 69 % are within 0.1 of an end: four standard errors are 9 %.
    assert np.mean(np.abs(own - 0.5) > 0.4) == pytest.approx(0.69, abs=0.09)


def test_cutmix():
    images = np.tile(np.arange(8, dtype="float32")[:, None, None, None], (1, 10, 10, 1))
    x, y = arrays(kd.data.cutmix(dataset(images, np.arange(8), 8), 8, seed=3))
    shares = np.stack([(x == i).mean((1, 2, 3)) for i in range(8)], 1)
    np.testing.assert_allclose(shares, y, atol=1e-6)
    assert shares.max(1).min() < 0.95
    assert (np.count_nonzero(shares, axis=1) <= 2).all()


def test_noise():
    zeros = np.zeros((2000, 5), "float32")
    data = kd.data.noise(dataset(zeros, np.arange(2000), 500), 0.3, seed=0)
    x, y = arrays(data)
    np.testing.assert_array_equal(y, np.arange(2000))
    assert x.std() == pytest.approx(0.3, rel=0.03)
    weighted = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(12))).batch(4)
    assert len(kd.data.noise(weighted, 0.1).element_spec) == 3
    alone = next(iter(kd.data.noise(tf.data.Dataset.from_tensor_slices(X).batch(4), 0.1)))
    assert alone.shape == (4, 5)


def test_teacher_and_student_see_the_same_view():
    seen = []

    def teacher(x):
        if tf.executing_eagerly():  # not while shapes are found out
            seen.append(np.asarray(x))
        return x[:, :4]

    class Student(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            if tf.executing_eagerly():
                seen.append(np.asarray(x))
            return self.dense(x)

    student = Student()
    student(X)
    made = kd.Distiller(teacher, student)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    made.compile("sgd", loss, run_eagerly=True)
    made.train_on_batch(X, np.eye(4)[Y])
    seen.clear()
    for batch in kd.data.mixup(dataset(batch=12), 4):
        made.train_on_batch(*batch)
    student_view, teacher_view = seen[-2:]
    np.testing.assert_array_equal(student_view, teacher_view)
    assert np.abs(student_view - X).max() > 0.01


@pytest.mark.parametrize("labels", ["indices", "column", "probabilities"])
def test_rows_without_labels_learn_from_the_teacher_alone(labels):
    teacher, student = linear.pair()
    extra, _ = linear.data(5, seed=3)
    probabilities = labels == "probabilities"
    y = {"indices": Y, "column": Y[:, None], "probabilities": np.eye(4, dtype="float32")[Y]}[labels]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    if probabilities:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    made = kd.Distiller(teacher, student)
    made.compile(keras.optimizers.SGD(0.0), loss)
    data = kd.data.with_unlabeled(
        dataset(X, y, 12), tf.data.Dataset.from_tensor_slices(extra).batch(5)
    )
    history = made.fit(data, shuffle=False, verbose=0).history
    rows = np.concatenate([X, extra])
    t, s = logits_of(teacher, rows), logits_of(student, rows)
    soft = reference.soft_target_loss(s, t, 4.0).mean()
    hard = reference.hard_loss(s[:12], Y)
    assert history["soft_targets"][0] == pytest.approx(soft, rel=1e-5)
    expected = hard.sum() / 17 if probabilities else hard.mean()
    assert history["hard_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_rows_without_labels_of_several_outputs():
    labels = {"a": np.arange(4), "b": np.eye(4, dtype="float32"), "c": np.ones((4, 2, 1), "int64")}
    labeled = tf.data.Dataset.from_tensor_slices((X[:4], labels)).batch(4)
    ((_, found),) = kd.data.with_unlabeled(labeled, dataset().map(lambda x, y: x).take(1))
    np.testing.assert_array_equal(found["a"][4:], np.full(6, -1))
    np.testing.assert_array_equal(found["b"][4:], np.zeros((6, 4)))
    np.testing.assert_array_equal(found["c"][4:], np.full((6, 2, 1), -1))


IMAGES, ZEROS_AND_ONES = np.zeros((12, 2, 2, 1), "uint8"), np.eye(4, dtype="int32")[Y]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.data.mixup(dataset(IMAGES), 4), r"must be floats.*type uint8.*tf\.cast"),
        (lambda: kd.data.noise(dataset(IMAGES), 0.1), r"must be floats.*type uint8"),
        (lambda: kd.data.mixup(dataset(y=np.float32(Y)), 4), "class indices.*type float32"),
        (lambda: kd.data.cutmix(dataset(IMAGES, X[:, :1]), 4), "class indices.*type float32"),
        (
            lambda: kd.data.with_unlabeled(dataset(y=ZEROS_AND_ONES), dataset()),
            r"shape \(None, 4\) may be.*last axis of size 1",
        ),
        (lambda: kd.data.mixup(dataset(), 4, alpha=0), "alpha"),
        (lambda: kd.data.cutmix(dataset(), 4, alpha=-1), "alpha=-1"),
        (lambda: kd.data.noise(dataset(), -1), "stddev=-1"),
        (lambda: kd.data.mixup(dataset().map(lambda x, y: (x, y, x)), 4), "mix sample weights"),
        (lambda: kd.data.cutmix(dataset().map(lambda x, y: x), 4), "images, labels"),
        (lambda: kd.data.with_unlabeled(dataset().map(lambda x, y: x), dataset()), "labeled"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
