"""Which implementation computes: `use_kernel`, environment variables, the fallback."""

import contextlib
import os
import warnings

import tensorflow as tf

from keras_kd import _library
from keras_kd.ops import cuda, native, xla

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
        native.load()
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


def settings():
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
        native.load()
    except _library.LibraryError as error:
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
        raise _library.LibraryError(
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
    status["cuda_error"] = cuda.unavailable()
    with contextlib.suppress(_library.LibraryError):  # cuda_error says it
        status["cuda_build"] = cuda.build_info()
    try:
        native.load()
    except _library.LibraryError as error:
        status["native_error"] = status["xla_error"] = str(error)
        return status
    library = _library.load()
    status["native"] = status["choice"] != "tensorflow"
    status["xla_error"] = _why_not_in_xla()
    status["xla"] = status["native"] and not status["xla_error"]
    status["instruction_set"] = library.keras_kd_instruction_set().decode()
    status["instruction_sets"] = library.keras_kd_instruction_sets().decode().split(",")
    status["threads"] = library.keras_kd_num_threads()
    status["build"] = _library.build_info()
    return status
