"""What an export reads: representative data in any form, checked before any work."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from keras_kd.export import representative
from keras_kd.export.student import ExportableModel
from keras_kd.runtimes import TFLiteFile
from tests.export.small import dense, export, rows


def constant():
    return np.ones((64, 8), "float32")


def with_nan():
    x = rows()
    x[3, 2] = np.nan
    return x


def endless():
    return tf.data.Dataset.from_tensor_slices(rows()).batch(8).repeat()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "is missing"),
        (np.zeros((0, 8), "float32"), "has 0 samples"),
        (with_nan(), "NaN"),
        (constant(), "is 1.0 everywhere"),
        (rows(5), "fewer than 10"),
        (np.zeros((64, 7), "float32"), r"must have the shape \(None, 8\)"),
        (np.zeros((64, 8), "int32"), "is float32. Received int32"),
        (endless(), "endless"),
        (lambda: iter(()), "is empty"),
        ([rows(), rows()], "gives 2 inputs"),
        ({"z": rows()}, r"gives the inputs \['z'\] in a dict.*takes \['x'\]"),
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), "ragged or sparse"),
        (rows(scale=255.0), "standard deviation"),
        (lambda: 3, "is a function that returned a int. Expected an iterator of batches"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_representative_data_is_checked_before_any_work(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        export(tmp_path, "int8", representative_data=data, data=rows(100))
    assert list(tmp_path.iterdir()) == []


def read(data, student, *args, **kwargs):
    """The arrays and labels that an export reads from data."""
    exportable = ExportableModel.from_keras(student, "to_tflite")
    samples = representative.read_samples(data, exportable, *args, **kwargs)
    return samples.arrays, samples.labels


def check_ranges(arrays, student):
    exportable = ExportableModel.from_keras(student, "to_tflite")
    representative.check_ranges(arrays, exportable)


def test_data_unlike_that_of_training_is_found_by_batch_normalization():
    stack = [
        keras.Input((8,)),
        layers.BatchNormalization(momentum=0.5, name="norm"),
        layers.Dense(2),
    ]
    student = keras.Sequential(stack)
    for _ in range(20):
        student(rows(), training=True)
    check_ranges([rows()], student)
    with pytest.raises(ValueError, match="'norm' has .* times the spread"):
        check_ranges([rows(scale=255.0)], student)


@pytest.mark.parametrize(
    "data",
    [
        rows(),
        (rows(), np.zeros(64)),
        (rows(), None),
        [rows()],
        {"x": rows()},
        tf.data.Dataset.from_tensor_slices((rows(), np.zeros(64))).batch(16),
        lambda: ([row[None]] for row in rows()),
        lambda: [rows(), rows()[:0]],
        lambda: tf.data.Dataset.from_tensor_slices(rows()).batch(16),
        lambda: Batches(),
        lambda: Loader(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_representative_data_comes_in_any_form(data):
    arrays, _ = read(data, dense())
    np.testing.assert_array_equal(arrays[0], rows())


class Batches(keras.utils.PyDataset):
    """As `fit` takes it."""

    def __init__(self, length=4, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        part = slice(16 * (index % 4), 16 * (index % 4 + 1))
        return rows()[part], np.arange(64)[part] % 3


class Loader:
    """What can be gone through, as PyTorch's."""

    def __iter__(self):
        return ((rows()[i : i + 16], np.arange(16)) for i in range(0, 64, 16))


def test_batches_of_keras_and_generators():
    for data in (Batches(), (Batches()[i] for i in range(4)), Loader()):
        arrays, labels = read(data, dense())
        np.testing.assert_array_equal(arrays[0], rows())
        assert labels.shape == (64,)


def endless_generator():
    while True:
        yield rows()


def test_what_does_not_end(monkeypatch):
    with pytest.raises(
        ValueError, match=r"endless \(it has no length\).*\(data\[i\] for i in range"
    ):
        read(Batches(None), dense())
    data = Batches(None)
    arrays, _ = read((data[i] for i in range(8)), dense())  # the remedy
    assert len(arrays[0]) == 128
    assert len(read(endless_generator(), dense())[0][0]) == representative.MAX_SAMPLES
    monkeypatch.setattr(representative, "_ENDLESS", 500)
    with pytest.raises(ValueError, match="gave 512 samples without an end.*islice"):
        read(endless_generator(), dense(), "data", max_samples=None)
    arrays, _ = read(itertools.islice(endless_generator(), 2), dense(), "data", max_samples=None)
    assert len(arrays[0]) == 128


