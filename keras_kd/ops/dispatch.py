"""Which implementation computes, and the way to it: `use_kernel`, the place, the gradient."""

import contextlib
import dataclasses
import functools
import os
import threading
import warnings

import tensorflow as tf

from keras_kd.ops import reference
from keras_kd.ops.backends import shared_library, tensorflow, xla

# Which implementation computes: `use_kernel`, environment variables, the fallback.


KERNELS = ("auto", "native", "tensorflow")
ENVIRONMENT_VARIABLE = "KERAS_KD_KERNEL"
# What computes on a GPU outside jit_compile=True. Nobody has measured yet which is faster there, so
# the default is what needs nothing compiled.
GPU_KERNELS = ("tensorflow", "xla")
GPU_VARIABLE = "KERAS_KD_GPU"


class KernelWarning(UserWarning):
    """The native kernel could not be used and plain TensorFlow computes instead."""


# A list, not a context variable: the replicas of a tf.distribute strategy trace in threads of
# their own, which would not see one.
_chosen = []
_warned = set()


@contextlib.contextmanager
def use_kernel(kernel):
    """Chooses the implementation of `keras_kd.ops` inside a `with` block.

    The choice is made when an operation is traced: a `tf.function` (or a compiled model) that was
    traced before keeps what it was traced with. It holds for all threads.

    Args:
        kernel: `"auto"`: the native kernel where it can run, else plain TensorFlow, with one
            warning that names the reason. `"native"`: the native kernel, or an error.
            `"tensorflow"`: plain TensorFlow.

    Raises:
        ValueError: `kernel` is none of these.
        RuntimeError: `"native"`, and the library is missing or broken.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    student, teacher = tf.random.normal([2, 8, 10])
    with kd.ops.use_kernel("tensorflow"):
        loss = kd.ops.soft_target_loss(student, teacher, temperature=4.0)
    ```
    """
    _check(kernel, KERNELS, "argument `kernel`")
    if kernel == "native":
        tensorflow.load()
    _chosen.append(kernel)
    try:
        yield
    finally:
        _chosen.pop()


def _check(kernel, kernels, source):
    if kernel not in kernels:
        raise ValueError(
            f"Invalid value for {source}. Expected one of {kernels}. Received: {kernel!r}"
        )
    return kernel


def _from_environment(variable, kernels):
    return _check(os.environ.get(variable, kernels[0]), kernels, f"environment variable {variable}")


def chosen():
    """The choice in force: the innermost `use_kernel`, else the environment's, else `"auto"`."""
    if _chosen:
        return _chosen[-1]
    return _from_environment(ENVIRONMENT_VARIABLE, KERNELS)


def kernel_settings():
    """What an operation that is traced now depends on, apart from its arguments."""
    return chosen(), _from_environment(GPU_VARIABLE, GPU_KERNELS)


def native_is_used():
    """Whether the native kernel computes outside XLA.

    Raises:
        LibraryError: It was asked for and cannot be loaded.
    """
    kernel = chosen()
    if kernel == "tensorflow":
        return False
    try:
        tensorflow.load()
    except shared_library.LibraryError as error:
        if kernel == "native":
            raise
        _warn(f"The fused kernel is not used: {error}")
        return False
    return True


def xla_is_used():
    """Whether the native kernel computes inside XLA; as `native_is_used`.

    Where a GPU is visible it must have a kernel too: which device a computation will be compiled
    for is not known when the graph is built.
    """
    if not native_is_used():
        return False
    reason = _why_not_in_xla()
    if not reason:
        return True
    if chosen() == "native":
        raise shared_library.LibraryError(
            f'The fused kernel cannot run inside XLA: {reason}. Use the kernel "auto", which '
            "falls back to plain TensorFlow there."
        )
    _warn(f"The fused kernel is not used inside XLA: {reason}")
    return False


def cpu_xla_is_used():
    """`xla_is_used` of a kernel that GPUs do not have."""
    return not gpu_is_visible() and xla_is_used()


