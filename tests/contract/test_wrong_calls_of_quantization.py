"""Wrong calls of quantization and compression raise before work; their remedies work."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.quantization.tfmot import setup
from tests.contract import fits
from tests.contract import wrong_calls_of_quantization as table


@pytest.fixture
def work(monkeypatch):
    """What has begun to train."""
    seen = []
    apply, load = keras.optimizers.SGD.apply, setup.load

    def applied(self, *args, **kwargs):
        seen.append("a step")
        return apply(self, *args, **kwargs)

    def loaded():
        seen.append("the import of tfmot")
        return load()

    monkeypatch.setattr(keras.optimizers.SGD, "apply", applied)
    monkeypatch.setattr(setup, "load", loaded)
    return seen


@pytest.mark.parametrize("name", table.TABLE)
def test_wrong_calls_raise_before_work(name, work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = table.TABLE[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
    assert not work
    assert not list(tmp_path.iterdir())


def test_there_are_messages_of_many_kinds():
    messages = {message for _, message in table.TABLE.values()}
    assert len(table.TABLE) >= 90
    assert len(messages) >= 55


def small(layer=None):
    inner = [] if layer is None else [layer]
    return keras.Sequential([keras.Input((3,)), layers.Dense(8), *inner, layers.Dense(5)])


def aware_with(layer):
    return kd.quantization_aware(small(layer), "int8", table.ROWS)


def unrolled():
    rows = np.random.default_rng(0).normal(size=(32, 5, 3)).astype("float32")
    return kd.quantization_aware(table.around(layers.SimpleRNN(4), (5, 3)), "int4", rows)


def functional():
    model = table.called(table.Subclassed())
    inputs = keras.Input((3,))
    return kd.quantization_aware(keras.Model(inputs, model(inputs)), "int4")


def one_after_the_other():
    made = fits.distiller(fits.network(1), fits.network(2))
    x, y = fits.data()
    made.fit(x, y, callbacks=[kd.callbacks.Sparsify(end_step=1)], verbose=0)
    made.fit(x, y, callbacks=[kd.callbacks.Cluster(4, preserve_sparsity=True)], verbose=0)


REMEDIES = {
    "the student of an aware one": lambda: kd.quantization_aware(
        table.weights_only().student, "int4"
    ),
    "the student of a distiller": lambda: kd.quantization_aware(fits.of_models().student, "int4"),
    "a functional model around": functional,
    "an Input": lambda: kd.quantization_aware(small(), "int4"),
    "leave": lambda: kd.quantization_aware(
        table.around(table.Kernel(name="mine")), "int4", leave=["mine"]
    ),
    "a list of paths": lambda: kd.quantization_aware(table.student(), "int4", leave=["deep"]),
    "ReLU": lambda: aware_with(layers.ReLU()),
    "LeakyReLU": lambda: aware_with(layers.LeakyReLU()),
    "LayerNormalization": lambda: aware_with(layers.LayerNormalization()),
    "BatchNormalization": lambda: aware_with(layers.BatchNormalization()),
    "int4 of what int8 lacks": lambda: kd.quantization_aware(small(layers.PReLU()), "int4"),
    "int4 of a loop": unrolled,
    "indices as integers": lambda: kd.quantization_aware(
        table.ids("int32"), "int8", np.arange(32 * 4).reshape(32, 4) % 7
    ),
    "a part of endless data": lambda: kd.quantization_aware(
        table.student(), "int8", table.batches().repeat().take(8)
    ),
    "batches": lambda: kd.quantization.recalibrate(table.student(), table.batches()),
    "one fit after the other": one_after_the_other,
    "2:4 without a schedule": lambda: kd.callbacks.Sparsify("2:4"),
    "a name that is close": lambda: kd.cluster(table.student(), layers=["deep"]),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_works(name):
    REMEDIES[name]()


def test_another_file_is_made_of_the_student_itself(tmp_path):
    aware = table.integers()
    done = kd.export.to_tflite(aware.student, tmp_path / "s.tflite", "float16")
    assert done.quantization == "float16"
    assert kd.export.to_tflite(aware, tmp_path / "a.tflite", representative_data=table.ROWS).path


def test_a_rounded_student_is_a_plain_model():
    rounded = table.integers().rounded_student()
    assert type(rounded) is keras.Sequential
    assert rounded(table.ROWS).shape == (32, 5)
