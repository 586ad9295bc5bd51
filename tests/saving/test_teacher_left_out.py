"""What files and checkpoints hold of a teacher, and how a distiller comes by it again."""

import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distribution import scenarios
from tests.distribution.scenarios import Hint, cross_entropy, network
from tests.saving import earlier

X, Y, _ = scenarios.data(40)
DATA = pathlib.Path(__file__).parent / "data"


def made(teacher, *losses, student=None, **options):
    keras.utils.set_random_seed(3)
    distiller = kd.Distiller(teacher, student or network(6), list(losses) or None, **options)
    distiller.compile(keras.optimizers.Adam(0.02), cross_entropy(), run_eagerly=True)
    return distiller


def fit(distiller, *callbacks, **options):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **options}
    return distiller.fit(X, Y, callbacks=list(callbacks), **options)


def trained_teacher():
    keras.utils.set_random_seed(1)
    teacher = network(8)
    teacher.compile("adam", cross_entropy(), run_eagerly=True)
    teacher.fit(X, Y, verbose=0)
    return teacher


def arrays(file):
    """`{path: bytes}` of the arrays of a weights file."""
    found = {}

    def note(path, each):
        if isinstance(each, h5py.Dataset):
            found[path] = each.nbytes

    with h5py.File(file) as opened:
        opened.visititems(note)
    return found


def bytes_of(model):
    return sum(weight.numpy().nbytes for weight in model.weights)


def config_of(file):
    with zipfile.ZipFile(file) as archive:
        return archive.read("config.json").decode()


def assert_same(one, other):
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_optimizer_of_a_teacher_is_never_saved(tmp_path, wrapped):
    teacher = trained_teacher()
    optimizer, steps = teacher.optimizer, int(teacher.optimizer.iterations)
    source = kd.teachers.Ensemble([teacher, network(4)]) if wrapped else teacher
    distiller = made(source)
    fit(distiller)
    distiller.save_weights(tmp_path / "a.weights.h5")
    distiller.save(tmp_path / "a.keras")
    distiller.load_weights(tmp_path / "a.weights.h5")
    assert teacher.optimizer is optimizer
    assert teacher.compiled
    of_teacher = {k: v for k, v in arrays(tmp_path / "a.weights.h5").items() if "teacher" in k}
    assert sum(of_teacher.values()) == bytes_of(source)
    loaded = keras.models.load_model(tmp_path / "a.keras")
    for model in [loaded.teacher, *getattr(loaded.teacher, "teachers", [])]:
        assert getattr(model, "optimizer", None) is None
    assert_same(loaded.teacher, distiller.teacher)
    teacher.fit(X, Y, verbose=0)
    assert optimizer.iterations > steps


def test_a_file_without_the_teacher(tmp_path):
    teacher = trained_teacher()
    layer = {"teacher_layer": "hidden", "student_layer": "hidden"}
    losses = kd.losses.SoftTargets(2.0), Hint(weight=0.3, **layer)
    distiller = made(teacher, *losses, save_teacher=False)
    fit(distiller)
    distiller.save_weights(tmp_path / "a.weights.h5")
    distiller.save(tmp_path / "a.keras")
    keras.saving.save_model(distiller, tmp_path / "b.keras")
    assert not any("teacher" in path for path in arrays(tmp_path / "a.weights.h5"))
    for name in ("a.keras", "b.keras"):
        assert '"units": 8' not in config_of(tmp_path / name)
        loaded = keras.models.load_model(tmp_path / name)
        np.testing.assert_array_equal(loaded.predict(X), distiller.predict(X))
        assert loaded.evaluate(X, Y) == distiller.evaluate(X, Y)
    loaded.save(tmp_path / "c.keras")
    loaded = keras.models.load_model(tmp_path / "c.keras")
    with pytest.raises(ValueError, match=r"distiller\.set_teacher\(teacher\)"):
        fit(loaded)
    with pytest.raises(ValueError, match=r"distiller\.set_teacher\(teacher\)"):
        loaded.evaluate(X, Y, with_teacher=True)
    loaded.set_teacher(teacher)
    assert loaded.evaluate(X, Y, with_teacher=True) == distiller.evaluate(X, Y, with_teacher=True)
    assert fit(loaded).history == fit(distiller).history
    assert_same(loaded, distiller)
    with pytest.raises(ValueError, match=r"keras_kd\.Distiller\(teacher, distiller\.student\)"):
        loaded.set_teacher(teacher)
    fit(made(teacher, student=loaded.student))


def test_bytes(tmp_path):
    """A checkpoint shrinks by all that is of the teacher."""
    teacher, sizes = trained_teacher(), {}
    for saves in (True, False):
        distiller = made(teacher, save_teacher=saves)
        distiller.save_weights(tmp_path / "a.weights.h5")
        sizes[saves] = sum(arrays(tmp_path / "a.weights.h5").values())
    assert sizes[True] - sizes[False] == bytes_of(teacher)


def test_another_teacher_is_refused_unless_asked_for(tmp_path):
    made(trained_teacher(), save_teacher=False).save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    other = network(8)
    with pytest.raises(ValueError, match=r"set_teacher\(teacher, check=False\)"):
        loaded.set_teacher(other)
    loaded.set_teacher(other, check=False)
    assert loaded.teacher is other
    fit(loaded)


