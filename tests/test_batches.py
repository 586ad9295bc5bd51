"""Data of a fit as batches: labels and batch sizes are known, a first batch is drawn once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd._utils import batches

X, Y = np.arange(12.0, dtype="float32").reshape(6, 2), np.arange(6)
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
UNLABELED = DATASET.map(lambda x, y: x)


class Drawn(keras.utils.PyDataset):
    """Two batches; counts how often each is drawn."""

    def __init__(self, labeled=True):
        super().__init__()
        self.labeled, self.drawn = labeled, []

    @property
    def num_batches(self):
        return 2

    def __getitem__(self, index):
        self.drawn.append(index)
        part = slice(3 * index, 3 * index + 3)
        return (X[part], Y[part]) if self.labeled else X[part]


def generated(labeled=True):
    data = Drawn(labeled)
    return (data[index] for index in range(2))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (X, Y, True),
        (X, None, False),
        ([X, X], None, False),
        (DATASET, None, True),
        (UNLABELED, None, False),
        (Drawn(), None, True),
        (Drawn(labeled=False), None, False),
        (generated(), None, True),
        (generated(labeled=False), None, False),
        ((each for each in ()), None, None),
    ],
)
def test_labels_are_known_from_the_first_batch(x, y, expected):
    first, x = batches.peek(x)
    assert batches.has_labels(x, y, first) is expected


def test_a_peeked_batch_is_drawn_once_and_comes_first():
    data = Drawn()
    first, peeked = batches.peek(data)
    again = [peeked[0], peeked[1]]
    assert data.drawn == [0, 1]
    assert again[0] is first
    first, generator = batches.peek(generated())
    rest = list(generator)
    assert rest[0] is first
    np.testing.assert_array_equal(np.concatenate([x for x, _ in rest]), X)


@pytest.mark.parametrize(
    ("x", "batch_size", "expected"),
    [
        (X, None, 6),
        (X, 4, 4),
        (DATASET, None, None),
        (DATASET.map(lambda x, y: (tf.ensure_shape(x, (4, 2)), y)), None, 4),
        (Drawn(), 5, 5),
    ],
)
def test_the_size_of_the_largest_batch(x, batch_size, expected):
    assert batches.batch_rows(x, batch_size) == expected


def test_arrays_become_the_batches_of_a_fit():
    data = batches.dataset_of(X.astype("float64"), Y, None, 4, shuffle=False)
    assert data.element_spec[0].dtype == tf.float32
    assert [len(x) for x, _ in data] == [4, 2]
    shuffled = np.concatenate([y for _, y in batches.dataset_of(X, Y, None, None, shuffle=True)])
    assert sorted(shuffled) == list(Y)
