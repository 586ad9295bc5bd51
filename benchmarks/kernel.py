"""Loss and gradient of soft targets: keras_kd against its peers and against the memory.

Every contender computes `T^2 KL(teacher || student)`, averaged over the rows, and its gradient
with respect to the student's logits, called as a user calls it; PyTorch takes part where it is
installed. All run in this one process, in turns, with the same number of threads; the table has
the median over the repeats. Compare ratios, not times of different runs.

The yardstick is STREAM's triad, `out = a + k * b`, on the kernels' own threads. It reads two
arrays and writes one, as the loss does with student, teacher and gradient, and here it moves just
as many bytes: 3 x 4 for each float32 logit, 3 x 2 for each bfloat16 one (so half as many floats).
Large results are written past the caches in both, so no line of the result is read first. `triad`
writes to the same array each time; `triad, new array` asks for one on every call, as a framework
must that returns a new gradient, and pays for its pages. The loss with a sparse teacher moves two
thirds of the bytes: it reads no teacher to speak of. Where all arrays fit in the caches
neither is a bound: the exponentials then cost more than the traffic.

    python benchmarks/kernel.py
    python benchmarks/kernel.py --shapes 1024x1000 --dtypes float32 --only keras_kd triad
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured

try:
    import torch
    import torch._inductor  # what torch.compile loads crashes where TensorFlow was loaded before it
except ImportError:
    torch = None

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from keras_kd.ops.backends import ctypes

SHAPES = ["1024x1000", "256x32000", "102400x10", "64x1000"]
PAUSE = 0.01  # seconds: the idle threads of the last contender stop spinning
SAMPLE = 0.02  # seconds: fast contenders are called this long for one sample
BASE, TRIAD = "keras_kd, graph", "triad"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shapes", nargs="+", default=SHAPES, metavar="ROWSxCLASSES")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"])
    add("--temperature", type=float, default=4.0)
    add("--kept", type=int, default=64, help="classes of a sparse teacher, which takes part too")
    add("--repeats", type=int, default=15)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--only", nargs="+", metavar="PART", help="contenders whose name has one of these parts")
    return parser.parse_args()


def tensorflow_contenders(student, teacher, temperature):
    """Yields (name, function without arguments that returns the mean loss)."""
    distillation = keras.distillation.LogitsDistillation(
        temperature=temperature, loss=keras.losses.KLDivergence()
    )

    def fused(student, teacher):
        return kd.ops.soft_target_loss(student, teacher, temperature, reduction="mean")

    def naive(student, teacher):
        p = tf.nn.softmax(teacher / temperature)
        log_ratio = tf.nn.log_softmax(teacher / temperature)
        log_ratio -= tf.nn.log_softmax(student / temperature)
        return temperature**2 * tf.reduce_mean(tf.reduce_sum(p * log_ratio, axis=-1))

    def peer(student, teacher):
        return distillation.compute_loss(teacher, student)

    for name, loss, kernel in [
        ("keras_kd", fused, "native"),
        ("keras_kd, pure TensorFlow", fused, "tensorflow"),
        ("TensorFlow", naive, "auto"),
        ("keras.distillation", peer, "auto"),
    ]:
        for kind, jit in [("graph", False), ("XLA", True)]:
            yield f"{name}, {kind}", tensorflow_step(loss, student, teacher, jit, kernel)


def sparse_contenders(student, teacher, kept, temperature):
    """Yields the same for the loss with a teacher whose `kept` largest logits are known."""
    values, indices = tf.math.top_k(tf.cast(teacher, tf.float32), kept)
    others = tf.cast(teacher, tf.float32).numpy()
    np.put_along_axis(others, indices.numpy(), -np.inf, axis=-1)
    tail = tf.reduce_logsumexp(others / temperature, axis=-1)
    sparse = tf.cast(values, teacher.dtype), indices, tail

    def loss(student, sparse):
        return kd.ops.sparse_soft_target_loss(student, *sparse, temperature, reduction="mean")

    for name, kernel in [("keras_kd", "native"), ("keras_kd, pure TensorFlow", "tensorflow")]:
        for kind, jit in [("graph", False), ("XLA", True)]:
            step = tensorflow_step(loss, student, sparse, jit, kernel)
            yield f"{name}, {kept} kept, {kind}", step


def tensorflow_step(loss_function, student, teacher, jit_compile, kernel):
    @tf.function(jit_compile=jit_compile)
    def step(student, teacher):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = loss_function(student, teacher)
        return loss, tape.gradient(loss, student)

    def call():
        loss, _ = step(student, teacher)
        return float(loss)

    with kd.ops.use_kernel(kernel):
        call()  # traced, and so bound to the kernel, inside the block
    return call


def torch_contenders(student, teacher, temperature):
    dtype = getattr(torch, student.dtype.name)
    student, teacher = (
        torch.tensor(tf.cast(logits, "float32").numpy()).to(dtype) for logits in (student, teacher)
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
            return loss.item()

        return call

    yield "PyTorch, eager", make(loss_function)
    yield "PyTorch, torch.compile", make(torch.compile(loss_function, dynamic=False))


def triad_contenders(nbytes):
    """`nbytes`: of one array of logits."""
    ones = np.ones(nbytes // 4, np.float32)
    other, out = ones.copy(), np.zeros_like(ones)
    yield TRIAD, lambda: ctypes.triad(ones, other, out)
    yield f"{TRIAD}, new array", lambda: ctypes.triad(ones, other, np.empty_like(ones))


def contenders(rows, classes, dtype, arguments):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (2, rows, classes)).astype("float32")
    student, teacher = tf.unstack(tf.cast(logits, dtype))
    found = list(tensorflow_contenders(student, teacher, arguments.temperature))
    if arguments.kept < classes:
        found += sparse_contenders(student, teacher, arguments.kept, arguments.temperature)
    if torch is not None:
        found += torch_contenders(student, teacher, arguments.temperature)
    found += triad_contenders(rows * classes * student.dtype.size)
    parts = [BASE, TRIAD, *arguments.only] if arguments.only else [""]
    return {name: call for name, call in found if any(part in name for part in parts)}


def measure(calls, repeats):
    """Returns {name: median seconds a call}; the contenders take turns."""
    loops = {name: max(1, round(SAMPLE / seconds_a_call(call, 3))) for name, call in calls.items()}
    samples = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE)
            samples[name].append(seconds_a_call(call, loops[name]))
    return {name: statistics.median(found) for name, found in samples.items()}


def seconds_a_call(call, loops):
    call()  # wakes the threads and fills the caches with this contender's data
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


def print_table(title, calls, seconds):
    print(f"\n{title}\n{'':41}{'ms':>10}{'x triad':>10}{'x keras_kd':>12}{'loss':>10}")
    for name, call in calls.items():
        loss = "" if TRIAD in name else f"{call():.4f}"
        ratios = f"{seconds[name] / seconds[TRIAD]:10.2f}{seconds[name] / seconds[BASE]:12.2f}"
        print(f"{name:41}{1000 * seconds[name]:10.3f}{ratios}{loss:>10}", flush=True)


def main():
    arguments = parse_arguments()
    tf.get_logger().setLevel("ERROR")  # it takes a function for each contender for retracing
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    ctypes.set_num_threads(arguments.threads)
    if torch is not None:
        torch.set_num_threads(arguments.threads)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}", end="")
    print(f", PyTorch {torch.__version__}" if torch is not None else "", end="")
    print(f", {arguments.threads} threads, {ctypes.instruction_set()}, ", end="")
    print(f"median of {arguments.repeats}")
    for shape in arguments.shapes:
        rows, classes = map(int, shape.split("x"))
        for dtype in arguments.dtypes:
            calls = contenders(rows, classes, dtype, arguments)
            megabytes = 3 * rows * classes * tf.as_dtype(dtype).size / 1e6
            title = f"{shape} {dtype}: student, teacher and gradient are {megabytes:.1f} MB"
            print_table(title, calls, measure(calls, arguments.repeats))


if __name__ == "__main__":
    main()