def test_a_file_of_the_teacher(tmp_path):
    teacher, path = trained_teacher(), tmp_path / "teacher.keras"
    with pytest.raises(ValueError, match=r"teacher\.save"):
        made(teacher, save_teacher=path)
    teacher.save(path)
    distiller = made(teacher, save_teacher=path)
    fit(distiller)
    distiller.save(tmp_path / "a.keras")
    assert '"units": 8' not in config_of(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert fit(loaded).history == fit(distiller).history
    network(8).save(path)
    with pytest.raises(ValueError, match="holds another teacher"):
        keras.models.load_model(tmp_path / "a.keras")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="Put the teacher's file there"):
        keras.models.load_model(tmp_path / "a.keras")
    teacher.save(path)
    fit(keras.models.load_model(tmp_path / "a.keras"))


@pytest.mark.parametrize("value", ["teacher.h5", 1, None])
def test_wrong_values(value):
    with pytest.raises(ValueError, match=r"save_teacher.* of a \.keras file"):
        made(network(8), save_teacher=value)


@pytest.mark.parametrize("kind", [kd.teachers.EMA, kd.teachers.Snapshot])
def test_weights_that_the_training_makes_are_not_left_out(tmp_path, kind):
    student = network(6)
    for value in (False, tmp_path / "teacher.keras"):
        with pytest.raises(ValueError, match=r"Pass save_teacher=True"):
            made(kind(student), student=student, save_teacher=value)
    made(kind(student), student=student, save_teacher=True).save(tmp_path / "a.keras")


def test_a_file_is_for_a_model(tmp_path):
    network(8).save(tmp_path / "teacher.keras")
    ensemble = kd.teachers.Ensemble([network(8), network(4)])
    with pytest.raises(ValueError, match=r"Pass save_teacher=False"):
        made(ensemble, save_teacher=tmp_path / "teacher.keras")
    made(ensemble, save_teacher=False).save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    loaded.set_teacher(ensemble)
    fit(loaded)


def test_a_function_teaches_a_distiller_that_is_saved(tmp_path):
    """With a teacher that Keras cannot name a distiller could not be saved at all."""
    teacher = network(8)

    def says(inputs):
        return teacher(inputs, training=False)

    distiller = made(says, save_teacher=False)
    distiller.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    loaded.set_teacher(says)
    assert fit(loaded).history == fit(distiller).history


def test_backup_and_restore_without_the_teacher(tmp_path):
    teacher = trained_teacher()

    class Ended(Exception):  # noqa: N818
        pass

    def end(epoch, logs):
        if epoch == 1:
            raise Ended

    ends = keras.callbacks.LambdaCallback(on_epoch_begin=end)
    whole, cut = (made(teacher, save_teacher=False) for _ in range(2))
    fit(whole, epochs=2)
    with pytest.raises(Ended):
        fit(cut, keras.callbacks.BackupAndRestore(tmp_path / "b"), ends, epochs=2)
    resumed = made(teacher, save_teacher=False)
    fit(resumed, keras.callbacks.BackupAndRestore(tmp_path / "b"), epochs=2)
    assert_same(resumed, whole)


@pytest.mark.parametrize("options", [{}, {"top_k": 2}])
def test_a_cache_that_was_moved(tmp_path, options):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    kd.cache_teacher(network(8), data, tmp_path / "cache", verbose=0, **options)
    distiller = made(kd.teachers.Cached(tmp_path / "cache"))
    distiller.fit(kd.load_cache(tmp_path / "cache", data), shuffle=False, verbose=0)
    distiller.save(tmp_path / "a.keras")
    (tmp_path / "cache").rename(tmp_path / "moved")
    with pytest.warns(UserWarning, match=r"set_teacher\(keras_kd\.teachers\.Cached\(path\)\)"):
        loaded = keras.models.load_model(tmp_path / "a.keras")
    assert loaded.evaluate(X, Y) == distiller.evaluate(X, Y)
    with pytest.raises(ValueError, match="cannot be read"):
        fit(loaded)
    loaded.set_teacher(kd.teachers.Cached(tmp_path / "moved"))
    loaded.fit(kd.load_cache(tmp_path / "moved", data), shuffle=False, verbose=0)


def test_files_of_earlier_versions_load(tmp_path):
    """With the teacher's optimizer in them, which is left where it is."""
    x, y = earlier.data()
    expected = np.load(DATA / "earlier.npy")
    loaded = keras.models.load_model(DATA / "earlier.keras")
    np.testing.assert_allclose(loaded.predict(x), expected, 1e-5)
    other = earlier.distiller()
    optimizer = other.teacher.optimizer
    other.load_weights(DATA / "earlier.weights.h5")
    np.testing.assert_allclose(other.predict(x), expected, 1e-5)
    assert other.teacher.optimizer is optimizer
    assert loaded.optimizer.iterations == other.optimizer.iterations == 2
    for distiller in (loaded, other):
        distiller.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(loaded.predict(x), other.predict(x), 1e-5)
    assert any("teacher/optimizer" in path for path in arrays(DATA / "earlier.weights.h5"))
