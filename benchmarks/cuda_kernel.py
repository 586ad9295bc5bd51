"""Loss and gradient of soft targets on a GPU: this kernel against its peers and a device copy.

Needs a GPU. The kernel is called through its C interface and timed with CUDA events; TensorFlow,
Keras and PyTorch (where it is installed) are called as a user calls them, many times before one
wait, and timed by the clock. The yardstick is a copy inside the device that moves as many bytes as
the kernel must: student and teacher read, the gradient written. All run in this one process, in
turns; the table has medians. Compare ratios, not times of different runs.

    python -m benchmarks.cuda_kernel [--shapes 8192x32000 --dtypes bfloat16]
"""

import argparse
import ctypes
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Both frameworks in one process: neither may take all of the memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

try:
    import torch
except ImportError:
    torch = None

import numpy as np
import tensorflow as tf

import keras_kd as kd
from keras_kd.ops.backends import shared_library, xla
from tests.cuda import driver
from tests.cuda.kernel_device import DTYPES, MESSAGE_BYTES, Task

SHAPES = ["65536x10", "32768x100", "8192x1000", "8192x8000", "8192x32000", "16x131072"]
SAMPLE = 0.05  # seconds
BASE, COPY = "keras_kd, kernel", "device copy"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shapes", nargs="+", default=SHAPES, metavar="ROWSxCLASSES")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"])
    add("--temperature", type=float, default=4.0)
    add("--repeats", type=int, default=15)
    return parser.parse_args()


class Kernel:
    """The C interface on memory that stays allocated."""

    def __init__(self, student, teacher, temperature):
        device = self.device = driver.CudaDevice()
        self.library = device.function
        rows, classes = student.shape
        code = list(DTYPES).index(student.dtype.name)
        self.task = Task(
            problem=shared_library.Problem(
                rows=rows,
                classes=classes,
                student=device.allocate(student),
                teacher=device.allocate(teacher),
                student_type=code,
                teacher_type=code,
                gradient_type=code,
                temperature=temperature,
                soft=device.allocate_uninitialized(4 * rows),
                gradient=device.allocate_uninitialized(student.nbytes),
            )
        )
        size = ctypes.c_int64()
        device.call("keras_kd_cuda_workspace", ctypes.byref(self.task), ctypes.byref(size))
        workspace = device.allocate_uninitialized(size.value) if size.value else None
        self.arguments = (ctypes.byref(self.task), ctypes.c_void_p(workspace), size, None)
        self.message = ctypes.create_string_buffer(MESSAGE_BYTES)

    def __call__(self):
        function = self.library("keras_kd_cuda_losses")
        if function(*self.arguments, self.message, ctypes.c_int64(MESSAGE_BYTES)):
            raise RuntimeError(self.message.value.decode())


