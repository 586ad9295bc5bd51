"""The kernels inside XLA computations (`jit_compile=True`), through XLA's typed FFI.

A StableHLO module that holds one custom call is embedded with TensorFlow's XlaCallModule
operation. Two imports below are not public TensorFlow, because there is no public way to build that
operation. They are the only ones in the package, they are tried once, and without them the
reference computes.

The GPU's kernels (`libkeras_kd_cuda.so`) are reached through XLA only: its FFI passes the stream in
a C interface, which TensorFlow's own interface for operations does not do for CUDA.
"""

import ctypes
import dataclasses
import functools
import json
import os
from typing import Any

import tensorflow as tf

from keras_kd.ops import arguments
from keras_kd.ops.arguments import Problem, SparseProblem
from keras_kd.ops.backends import shared_library, tensorflow

try:
    from tensorflow.compiler.mlir.stablehlo import stablehlo
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops
except ImportError as error:
    _IMPORT_ERROR: str | None = (
        f"TensorFlow {tf.__version__} has no XlaCallModule for Python: {error}"
    )
else:
    _IMPORT_ERROR = None

# The platforms that a module is compiled for; its main function receives the index of one.
_PLATFORMS = ("CPU", "CUDA")
# The oldest StableHLO that every supported TensorFlow reads and that knows api_version 4.
_STABLEHLO_VERSION = "1.3.0"
_CALL_MODULE_VERSION = 9
# Of `libkeras_kd_cuda.so`.
CUDA_ABI_VERSION = 1
_MESSAGE_BYTES = 512
_TYPES = {
    tf.float32: "f32",
    tf.bfloat16: "bf16",
    tf.float16: "f16",
    tf.int32: "i32",
    tf.int64: "i64",
}


@functools.cache
def unavailable() -> str:
    """Why the kernels cannot be used inside XLA; empty if they can."""
    if _IMPORT_ERROR:
        return _IMPORT_ERROR
    # Registering with TensorFlow 2.17's FFI crashes the process.
    if tuple(int(part) for part in tf.__version__.split(".")[:2]) < (2, 18):
        return f"XLA's FFI needs TensorFlow 2.18 or newer, found {tf.__version__}"
    tensorflow.load()
    library = ctypes.CDLL(os.fspath(shared_library.TENSORFLOW_PATH))
    library.keras_kd_register_xla.restype = ctypes.c_char_p
    return library.keras_kd_register_xla().decode()


@functools.cache
def unavailable_on_gpu() -> str:
    """Why the kernels cannot be used inside XLA on a GPU; empty if they can."""
    return unavailable() or cuda_unavailable() or register()


def compute(problem: Problem) -> tuple[tf.Tensor, ...]:
    """`reference.compute` by the kernel, for the branch of a graph that XLA compiles."""
    operands = [problem.student, problem.teacher]
    if problem.labels is not None:
        operands.append(problem.labels)
    operands.append(problem.temperature)
    if problem.labels is not None:
        operands.append(tensorflow.or_ones(problem.hard_weight))
    operands.append(tensorflow.or_ones(problem.soft_weight))
    if problem.labels is not None:
        return _call("keras_kd_hard_and_soft_loss", problem, operands, 2)
    soft, gradient = _call("keras_kd_soft_target_loss", problem, operands, 1)
    return tf.zeros_like(soft), soft, gradient


def compute_sparse(problem: SparseProblem) -> tuple[tf.Tensor, ...]:
    """`reference.compute_sparse` by the kernel, which runs on CPUs only."""
    operands = [problem.student, problem.teacher, problem.indices, problem.tail]
    operands += [problem.temperature, tensorflow.or_ones(problem.soft_weight)]
    return _call("keras_kd_sparse_soft_target_loss", problem, operands, 1)


def compute_compiled(problem: Problem) -> tuple[tf.Tensor, ...]:
    """`reference.compute` by the kernel outside of an XLA computation, in a small one of its own.

    This reaches the GPU's kernels where nothing is compiled with `jit_compile=True`. Compiled once
    per shape.
    """
    tensors = {
        field.name: value
        for field in dataclasses.fields(problem)
        if tf.is_tensor(value := getattr(problem, field.name))
    }
    absent: dict[str, Any] = dict.fromkeys(tensors)
    static = dataclasses.replace(problem, **absent)
    return _compiled(static)(tensors)