def test_labels_of_several_outputs_keep_their_structure():
    labels = {"a": np.arange(64), "b": np.zeros((64, 2)), "c": None}
    _, found = read((rows(), labels), dense())
    assert {name: each.shape for name, each in found.items()} == {"a": (64,), "b": (64, 2)}
    _, found = read((rows(), [np.arange(64), np.zeros((64, 2))]), dense())
    assert [each.shape for each in found] == [(64,), (64, 2)]
    _, found = read((rows(), list(range(64))), dense())
    assert found.shape == (64,)
    uneven = iter([(rows(8), np.zeros((8, 3))), (rows(8), np.zeros((8, 4)))])
    with pytest.raises(ValueError, match="labels .* cannot be concatenated.*leave them out"):
        read(uneven, dense())


def test_a_name_that_a_file_cannot_have_is_taken_too():
    student = keras.Sequential([keras.Input((8,), name="my-x"), layers.Dense(2)])
    for name in ("my-x", "my_x"):
        arrays, _ = read({name: rows()}, student)
        np.testing.assert_array_equal(arrays[0], rows())


def test_rare_words_are_like_those_of_training():
    words = (np.random.default_rng(0).random((300, 500)) < 2e-3).astype("float32")
    norm = layers.BatchNormalization(momentum=0.5)
    student = keras.Sequential([keras.Input((500,)), norm, layers.Dense(2)])
    for _ in range(20):
        student(words, training=True)
    assert np.mean(words[:64].any(axis=0)) < 0.2  # of most there is none among the first
    check_ranges([words], student)


def test_inputs_in_a_dict_are_taken_by_their_names():
    one, other = keras.Input((8,), name="b"), keras.Input((8,), name="a")
    student = keras.Model([one, other], layers.Dense(2)(layers.Subtract()([one, other])))
    arrays, _ = read({"a": rows(), "b": 2 * rows()}, student)
    np.testing.assert_array_equal(arrays[0], 2 * rows())
    np.testing.assert_array_equal(arrays[1], rows())


STRUCTURES = {
    "dicts": lambda a, b, c: {"p": {"q": a, "r": b}, "x": c},
    "lists in dicts": lambda a, b, c: {"p": [a, b], "x": c},
    "dicts in lists": lambda a, b, c: [a, {"k": b, "l": c}],
    "lists": lambda a, b, c: [a, [b, c]],
}


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
@pytest.mark.parametrize("name", STRUCTURES)
def test_inputs_and_outputs_in_structures(name, tmp_path):
    pack = STRUCTURES[name]
    inputs = [keras.Input((8,), name=each) for each in ("one", "other", "x")]
    outputs = [layers.Dense(2)(each) for each in inputs]
    student = keras.Model(pack(*inputs), pack(*outputs))
    data = pack(*(rows(scale=scale) for scale in (1, 2, 3)))
    done = export(tmp_path, student=student, data=data)
    assert done.error < 1e-5
    arrays, _ = read(data, student)
    for array, scale in zip(arrays, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(array, rows(scale=scale))
    found = TFLiteFile(done.path)
    if name == "dicts":
        assert [x.name for x in found.outputs] == ["p/q", "p/r", "x"]
        assert list(done.tasks) == ["p/q", "p/r", "x"]
        labels = {"p": {"r": np.zeros(64, int)}}
        again = export(tmp_path, student=student, data=(data, labels), overwrite=True)
        assert again.supposed == ["p/q", "x"]
        with pytest.raises(ValueError, match=r"for outputs \['z'\], which the model does not have"):
            export(tmp_path, student=student, data=(data, {"z": rows()}), overwrite=True)
    done = kd.export.to_onnx(student, tmp_path / "s.onnx", data=data)
    assert done.error < 1e-5
    assert len(done.outputs) == 3


def test_numbers_beyond_an_embedding_are_found(tmp_path):
    ids = keras.Input((4,), dtype="int32", name="ids")
    student = keras.Model(ids, layers.Dense(2)(layers.Flatten()(layers.Embedding(7, 3)(ids))))
    data = np.arange(48, dtype="int32").reshape(12, 4) % 8
    with pytest.raises(ValueError, match="'ids' goes from 0 to 7, beyond the embedding"):
        export(tmp_path, "dynamic", student=student, data=data)
    assert list(tmp_path.iterdir()) == []
    data = np.minimum(data, 6)
    assert export(tmp_path, "dynamic", student=student, data=data).agreement > 0.9