def copy(nbytes):
    """A copy that reads and writes `nbytes` together."""
    half = ctypes.c_size_t(nbytes // 2)
    source, target = driver.Memory(half.value), driver.Memory(half.value)
    return lambda: driver.call("cuMemcpyDtoDAsync_v2", target.address, source.address, half, None)


def timed_by_events(call, loops):
    start = driver.Event()
    for _ in range(loops):
        call()
    return driver.Event().milliseconds_since(start) / loops / 1000


def wait(loss):
    """Until a loss of either framework is known to the host."""
    return float(loss)


def timed_by_clock(call, loops):
    wait(call())
    start = time.perf_counter()
    for _ in range(loops):
        loss = call()
    wait(loss)
    return (time.perf_counter() - start) / loops


def tensorflow_contenders(student, teacher, temperature):
    """Yields (name, function that starts the work and returns the mean loss)."""

    def fused(student, teacher):
        return kd.ops.soft_target_loss(student, teacher, temperature, reduction="mean")

    def naive(student, teacher):
        p = tf.nn.softmax(teacher / temperature)
        log_ratio = tf.nn.log_softmax(teacher / temperature)
        log_ratio -= tf.nn.log_softmax(student / temperature)
        return temperature**2 * tf.reduce_mean(tf.reduce_sum(p * log_ratio, axis=-1))

    for name, loss, jit, outside in [
        ("keras_kd, jit_compile=True", fused, True, "tensorflow"),
        ("keras_kd, graph, KERAS_KD_GPU=xla", fused, False, "xla"),
        ("keras_kd, graph", fused, False, "tensorflow"),
        ("TensorFlow, XLA", naive, True, "tensorflow"),
        ("TensorFlow, graph", naive, False, "tensorflow"),
    ]:
        os.environ["KERAS_KD_GPU"] = outside  # read when traced
        yield name, tensorflow_step(loss, student, teacher, jit)


def tensorflow_step(loss_function, student, teacher, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def step(student, teacher):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = loss_function(student, teacher)
        return loss, tape.gradient(loss, student)

    step(student, teacher)
    return lambda: tf.cast(step(student, teacher)[0], tf.float32)


def torch_contenders(student, teacher, temperature):
    dtype = getattr(torch, student.dtype.name)
    student, teacher = (
        torch.tensor(np.float32(logits), device="cuda").to(dtype) for logits in (student, teacher)
    )
    student.requires_grad_()

    def loss_function(student, teacher):
        q, p = (torch.log_softmax(x / temperature, -1) for x in (student, teacher))
        loss = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
        return loss * temperature**2

    def make(loss_function):
        def call():
            loss = loss_function(student, teacher)
            torch.autograd.grad(loss, student)
            return loss.detach().float()

        return call

    yield "PyTorch, eager", make(loss_function)
    yield "PyTorch, torch.compile", make(torch.compile(loss_function, dynamic=False))


def contenders(rows, classes, dtype, temperature):
    """Returns {name: (function, how it is timed)}."""
    logits = np.random.default_rng(0).normal(0, 3, (2, rows, classes)).astype("float32")
    student, teacher = logits.astype(DTYPES[dtype])
    found = {
        BASE: (Kernel(student, teacher, temperature), timed_by_events),
        COPY: (copy(3 * student.nbytes), timed_by_events),
    }
    with tf.device("GPU:0"):
        tensors = [tf.constant(student), tf.constant(teacher)]
        for name, call in tensorflow_contenders(*tensors, temperature):
            found[name] = call, timed_by_clock
    if torch is not None and torch.cuda.is_available():
        for name, call in torch_contenders(student, teacher, temperature):
            found[name] = call, timed_by_clock
    return found


def measure(found, repeats):
    """Returns {name: median seconds a call}; the contenders take turns."""
    for call, timed in found.values():
        timed(call, 3)  # compiles, loads and tunes
    loops = {name: max(1, round(SAMPLE / timed(call, 3))) for name, (call, timed) in found.items()}
    samples = {name: [] for name in found}
    for _ in range(repeats):
        for name, (call, timed) in found.items():
            samples[name].append(timed(call, loops[name]))
    return {name: statistics.median(times) for name, times in samples.items()}


def main():
    arguments = parse_arguments()
    if reason := xla.unavailable_on_gpu():
        raise SystemExit(f"This benchmark needs a GPU: {reason}")
    print(f"{driver.open_device()}, TensorFlow {tf.__version__}, median of {arguments.repeats}")
    for shape in arguments.shapes:
        rows, classes = map(int, shape.split("x"))
        for dtype in arguments.dtypes:
            seconds = measure(
                contenders(rows, classes, dtype, arguments.temperature), arguments.repeats
            )
            moved = 3 * rows * classes * np.dtype(DTYPES[dtype]).itemsize
            print(f"\n{shape} {dtype}, {moved / 1e6:.1f} MB to move")
            print(f"{'':36}{'ms':>10}{'GB/s':>8}{'x copy':>9}{'x kernel':>10}")
            for name, time_ in seconds.items():
                print(
                    f"{name:36}{1000 * time_:10.3f}{moved / time_ / 1e9:8.0f}"
                    f"{time_ / seconds[COPY]:9.2f}{time_ / seconds[BASE]:10.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