@functools.cache
def _compiled(static: Problem) -> Any:
    return tf.function(
        lambda tensors: compute(dataclasses.replace(static, **tensors)), jit_compile=True
    )


def _call(
    name: str, problem: Problem, operands: list[tf.Tensor], losses: int
) -> tuple[tf.Tensor, ...]:
    """Calls the kernel: a tuple of that many losses and the gradient.

    One module for each result, all holding the same custom call, which XLA merges into one (a
    test asserts it). A module with several results would be a tuple, and XLA's constant analysis,
    which runs over the inputs of every If and Case operation after it (loss scaling, gradient
    accumulation), takes a tuple's element for the whole tuple: it logs errors or aborts.
    """
    shape = problem.student.shape.as_list()
    shapes = [shape[:-1]] * losses + [shape if problem.with_gradient else [0]]
    dtypes = [tf.float32] * losses + [problem.gradient_dtype]
    call = CustomCall(
        name,
        tuple(_type(x.dtype, x.shape) for x in operands),
        tuple(_type(dtype, shape) for dtype, shape in zip(dtypes, shapes, strict=True)),
        tuple(len(shape) for shape in shapes),
        f"{{divergence = {arguments.DIVERGENCES[problem.divergence].code} : i32, "
        f"mixing_weight = {problem.mixing_weight:.9e} : f32}}",
    )
    results = []
    for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True)):
        module = stablehlo.serialize_portable_artifact_str(call.module(i), _STABLEHLO_VERSION)
        results += gen_xla_ops.xla_call_module(
            operands,
            version=_CALL_MODULE_VERSION,
            module=module,
            Tout=[dtype],
            Sout=[tf.TensorShape(shape)],
            platforms=list(_PLATFORMS),
            dim_args_spec=[],
            function_list=[],
            has_token_input_output=False,
            disabled_checks=[],
        )
    return tuple(results)


def _type(dtype: tf.DType, shape: Any) -> str:
    dims = "".join(f"{'?' if dim is None else dim}x" for dim in shape)
    return f"tensor<{dims}{_TYPES[dtype]}>"


@dataclasses.dataclass(frozen=True)
class CustomCall:
    """The text of a StableHLO custom call.

    Attributes:
        name: Of the FFI handler.
        inputs: Tensor types; the first is the student's logits.
        outputs: Tensor types.
        ranks: Of the outputs.
        options: The handler's attributes.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ranks: tuple[int, ...]
    options: str

    def module(self, result: int) -> str:
        """A module whose main function returns the result of that index."""
        lines = []
        operands = [(f"%a{i}", kind) for i, kind in enumerate(self.inputs)]
        attributes = [
            "api_version = 4 : i32",
            "has_side_effect = false",
            f"backend_config = {self.options}",
        ]
        if any("?" in kind for kind in self.outputs):
            indices = [str(len(operands) + i) for i in range(len(self.outputs))]
            attributes.append(
                f"indices_of_shape_operands = dense<[{', '.join(indices)}]> : "
                f"tensor<{len(indices)}xi64>"
            )
            shape_lines, shapes = _output_shapes(self.inputs[0], self.outputs, self.ranks)
            lines += shape_lines
            operands += shapes
        names, kinds = zip(*operands, strict=True)
        # The kernels read rows one after the other. Without this XLA on a GPU may hand over the
        # layout of whatever made the logits: a transpose, a convolution with channels first.
        attributes += [
            f"operand_layouts = [{', '.join(map(_row_major, kinds))}]",
            f"result_layouts = [{', '.join(map(_row_major, self.outputs))}]",
        ]
        lines.append(
            f"%r:{len(self.outputs)} = stablehlo.custom_call @{self.name}({', '.join(names)}) "
            f"{{{', '.join(attributes)}}} : ({', '.join(kinds)}) -> ({', '.join(self.outputs)})"
        )
        returned = self.outputs[result]
        lines.append(f"return %r#{result} : {returned}")
        inputs = [f"%a{i}: {kind}" for i, kind in enumerate(self.inputs)]
        parameters = ", ".join(["%platform: tensor<i32>", *inputs])
        body = "\n    ".join(lines)
        return (
            "module @keras_kd attributes {jax.uses_shape_polymorphism = true} {\n"
            f"  func.func public @main({parameters}) -> {returned} {{\n    {body}\n  }}\n}}"
        )


def _row_major(kind: str) -> str:
    """The layout of a tensor type: the last axis first."""
    rank = kind.removeprefix("tensor<").count("x")  # no element type contains an x
    order = "" if rank == 0 else str(list(reversed(range(rank))))
    return f"dense<{order}> : tensor<{rank}xindex>"


def _output_shapes(
    logits: str, outputs: tuple[str, ...], ranks: tuple[int, ...]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Operands that hold each output's shape: leading dimensions of the logits, in int32.

    A custom call must receive the sizes of its outputs that the text leaves open.
    """
    lines = []
    for axis in range(max(ranks)):
        lines += [
            f"%d{axis} = stablehlo.get_dimension_size %a0, dim = {axis} : ({logits}) -> "
            "tensor<i32>",
            f"%n{axis} = stablehlo.reshape %d{axis} : (tensor<i32>) -> tensor<1xi32>",
        ]
    shapes = []
    for i, (kind, rank) in enumerate(zip(outputs, ranks, strict=True)):
        if kind.startswith("tensor<0x") or rank == 0:
            lines.append(f"%s{i} = stablehlo.constant dense<0> : tensor<{rank}xi32>")
        else:
            parts = ", ".join(f"%n{axis}" for axis in range(rank))
            types = ", ".join(["tensor<1xi32>"] * rank)
            lines.append(
                f"%s{i} = stablehlo.concatenate {parts}, dim = 0 : ({types}) -> tensor<{rank}xi32>"
            )
        shapes.append((f"%s{i}", f"tensor<{rank}xi32>"))
    return lines, shapes


