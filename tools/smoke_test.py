"""Tries an installed keras_kd: the native library, every way into it, and a short training.

Run by tools/smoke_test_wheel.sh in fresh environments; `python tools/smoke_test.py` tries the
current one. With KERAS_KD_EXPECT=pure the native library must be absent, with
KERAS_KD_EXPECT=ctypes the module keras_kd._kernels; KERAS_KD_DIGEST is then what a run with the
module has printed.
"""

import hashlib
import itertools
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

start = time.perf_counter()
import keras_kd as kd  # noqa: E402 (timed on its own)

IMPORT_SECONDS = time.perf_counter() - start
TEMPERATURE = 4.0
EXPECTED = os.environ.get("KERAS_KD_EXPECT")
PURE = EXPECTED == "pure"


def reference_loss(student, teacher):
    """T^2 KL(teacher || student) per row, in float64."""

    def log_softmax(logits):
        logits = logits.astype("float64") / TEMPERATURE
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    p, q = log_softmax(teacher), log_softmax(student)
    return TEMPERATURE**2 * (np.exp(p) * (p - q)).sum(axis=-1)


def reference_gradient(student, teacher):
    """T (q - p), the gradient of the summed loss."""

    def softmax(logits):
        exponentials = np.exp(logits.astype("float64") / TEMPERATURE)
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

    return TEMPERATURE * (softmax(student) - softmax(teacher))


def check_native_library():
    """The library is there and picks the widest instruction set of this processor."""
    from keras_kd.ops.backends import ctypes

    print("library:", ctypes.build_info())
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    flags = set(cpuinfo.split("flags", 1)[-1].split("\n", 1)[0].split())
    found = set(ctypes.instruction_sets())
    expected = {"baseline"}
    if {"avx2", "fma", "f16c"} <= flags:
        expected.add("avx2")
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        expected.add("avx512")
    if found != expected:
        raise SystemExit(f"instruction sets: expected {sorted(expected)}, found {sorted(found)}")


def check_numpy():
    """`kd.ops.numpy` takes the expected binding, and gives the same bits through either."""
    from keras_kd.ops.backends import extension

    binding = kd.ops.numpy.binding()
    print(f"binding: {binding}, module: {extension.file_name()}")
    print(f"why not pybind11: {extension.unavailable() or '-'}")
    # The wheel for aarch64 is cross-built and has no module; nor has a Python newer than the wheel.
    if EXPECTED == "ctypes" or platform.machine() == "x86_64":
        expected = EXPECTED or "pybind11"
        if binding != expected:
            raise SystemExit(f"binding: expected {expected}, found {binding}")
    random = np.random.default_rng(0)
    digest = hashlib.sha256()
    for classes in (7, 100, 1001):
        student, teacher = random.normal(size=(2, 33, classes)).astype("float32") * 3
        labels = np.arange(33) % classes
        for array in (
            *kd.ops.numpy.soft_target_loss(student, teacher, TEMPERATURE, gradient=True),
            *kd.ops.numpy.hard_and_soft_loss(student, teacher, labels, 2.0, gradient=True),
        ):
            digest.update(array.tobytes())
        loss = kd.ops.numpy.soft_target_loss(student, teacher, TEMPERATURE)
        np.testing.assert_allclose(loss, reference_loss(student, teacher), rtol=2e-5)
    print(f"digest: {digest.hexdigest()}")
    wanted = os.environ.get("KERAS_KD_DIGEST", digest.hexdigest())
    if digest.hexdigest() != wanted:
        raise SystemExit(f"the numbers are other ones than with the module: {wanted}")


# A driver of CUDA 12.4, as far as the CUDA runtime asks it.
OLD_DRIVER = """
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuInit(unsigned flags) { return 0; }
int cuGetProcAddress(const char *name, void **function, int version, unsigned long flags) {
  *function = 0;
  return 500;
}
"""


