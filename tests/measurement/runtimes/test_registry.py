"""A runtime of the user's own: one class, registered once, used everywhere."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.runtimes import registry
from keras_kd.teachers.foreign import FileTeacher
from tests.measurement import files

X, Y = files.arrays()
KERNEL = np.random.default_rng(3).normal(size=(files.FEATURES, files.CLASSES)).astype("float32")
BIAS = np.float32([0.5, -0.5, 0.25, 0.0])


class LinearFile(kd.runtimes.ModelFile):
    """A linear model in a `.npz` file: `logits = x @ kernel + bias`."""

    kind, runtime, runtime_name = "npz", "numpy", "NumPy"

    def __init__(self, path, threads=1, *, constants=None, outputs=None, channels_first=False):
        super().__init__(path, ".npz", threads, channels_first)
        with np.load(self.path) as arrays:
            self.kernel, self.bias = arrays["kernel"], arrays["bias"]
        x = kd.runtimes.TensorInfo("x", (None, len(self.kernel)), "float32")
        logits = kd.runtimes.TensorInfo("logits", (None, len(self.bias)), "float32")
        self.describe([x], [logits], constants, outputs)

    def set_inputs(self, arrays):
        self.x = self.with_constants(arrays)["x"]

    def invoke(self, outputs=None):
        del outputs
        self.logits = self.x @ self.kernel + self.bias

    def results(self):
        return [self.logits]


class CountingFile(LinearFile):
    """A linear model that also counts what it costs."""

    def count_parameters(self):
        return self.kernel.size + self.bias.size

    def count_costs(self, inputs):
        assert len(self.one_batch(inputs)[0]) == 1
        return {"macs": self.kernel.size}, ["peak_activation_bytes: left out; NumPy reuses none."]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The extension `.npz`, for the length of a test."""
    monkeypatch.setattr(registry, "_RUNTIMES", dict(registry._RUNTIMES))
    kd.runtimes.register(".npz", LinearFile)


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "linear.npz", kernel=KERNEL, bias=BIAS)
    return tmp_path / "linear.npz"


def student(seed=0):
    layer = keras.layers.Dense(files.CLASSES)
    model = keras.Sequential([keras.Input((files.FEATURES,)), layer], name="student")
    keras.utils.set_random_seed(seed)
    layer.kernel.assign(KERNEL * (1 + seed))
    layer.bias.assign(BIAS)
    return model


def write(model, path):
    kernel, bias = model.get_weights()
    np.savez(path, kernel=kernel, bias=bias)


def test_a_file_of_the_runtime_is_measured(path):
    found = kd.measure(path, (X, Y), teacher=student(), runs=2, warmup=1, verbose=0)
    same = kd.measure(student(), (X, Y), latency=False, verbose=0)
    assert found.kind == "npz"
    assert found.quality == pytest.approx(same.quality, abs=1e-6)
    assert found.teacher["agreement"] == 1.0
    assert found.latency["runtime"] == "numpy"
    assert found.latency["batch_size"] == 1
    assert set(found.size) == {"bytes", "gzip_bytes"}
    assert found.size["bytes"] == path.stat().st_size
    assert "macs, peak_activation_bytes: not counted for .npz files." in found.notes
    assert "parameters: left out; NumPy does not count them." in found.notes


def test_what_the_runtime_counts_is_in_the_size(path):
    kd.runtimes.register(".npz", CountingFile)
    found = kd.measure(path, (X, Y), latency=False, verbose=0)
    assert list(found.size) == ["parameters", "bytes", "gzip_bytes", "macs"]
    assert found.size["parameters"] == KERNEL.size + BIAS.size
    assert found.size["macs"] == KERNEL.size
    assert found.notes == ["peak_activation_bytes: left out; NumPy reuses none."]


def test_a_file_of_the_runtime_is_an_export_and_a_teacher_of_a_report(path, tmp_path):
    seen = []

    def export(model, target):
        seen.append(target.name)
        write(model, target)

    found = kd.report(
        path,
        [student(1), student(2)],
        [student(3), student(4)],
        exports={"npz": export, "given": [path, path]},
        data=(X, Y),
        latency=False,
        verbose=0,
    )
    assert seen == ["npz-0.npz", "npz-1.npz"]
    rows = {row["name"]: row for row in found.rows}
    assert rows["npz"]["values"] == pytest.approx(rows["distilled"]["values"])
    assert rows["given"]["agreement"] == 1.0
    assert [each.kind for each in found.comparison.teacher.measurements] == ["npz"]


def test_a_file_of_the_runtime_teaches(path):
    teacher = FileTeacher(kd.runtimes.open_file(path), name="linear")
    loss = kd.losses.SoftTargets(temperature=1.0)
    distiller = kd.Distiller(teacher, student(1), loss, alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = distiller.fit(X, batch_size=len(X), epochs=1, verbose=0).history

    def log_shares(kernel):
        logits = X.astype("float64") @ kernel + BIAS
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    logs, own = log_shares(KERNEL), log_shares(2 * KERNEL)
    expected = (np.exp(logs) * (logs - own)).sum(axis=-1).mean()
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_extension_that_a_name_mentions():
    assert registry.extension_in("ONNX int8", ".tflite") == ".onnx"
    assert registry.extension_in("my npz", ".tflite") == ".npz"
    assert registry.extension_in("int8", ".tflite") == ".tflite"
    assert kd.runtimes.extensions() == (".tflite", ".onnx", ".npz")


@pytest.mark.parametrize(
    ("extension", "runtime", "message"),
    [
        ("npz", LinearFile, "`extension`. Expected a file extension such as '.npz'"),
        (None, LinearFile, "`extension`. Expected a file extension"),
        (".keras", LinearFile, r"none of \('.keras', '.h5', '.hdf5'\), which Keras opens"),
        (".npz", 3, "`runtime`. Expected a subclass of keras_kd.runtimes.ModelFile"),
        (".npz", dict, "`runtime`. Expected a subclass of keras_kd.runtimes.ModelFile"),
    ],
)
def test_what_cannot_be_registered(extension, runtime, message):
    with pytest.raises(ValueError, match=message):
        kd.runtimes.register(extension, runtime)


def test_an_extension_without_a_runtime(tmp_path):
    (tmp_path / "model.xyz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Expected a .tflite, .onnx or .npz file.*register"):
        kd.runtimes.open_file(tmp_path / "model.xyz")
    with pytest.raises(ValueError, match=r"Expected a .tflite, .onnx, .npz or .keras file"):
        kd.measure(tmp_path / "model.xyz", (X, Y))
    with pytest.raises(ValueError, match=r"There is no file .*Expected the path of a .npz file"):
        kd.runtimes.open_file(tmp_path / "missing.npz")