# The GPU's kernels: finding `libkeras_kd_cuda.so`, and registering it with XLA.


@functools.cache
def _open() -> ctypes.CDLL:
    """Opens the library; this needs neither a driver nor a GPU."""
    path = shared_library.CUDA_PATH
    if not path.exists():
        raise shared_library.LibraryError(
            f"this installation holds no CUDA kernels ({path.name}): it was built without them. "
            "Remedy: install the x86-64 wheel, or build with the environment variable "
            "KERAS_KD_CUDA=ON where nvcc is."
        )
    try:
        library = ctypes.CDLL(os.fspath(path))
        found = library.keras_kd_cuda_abi_version()
    except (OSError, AttributeError) as error:
        raise shared_library.LibraryError(f"{path.name} cannot be used: {error}") from error
    if found != CUDA_ABI_VERSION:
        raise shared_library.LibraryError(
            f"{path.name} speaks interface version {found}; expected {CUDA_ABI_VERSION}. "
            f"{shared_library.REMEDY}"
        )
    library.keras_kd_cuda_build_info.restype = ctypes.c_char_p
    return library


def build_info() -> dict[str, Any]:
    """What the CUDA library was built with.

    Returns:
        A dict: `version`, `cuda` (the version of its runtime), `architectures` (a list such as
        `["sm_90", "compute_90"]`, the latter PTX).

    Raises:
        LibraryError: There is no library, or it cannot be opened.
    """
    info = json.loads(_open().keras_kd_cuda_build_info())
    return {**info, "architectures": info["architectures"].split()}


@functools.cache
def cuda_unavailable() -> str:
    """Why the kernels cannot run on a GPU of this machine; empty if they can."""
    try:
        library = _open()
    except shared_library.LibraryError as error:
        return str(error)
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    if library.keras_kd_cuda_check(message, ctypes.c_int64(_MESSAGE_BYTES)):
        return message.value.decode()
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA. Remedy: install tensorflow[and-cuda]."
    return ""


@functools.cache
def register() -> str:
    """Registers the CUDA kernels with XLA; returns why that failed, or an empty string."""
    library = _open()
    bridge = ctypes.CDLL(os.fspath(shared_library.TENSORFLOW_PATH))
    bridge.keras_kd_register_xla_cuda.restype = ctypes.c_char_p
    functions = [
        ctypes.cast(getattr(library, name), ctypes.c_void_p)
        for name in ("keras_kd_cuda_losses", "keras_kd_cuda_workspace")
    ]
    return bridge.keras_kd_register_xla_cuda(*functions).decode()