def _why_not_in_xla():
    return xla.unavailable_on_gpu() if gpu_is_visible() else xla.unavailable()


def gpu_kernel_is_used():
    """Whether the GPU's kernel computes on a GPU outside XLA; as `native_is_used`."""
    wanted = _from_environment(GPU_VARIABLE, GPU_KERNELS) == "xla"
    return wanted and gpu_is_visible() and xla_is_used()


def gpu_is_visible():
    """Whether an XLA computation might be compiled for a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def _warn(message):
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, KernelWarning, stacklevel=2)


def kernel_status():
    """What is used and why, as `python -m keras_kd doctor` prints it.

    Returns:
        A dict with the keys `choice`, `gpu_choice`, `native`, `native_error`, `xla`, `xla_error`,
        `cuda_error` (why the GPU's kernel cannot run here), and, where the libraries load,
        `instruction_set`, `instruction_sets`, `threads`, `build`, `cuda_build`.

    Raises:
        ValueError: An environment variable has a value that it cannot have.
    """
    status = {"choice": chosen(), "native": False, "native_error": "", "xla": False}
    status["gpu_choice"] = _from_environment(GPU_VARIABLE, GPU_KERNELS)
    status["xla_error"] = ""
    status["cuda_error"] = xla.cuda_unavailable()
    with contextlib.suppress(shared_library.LibraryError):  # cuda_error says it
        status["cuda_build"] = xla.build_info()
    try:
        tensorflow.load()
    except shared_library.LibraryError as error:
        status["native_error"] = status["xla_error"] = str(error)
        return status
    library = shared_library.load()
    status["native"] = status["choice"] != "tensorflow"
    status["xla_error"] = _why_not_in_xla()
    status["xla"] = status["native"] and not status["xla_error"]
    status["instruction_set"] = library.keras_kd_instruction_set().decode()
    status["instruction_sets"] = library.keras_kd_instruction_sets().decode().split(",")
    status["threads"] = library.keras_kd_num_threads()
    status["build"] = shared_library.build_info()
    return status


# Gradients of our own, of operations that have none that TensorFlow could find.


_LOCAL = threading.local()
# Functions by what they were traced with.
_FUNCTIONS: dict = {}


@contextlib.contextmanager
def not_needed():
    """While it is open, in this thread, nothing that is computed will be differentiated.

    What is traced for its shapes alone needs no gradient, and leaves nothing behind without.
    """
    before = are_needed()
    _LOCAL.are_needed = False
    try:
        yield
    finally:
        _LOCAL.are_needed = before


def are_needed():
    """Whether what is computed may be differentiated, and run."""
    return getattr(_LOCAL, "are_needed", True)


def custom_gradient(function):
    """As `tf.custom_gradient`; where no gradient is needed it is zeros, of the first argument."""

    def call(*args):
        if are_needed():
            return tf.custom_gradient(function)(*args)
        # A loss of a user's own may take gradients inside of itself, even of shapes alone.
        zero = 0.0 * tf.reduce_sum(tf.cast(args[0], tf.float32))
        return tf.nest.map_structure(
            lambda value: tf.stop_gradient(value) + tf.cast(zero, value.dtype), function(*args)[0]
        )

    return call


def once_traced(function, tensors, **settings):
    """`function(tensors, **settings)`, in a graph of its own where a graph is being built.

    TensorFlow keeps the graph of each `tf.custom_gradient` for as long as the process lives, and
    with it whatever that graph has seen: a model's training step, with the model (6 MB of a tiny
    one). In a function that knows nothing but its arguments it is traced, and kept, once for a
    signature.

    Args:
        function: Of a module: it closes over nothing.
        tensors: Dict of tensors; `None` stays `None`.
        **settings: What can be hashed, and is no tensor.
    """
    if tf.executing_eagerly() or not are_needed():
        return function(tensors, **settings)
    given = {name: value for name, value in tensors.items() if value is not None}
    absent = tuple(name for name in tensors if name not in given)
    # With the shapes, lest a function of more general ones is taken, which tells less of its own.
    shapes = tuple((value.dtype, repr(value.shape)) for value in given.values())
    key = function, absent, shapes, tuple(sorted(settings.items())), kernel_settings()
    if key not in _FUNCTIONS:
        whole = functools.partial(_with_absent, function, absent, settings)
        _FUNCTIONS[key] = tf.function(whole, autograph=False)
    return _FUNCTIONS[key](given)


def _with_absent(function, absent, settings, given):
    return function({**given, **dict.fromkeys(absent)}, **settings)


# Sends a problem to the implementation for the place it runs in.
#
# | where | computes |
# |---|---|
# | eager, CPU | the operation (`native.py`) |
# | graph, CPU | the operation |
# | graph, inside XLA on a CPU | XLA FFI (`xla.py`) |
# | inside XLA on a GPU | XLA FFI, if `libkeras_kd_cuda.so` can run there |
# | a GPU outside XLA | plain TensorFlow (`reference.py`), or XLA FFI: KERAS_KD_GPU |
# | no library, or `use_kernel("tensorflow")` | plain TensorFlow |
#
# `sparse_soft_target_loss` has no kernel for GPUs: plain TensorFlow computes it there, and, because
# which device XLA will compile for is not known when the graph is built, inside XLA where a GPU is.
#
# Whether XLA will compile a graph is not known when the graph is built. DeviceIndex tells at run
# time: in an XLA computation it is the constant that selects `default`, and the other branches are
# pruned before anything tries to compile them. Measured: about 23 us a call.


def compute(problem):
    """`reference.compute` of an `arguments.Problem`, by the fastest implementation here."""
    problem = _constants(problem)
    on_cpu = tensorflow.compute if native_is_used() else reference.compute_checked
    compiled_on_gpu = gpu_kernel_is_used()
    on_gpu = xla.compute_compiled if compiled_on_gpu else reference.compute_checked
    return _by_place(
        problem.student,
        lambda: on_cpu(problem),
        lambda: on_gpu(problem),
        lambda: (xla.compute if xla_is_used() else reference.compute)(problem),
    )


def compute_sparse(problem):
    """`reference.compute_sparse` of an `arguments.SparseProblem`, by the fastest here."""
    problem = _constants(problem)
    plain, checked = reference.compute_sparse, reference.compute_sparse_checked
    on_cpu = tensorflow.compute_sparse if native_is_used() else checked
    return _by_place(
        problem.student,
        lambda: on_cpu(problem),
        lambda: checked(problem),
        lambda: (xla.compute_sparse if cpu_xla_is_used() else plain)(problem),
    )


def scale(gradient, upstream, dtype):
    """`gradient * upstream[..., None]`, cast to the student's dtype."""
    on_cpu = tensorflow.scale if native_is_used() else reference.scale
    args = (tf.stop_gradient(gradient), tf.stop_gradient(upstream), dtype)
    # Inside XLA plain TensorFlow is right: the multiplication is fused with what consumes it.
    return _by_place(
        gradient,
        lambda: on_cpu(*args),
        lambda: reference.scale(*args),
        lambda: reference.scale(*args),
    )


def _constants(problem):
    # A persistent tape differentiates the branches of a switch_case while they are built, before
    # custom_gradient replaces their gradient; the operations have none of their own.
    tensors = {
        field.name: tf.stop_gradient(value)
        for field in dataclasses.fields(problem)
        if tf.is_tensor(value := getattr(problem, field.name))
    }
    return dataclasses.replace(problem, **tensors)


def _by_place(tensor, cpu, gpu, compiled):
    if not are_needed():  # nothing will run: any tells the shapes
        return cpu()
    if tf.executing_eagerly():
        return gpu() if "GPU" in tensor.device else cpu()
    place = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
    found = tf.switch_case(place, {0: cpu, 1: gpu}, default=compiled)
    # A function that is differentiated twice asks for the gradient of whatever its backward pass
    # takes of this, before custom_gradient could say that there is none.
    return tf.nest.map_structure(tf.stop_gradient, found)
