"""Chooses what computes a problem, kernel or plain TensorFlow, by `use_kernel` and by the device.

| where | computes |
|---|---|
| eager, CPU | the kernel as an operation (`backends/tensorflow.py`) |
| graph, CPU | the same operation |
| graph, inside XLA on a CPU | the kernel through XLA's FFI (`backends/xla.py`) |
| inside XLA on a GPU | the same, if `libkeras_kd_cuda.so` can run there |
| a GPU outside XLA | plain TensorFlow (`reference.py`), or XLA's FFI: KERAS_KD_GPU |
| no library, or `use_kernel("tensorflow")` | plain TensorFlow |

`sparse_soft_target_loss` has no kernel for GPUs: plain TensorFlow computes it there. It also does
so inside XLA on a machine with a GPU, because the device that XLA will compile for is not known
when the graph is built.

Whether XLA will compile a graph is not known when the graph is built either. The operation
DeviceIndex knows it at run time: in an XLA computation it is the constant that selects `default`,
and the other branches are pruned before anything tries to compile them. Measured: about 23 us a
call.
"""

import contextlib
import dataclasses
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_kd.ops import reference
from keras_kd.ops.arguments import Problem, SparseProblem
from keras_kd.ops.backends import shared_library, tensorflow, xla

KERNELS = ("auto", "native", "tensorflow")
ENVIRONMENT_VARIABLE = "KERAS_KD_KERNEL"
# What computes on a GPU outside jit_compile=True. Which is faster there has not been measured yet,
# so the default is what needs no compilation.
GPU_KERNELS = ("tensorflow", "xla")
GPU_VARIABLE = "KERAS_KD_GPU"


class KernelWarning(UserWarning):
    """The native kernel could not be used, and plain TensorFlow computes instead."""


# A list, not a context variable: the replicas of a tf.distribute strategy trace in threads of
# their own, which would not see one.
_chosen: list[str] = []
_warned: set[str] = set()


@contextlib.contextmanager
def use_kernel(kernel: str) -> Iterator[None]:
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
    _check_kernel(kernel, KERNELS, "argument `kernel`")
    if kernel == "native":
        tensorflow.load()
    _chosen.append(kernel)
    try:
        yield
    finally:
        _chosen.pop()


def _check_kernel(kernel: str, kernels: tuple[str, ...], source: str) -> str:
    if kernel not in kernels:
        raise ValueError(
            f"Invalid value for {source}. Expected one of {kernels}. Received: {kernel!r}"
        )
    return kernel


def _read_environment(variable: str, kernels: tuple[str, ...]) -> str:
    given = os.environ.get(variable, kernels[0])
    return _check_kernel(given, kernels, f"environment variable {variable}")


def chosen_kernel() -> str:
    """The choice in force: the innermost `use_kernel`, else the environment's, else `"auto"`."""
    if _chosen:
        return _chosen[-1]
    return _read_environment(ENVIRONMENT_VARIABLE, KERNELS)


def kernel_settings() -> tuple[str, str]:
    """What tracing an operation now depends on, apart from its arguments."""
    return chosen_kernel(), _read_environment(GPU_VARIABLE, GPU_KERNELS)


def native_is_used() -> bool:
    """Whether the native kernel computes outside XLA.

    Raises:
        LibraryError: It was chosen and cannot be loaded.
    """
    kernel = chosen_kernel()
    if kernel == "tensorflow":
        return False
    try:
        tensorflow.load()
    except shared_library.LibraryError as error:
        if kernel == "native":
            raise
        _warn_once(f"The fused kernel is not used: {error}")
        return False
    return True


def xla_is_used() -> bool:
    """Whether the native kernel computes inside XLA; raises as `native_is_used` does.

    Where a GPU is visible it must have a kernel too: which device a computation will be compiled
    for is not known when the graph is built.
    """
    if not native_is_used():
        return False
    reason = _xla_obstacle()
    if not reason:
        return True
    if chosen_kernel() == "native":
        raise shared_library.LibraryError(
            f'The fused kernel cannot run inside XLA: {reason}. Use the kernel "auto", which '
            "falls back to plain TensorFlow there."
        )
    _warn_once(f"The fused kernel is not used inside XLA: {reason}")
    return False


def cpu_xla_is_used() -> bool:
    """`xla_is_used` for a kernel that exists for CPUs only."""
    return not gpu_is_visible() and xla_is_used()


def _xla_obstacle() -> str:
    """Why the kernel cannot run inside XLA; empty if it can."""
    return xla.unavailable_on_gpu() if gpu_is_visible() else xla.unavailable()


