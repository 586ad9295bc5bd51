"""What trials train on: the same rows in the same order, with and without a teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.tuning.data import TuningData
from tests.tuning.tasks import ROWS, TRAIN, VALIDATION, perfect_teacher


def batches_of(dataset):
    return [[np.asarray(part) for part in tf.nest.flatten(batch)] for batch in dataset]


def test_order_is_that_of_the_seed_with_and_without_a_teacher(tmp_path):
    data = TuningData(TRAIN, VALIDATION, 3)
    stored = data.store(perfect_teacher(), tmp_path / "teacher", [], 0)
    keras.utils.set_random_seed(0)
    alone = data.shuffled(10)
    keras.utils.set_random_seed(0)
    taught = stored.batches(10)
    assert len(alone) == len(taught) == 7
    orders = []
    for _ in range(2):
        without, with_outputs = batches_of(alone), batches_of(taught)
        assert [len(batch[0]) for batch in without] == [10] * 6 + [4]
        for one, other in zip(without, with_outputs, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[-1])
            (logits,) = (part for part in other[1:-1] if part.shape[-1:] == (3,))
            np.testing.assert_allclose(logits, 5 * (one[0][:, :3] + one[0][:, 3:]), rtol=1e-5)
        orders.append(np.concatenate([batch[0] for batch in without]))
    assert not np.array_equal(*orders)  # each epoch has one of its own
    assert np.array_equal(*(np.sort(order, axis=0) for order in orders))


def test_data_is_batched_ends_and_has_labels():
    dataset = tf.data.Dataset.from_tensor_slices(TRAIN)
    assert TuningData(dataset.batch(7), VALIDATION, 0).rows == ROWS
    for wrong, message in (
        (dataset, "batch"),
        (dataset.batch(7).repeat(), "a dataset that ends"),
        (dataset.batch(7).map(lambda x, y: x), "data with labels"),
        (dataset.take(0).batch(7), "is empty"),
        (dataset.shuffle(64).batch(7), "gives other batches each time it is read"),
        (dataset.batch(7).map(lambda x, y: (x, tf.one_hot(y, 3))), "of different kinds"),
        ([1, 2], "a batched tf.data.Dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            TuningData(wrong, VALIDATION, 0)
