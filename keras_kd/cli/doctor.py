"""`python -m keras_kd doctor`: what is installed, what is used, what is not and why."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import ops, version
from keras_kd._utils import triton
from keras_kd.ops.backends import ctypes, extension, shared_library

VARIABLES = (
    "KERAS_KD_KERNEL",
    "KERAS_KD_GPU",
    "KERAS_KD_ISA",
    "KERAS_KD_NUM_THREADS",
    "KERAS_KD_BINDING",
    "KERAS_BACKEND",
    "TF_XLA_FLAGS",
)


def report() -> dict[str, Any]:
    """Gathers the facts.

    Returns:
        A dict of dicts, one for each section of the printed report; JSON can hold it.
    """
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    try:
        found = {"kernel": _kernel(), "numpy": _numpy(), "xla": _xla(), "gpu": _gpu()}
    except ValueError as error:  # of a variable: the operations raise the same
        kernel = {"used": "none", "choice": "none", "error": str(error)}
        found = {"kernel": kernel, "numpy": {}, "xla": {}, "gpu": {}}
    return {"versions": _versions(), **found, "torch": _torch(), "environment": environment}


def _versions():
    return {
        **version.installed(),
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
    }


def _kernel():
    status = ops.kernel_status()
    kernel = {
        "used": "native" if status["native"] else "tensorflow",
        "choice": status["choice"],
        "library": shared_library.CORE_PATH.name,
    }
    if status["native_error"]:
        kernel["why_not_native"] = status["native_error"]
        return kernel
    if not status["native"]:
        kernel["why_not_native"] = "plain TensorFlow was chosen"
    kernel["instruction_set"] = status["instruction_set"]
    kernel["instruction_sets_this_processor_runs"] = status["instruction_sets"]
    kernel["threads"] = status["threads"]
    kernel["build"] = status["build"]
    kernel["self_test"] = _self_test()
    return kernel


def _numpy():
    """How `keras_kd.ops.numpy` reaches the kernels, and why not through the module."""
    section = {"binding": "none", "module": extension.file_name() or "none"}
    try:
        section["binding"] = ops.numpy.binding()
    except shared_library.LibraryError as error:
        section["why_none"] = str(error)
        return section
    if section["binding"] == "ctypes":
        section["why_not_pybind11"] = extension.unavailable() or "ctypes was chosen"
    return section


def _self_test():
    """A small loss and gradient, through each binding, against NumPy in float64."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 100)).astype("float32")
    p, q = (np.exp(x / 4.0) for x in (teacher.astype("float64"), student.astype("float64")))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    right = True
    for each in (ctypes, *([] if extension.unavailable() else [extension.load()])):
        loss, gradient = each.soft_target_loss(student, teacher, 4.0, gradient=True)
        right &= np.allclose(loss, 16 * (p * np.log(p / q)).sum(-1), rtol=1e-5)
        right &= np.allclose(gradient, 4 * (q - p), atol=1e-6)
    return "passed" if right else "FAILED: the kernel's numbers are wrong on this machine"


def _xla():
    status = ops.kernel_status()
    section = {"used_inside_jit_compile": "native" if status["xla"] else "tensorflow"}
    if status["xla_error"]:
        section["why_not_native"] = status["xla_error"]
    return section


def _gpu():
    devices = [device.name for device in tf.config.list_physical_devices("GPU")]
    built = tf.sysconfig.get_build_info()
    status = ops.kernel_status()
    section = {
        "devices": devices,
        "tensorflow_built_with_cuda": bool(built.get("is_cuda_build", False)),
        "kernel": "tensorflow" if devices else "none: no GPU is visible to TensorFlow",
    }
    if devices and status["xla"]:
        section["kernel"] = "native inside jit_compile=True"
        outside = {"xla": "native, by XLA", "tensorflow": "tensorflow"}
        section["outside_jit_compile"] = outside[status["gpu_choice"]]
    if status["cuda_error"]:
        section["why_not_native"] = status["cuda_error"]
    if "cuda_build" in status:
        section["library"] = status["cuda_build"]
    return section


def _torch():
    section = {name: _installed(name) for name in ("torch", "triton")}
    if section["triton"] == "not installed":
        return section
    section["triton_after_tensorflow"] = triton.status()
    section["before_keras_kd"] = (
        "a process that imports tensorflow first and then, without keras_kd, triton, torch._dynamo "
        "or a model of transformers may die (segmentation fault). Import keras_kd or triton before "
        "them"
    )
    return section


def _installed(name):
    """The version of a package, which is not imported for it."""
    if importlib.util.find_spec(name) is None:
        return "not installed"
    distributions = importlib.metadata.packages_distributions().get(name)
    return importlib.metadata.version(distributions[0]) if distributions else "installed"


def _lines(section, indent):
    for key, value in section.items():
        label = key if key in VARIABLES else key.replace("_", " ")
        if isinstance(value, dict):
            yield f"{indent}{label}:"
            yield from _lines(value, indent + "  ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{indent}{label + ':':<28} {text or '-'}"


def run(as_json: bool = False) -> int:
    """Prints the report and returns the exit status."""
    facts = report()
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, section in facts.items():
            print(f"{name}")
            print("\n".join(_lines(section, "  ")) or "  -")
    kernel = facts["kernel"]
    failed = str(kernel.get("self_test", "")).startswith("FAILED")
    missing = kernel["choice"] == "native" and kernel["used"] != "native"
    if "error" in kernel:
        print("An environment variable has no such value; see above.", file=sys.stderr)
        return 1
    if failed or missing:
        print("The fused kernel cannot be used; see above.", file=sys.stderr)
        return 1
    if facts["numpy"]["binding"] == "none" and os.environ.get(ops.numpy.VARIABLE, "auto") != "auto":
        print(f"What {ops.numpy.VARIABLE} names cannot be used; see above.", file=sys.stderr)
        return 1
    return 0