def gpu_kernel_is_used() -> bool:
    """Whether the GPU's kernel computes outside XLA; raises as `native_is_used` does."""
    wanted = _read_environment(GPU_VARIABLE, GPU_KERNELS) == "xla"
    return wanted and gpu_is_visible() and xla_is_used()


def gpu_is_visible() -> bool:
    """Whether an XLA computation might be compiled for a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, KernelWarning, stacklevel=2)


def kernel_status() -> dict[str, Any]:
    """Which implementation is used and why, as `python -m keras_kd doctor` prints it.

    Returns:
        A dict with the keys `choice`, `gpu_choice`, `native`, `native_error`, `xla`, `xla_error`,
        `cuda_error` (why the GPU's kernel cannot run here), and, where the libraries load,
        `instruction_set`, `instruction_sets`, `threads`, `build`, `cuda_build`.

    Raises:
        ValueError: An environment variable has an invalid value.
    """
    status: dict[str, Any] = {
        "choice": chosen_kernel(),
        "native": False,
        "native_error": "",
        "xla": False,
    }
    status["gpu_choice"] = _read_environment(GPU_VARIABLE, GPU_KERNELS)
    status["xla_error"] = ""
    status["cuda_error"] = xla.cuda_unavailable()
    with contextlib.suppress(shared_library.LibraryError):  # cuda_error tells why
        status["cuda_build"] = xla.build_info()
    try:
        tensorflow.load()
    except shared_library.LibraryError as error:
        status["native_error"] = status["xla_error"] = str(error)
        return status
    library = shared_library.load()
    status["native"] = status["choice"] != "tensorflow"
    status["xla_error"] = _xla_obstacle()
    status["xla"] = status["native"] and not status["xla_error"]
    status["instruction_set"] = library.keras_kd_instruction_set().decode()
    status["instruction_sets"] = library.keras_kd_instruction_sets().decode().split(",")
    status["threads"] = library.keras_kd_num_threads()
    status["build"] = shared_library.build_info()
    return status


# Tracing: the operations have no gradient that TensorFlow could find, and define their own.


_LOCAL = threading.local()
# Traced functions, by all that their tracing depends on.
_FUNCTIONS: dict[Any, Callable] = {}


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Within it, in this thread, no gradient is needed: what is traced is traced for its shapes.

    Without a gradient such a trace leaves nothing behind.
    """
    before = gradients_are_needed()
    _LOCAL.gradients_are_needed = False
    try:
        yield
    finally:
        _LOCAL.gradients_are_needed = before


def gradients_are_needed() -> bool:
    """Whether what is traced may be differentiated and run."""
    return getattr(_LOCAL, "gradients_are_needed", True)


def custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient`; where no gradient is needed, zeros for the first argument."""

    def call(*args: tf.Tensor) -> Any:
        if gradients_are_needed():
            return tf.custom_gradient(function)(*args)
        # A user's loss may take gradients itself, even where it is traced for its shapes.
        zero = 0.0 * tf.reduce_sum(tf.cast(args[0], tf.float32))
        return tf.nest.map_structure(
            lambda value: tf.stop_gradient(value) + tf.cast(zero, value.dtype), function(*args)[0]
        )

    return call


def trace_once(function: Callable, tensors: dict[str, Any], **settings: Any) -> Any:
    """`function(tensors, **settings)`, in a graph of its own where a graph is being built.

    TensorFlow keeps the graph of each `tf.custom_gradient` for as long as the process lives, and
    with it whatever that graph has seen: a model's training step, with the model (6 MB of a tiny
    one). In a function that knows nothing but its arguments it is traced, and kept, once for a
    signature.

    Args:
        function: A function of a module: it closes over nothing.
        tensors: Dict of tensors; `None` stays `None`.
        **settings: Hashable values, no tensors.
    """
    if tf.executing_eagerly() or not gradients_are_needed():
        return function(tensors, **settings)
    given = {name: value for name, value in tensors.items() if value is not None}
    absent = tuple(name for name in tensors if name not in given)
    # With the shapes: a function traced for more general ones knows less of its results' shapes.
    shapes = tuple((value.dtype, repr(value.shape)) for value in given.values())
    key = function, absent, shapes, tuple(sorted(settings.items())), kernel_settings()
    if key not in _FUNCTIONS:
        whole = functools.partial(_with_absent, function, absent, settings)
        _FUNCTIONS[key] = tf.function(whole, autograph=False)
    return _FUNCTIONS[key](given)


def _with_absent(
    function: Callable, absent: tuple[str, ...], settings: dict[str, Any], given: dict[str, Any]
) -> Any:
    return function({**given, **dict.fromkeys(absent)}, **settings)


# Computing, wherever it runs.


@dataclasses.dataclass(frozen=True)
class Kernels:
    """What computes problems in one place.

    Attributes:
        compute: `reference.compute` of an `arguments.Problem`.
        compute_sparse: `reference.compute_sparse` of an `arguments.SparseProblem`.
        adds_in_place: Whether sums can be added to where they are: XLA has no such operation.
    """

    compute: Callable[[Problem], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
    compute_sparse: Callable[[SparseProblem], tuple[tf.Tensor, tf.Tensor]]
    adds_in_place: bool = False


def with_kernels(tensor: tf.Tensor, function: Callable[[Kernels], Any]) -> Any:
    """`function` of the `Kernels` of the place that it runs in.

    A loop goes inside of `function`: in the body of a loop XLA does not know DeviceIndex, and would
    compile what is meant for other places too.

    Args:
        tensor: One that is computed with, for its device.
        function: Returns a structure of tensors.
    """
    return _run_by_device(
        tensor,
        lambda: function(_kernels_of_cpu()),
        lambda: function(_kernels_of_gpu()),
        lambda: function(_kernels_of_xla()),
    )


def compute(problem: Problem) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`reference.compute` of an `arguments.Problem`, by the fastest implementation here."""
    problem = _stop_gradients(problem)
    return with_kernels(problem.student, lambda kernels: kernels.compute(problem))


def compute_sparse(problem: SparseProblem) -> tuple[tf.Tensor, tf.Tensor]:
    """`reference.compute_sparse` of an `arguments.SparseProblem`, by the fastest here."""
    problem = _stop_gradients(problem)
    return with_kernels(problem.student, lambda kernels: kernels.compute_sparse(problem))


def _kernels_of_cpu() -> Kernels:
    if native_is_used():
        return Kernels(tensorflow.compute, tensorflow.compute_sparse, adds_in_place=True)
    return Kernels(reference.compute_checked, reference.compute_sparse_checked, adds_in_place=True)


def _kernels_of_gpu() -> Kernels:
    on_gpu = xla.compute_compiled if gpu_kernel_is_used() else reference.compute_checked
    return Kernels(on_gpu, reference.compute_sparse_checked)


def _kernels_of_xla() -> Kernels:
    # Asked for when one computes, and not before: the answer may be a warning or an error.
    def compute_dense(problem: Problem) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return (xla.compute if xla_is_used() else reference.compute)(problem)

    def compute_sparse(problem: SparseProblem) -> tuple[tf.Tensor, tf.Tensor]:
        return (xla.compute_sparse if cpu_xla_is_used() else reference.compute_sparse)(problem)

    return Kernels(compute_dense, compute_sparse)


def scale(gradient: tf.Tensor, upstream: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`gradient * upstream[..., None]`, cast to the student's dtype."""
    on_cpu = tensorflow.scale if native_is_used() else reference.scale
    args = (tf.stop_gradient(gradient), tf.stop_gradient(upstream), dtype)
    # Inside XLA plain TensorFlow is right: the multiplication is fused with what consumes it.
    return _run_by_device(
        gradient,
        lambda: on_cpu(*args),
        lambda: reference.scale(*args),
        lambda: reference.scale(*args),
    )


def _stop_gradients(problem: Any) -> Any:
    # A persistent tape differentiates the branches of a switch_case while they are built, before
    # custom_gradient replaces their gradient; the operations have none of their own.
    tensors = {
        field.name: tf.stop_gradient(value)
        for field in dataclasses.fields(problem)
        if tf.is_tensor(value := getattr(problem, field.name))
    }
    return dataclasses.replace(problem, **tensors)


def _run_by_device(tensor: tf.Tensor, cpu: Callable, gpu: Callable, compiled: Callable) -> Any:
    if not gradients_are_needed():  # nothing will run: any has the shapes
        return cpu()
    if tf.executing_eagerly():
        return gpu() if "GPU" in tensor.device else cpu()
    place = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
    found = tf.switch_case(place, {0: cpu, 1: gpu}, default=compiled)
    # Differentiating twice takes the gradient of whatever the backward pass reads here, before
    # custom_gradient could report that there is none.
    return tf.nest.map_structure(tf.stop_gradient, found)