def check_cuda_library():
    """It opens where no driver is, says what it holds and why it is not used."""
    from keras_kd.ops.backends import xla

    print("CUDA library:", xla.build_info())
    found = set(xla.build_info()["architectures"])
    expected = {"sm_75", "sm_80", "sm_90", "sm_100", "sm_120", "compute_120"}
    if not expected <= found:
        raise SystemExit(f"architectures: expected {sorted(expected)}, found {sorted(found)}")
    if tf.config.list_physical_devices("GPU"):
        return
    print("not used:", xla.cuda_unavailable())
    if not xla.cuda_unavailable():
        raise SystemExit("CUDA kernels on a machine without a GPU")
    with tempfile.TemporaryDirectory() as folder:
        check_old_driver(pathlib.Path(folder))


def check_old_driver(folder):
    """The doctor tells that a driver is too old."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler: the answer to an old driver was not tried")
        return
    (folder / "driver.c").write_text(OLD_DRIVER)
    command = [compiler, "-shared", "-fPIC", "driver.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "keras_kd", "doctor"],
        env={**os.environ, "LD_LIBRARY_PATH": os.fspath(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    if "the NVIDIA driver serves CUDA 12.4" not in done.stdout:
        raise SystemExit(f"the doctor does not tell that the driver is too old:\n{done.stdout}")


def check_command():
    """`keras-kd` is installed and runs."""
    command = shutil.which("keras-kd", path=sysconfig.get_path("scripts"))
    if command is None:
        raise SystemExit("the command keras-kd is not installed")
    subprocess.run([command, "doctor"], check=True, stdout=subprocess.DEVNULL)


def loss_and_gradient(student, teacher):
    """The library's, of the summed loss."""
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = kd.ops.soft_target_loss(student, teacher, TEMPERATURE)
    return loss, tape.gradient(loss, student)


def check_losses():
    """Value and gradient against NumPy: eager, in a graph, in XLA; the kernel and pure TF."""
    random = np.random.default_rng(0)
    ways = {
        "eager": loss_and_gradient,
        "graph": tf.function(loss_and_gradient),
        "xla": tf.function(loss_and_gradient, jit_compile=True),
    }
    kernels = ["tensorflow"] if PURE else ["native", "tensorflow"]
    for classes, kernel, way in itertools.product((7, 100, 1001), kernels, ways):
        student, teacher = random.normal(size=(2, 33, classes)).astype("float32") * 3
        with kd.ops.use_kernel(kernel):
            loss, gradient = ways[way](tf.constant(student), tf.constant(teacher))
        message = f"{kernel}, {way}, {classes} classes"
        np.testing.assert_allclose(
            loss, reference_loss(student, teacher), rtol=2e-5, err_msg=message
        )
        np.testing.assert_allclose(
            gradient, reference_gradient(student, teacher), atol=1e-5, err_msg=message
        )


def dense_model(units):
    """A classifier of 10 classes that ends in logits."""
    return keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(10)]
    )


def check_training():
    """`fit` runs with and without XLA, and the loss falls."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(256, 16)).astype("float32")
    labels = inputs[:, :10].argmax(axis=-1)
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        distiller = kd.Distiller(dense_model(64), dense_model(8))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.Adam(0.01), loss=loss, jit_compile=jit_compile)
        history = distiller.fit(inputs, labels, batch_size=32, epochs=3, verbose=0).history
        if not history["loss"][-1] < history["loss"][0]:
            raise SystemExit(f"the loss does not fall: {history['loss']}")


def main():
    """Runs the checks; any failure ends the process with an error."""
    print(f"tensorflow {tf.__version__}, keras {keras.__version__}, numpy {np.__version__}")
    print(f"keras_kd {kd.__version__} from {pathlib.Path(kd.__file__).parent}")
    print(f"import keras_kd after keras: {IMPORT_SECONDS:.3f} s")
    tf.get_logger().setLevel("ERROR")  # TensorFlow warns of retracing: each shape is new.
    if not PURE:
        check_native_library()
        check_numpy()
    if not PURE and platform.machine() == "x86_64":
        check_cuda_library()
    check_command()
    check_losses()
    check_training()
    print("smoke test passed")


if __name__ == "__main__":
    main()
