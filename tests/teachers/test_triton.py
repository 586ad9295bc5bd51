"""triton, which PyTorch's CUDA builds bring, lives beside TensorFlow once keras_kd is imported.

Each order of imports has a process of its own; one that crashes fails its test with its exit code.
"""

import importlib.util
import json
import shutil
import subprocess

import numpy as np
import pytest

from keras_kd.cli import doctor
from tests import extras, fresh_process

pytestmark = pytest.mark.in_turn(4)

TIMEOUT = 300


def run(*arguments, **changes):
    # PyTorch, triton and transformers warn of what is none of ours.
    env = fresh_process.environment(PYTHONWARNINGS="ignore", **changes)
    return fresh_process.run(["-Wignore", *arguments], env, TIMEOUT)


# Once all is imported, XLA (by LLVM) computes and triton's library answers.
USES = """
import tensorflow as tf
import triton

assert triton._C.libtriton.ir
twice = tf.function(lambda x: x + tf.nn.softmax(x), jit_compile=True)
assert abs(float(twice(tf.zeros(2))[0]) - 0.5) < 1e-6
"""


@pytest.mark.parametrize(
    "order",
    [
        "keras_kd triton",
        "tensorflow keras_kd triton",
        "triton keras_kd",
        "triton tensorflow keras_kd",
        "torch tensorflow keras_kd torch._dynamo",
        "torch._dynamo keras_kd",
    ],
)
def test_import_orders_do_not_crash(order):
    extras.require_in_a_process("triton", *(["torch"] if "torch" in order else []))
    run("-c", "".join(f"import {module}\n" for module in order.split()) + USES)


@pytest.mark.parametrize(
    "order",
    [
        "keras_kd transformers:BertModel",
        "tensorflow transformers keras_kd torch transformers:BertModel",
    ],
)
def test_bert_beside_keras_kd(order):
    """The order that is left, of PyTorch first, is the next test's."""
    extras.require_in_a_process("torch", "transformers")
    run("-m", "tests.teachers.hugging_face", "bert", *order.split())


@pytest.mark.slow
def test_bert_teaches_living_and_cached(tmp_path):
    extras.require_in_a_process("torch", "transformers")
    result = tmp_path / "histories.json"
    order = ["transformers:BertModel", "keras_kd"]
    printed = run("-m", "tests.teachers.hugging_face", "teach", *order, result, tmp_path / "cache")
    assert "AutoGraph could not transform" not in printed
    living, cached = json.loads(result.read_text())
    assert living[-1] < 0.7 * living[0]
    np.testing.assert_allclose(cached, living, rtol=1e-4)


COMPILES = """
import hashlib, json, sys

if sys.argv[1] == "beside":
    import keras_kd

import triton
from triton import language as tl
from triton.backends.compiler import GPUTarget


@triton.jit
def kernel(x, y, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    a = tl.reshape(tl.load(x + i, mask=i < n, other=0.0), (32, 32))
    tl.store(y + i, tl.exp(tl.reshape(tl.dot(a, a), (B,))), mask=i < n)


source = triton.compiler.ASTSource(
    kernel, {"x": "*fp32", "y": "*fp32", "n": "i32", "B": "constexpr"}, {"B": 1024}
)
compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
digests = {}
for stage in ("ttgir", "llir", "ptx"):
    digests[stage] = hashlib.sha256(compiled.asm[stage].encode()).hexdigest()
print(json.dumps(digests))
"""


def test_triton_compiles_as_it_does_alone(tmp_path):
    extras.require_in_a_process("triton")
    program = tmp_path / "compiles.py"
    program.write_text(COMPILES)
    alone, beside = (
        json.loads(run(program, how, TRITON_CACHE_DIR=str(tmp_path / how)).splitlines()[-1])
        for how in ("alone", "beside")
    )
    assert alone == beside


@pytest.fixture
def allocator(tmp_path):
    """A library whose malloc is not libc's, as jemalloc's and tcmalloc's are not."""
    extras.require_in_a_process("triton", "torch")
    compiler = shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no compiler")
    source, library = tmp_path / "allocator.c", tmp_path / "liballocator.so"
    source.write_text(
        'extern "C" void *__libc_malloc(unsigned long size);\n'
        'extern "C" void *malloc(unsigned long size) { return __libc_malloc(size); }\n'
    )
    command = [compiler, "-x", "c++", "-shared", "-fPIC", source, "-o", library]
    subprocess.run(command, check=True)
    return str(library)


def test_replaced_malloc_refuses_triton_only(allocator):
    program = (
        "import keras_kd, torch\n"
        "from torch.utils import _triton\n"
        "assert not _triton.has_triton_package()\n"
        "try:\n    import triton\n"
        "except ImportError as error:\n    print(error)\n"
    )
    message = run("-c", program, LD_PRELOAD=allocator)
    assert "triton cannot be loaded after TensorFlow in this process" in message
    assert f"(LD_PRELOAD={allocator!r})" in message
    # The remedy of the message.
    run("-c", "import triton, tensorflow, keras_kd\n" + USES, LD_PRELOAD=allocator)


def test_doctor_tells_of_triton(monkeypatch):
    facts = doctor.report()["torch"]
    if importlib.util.find_spec("triton") is not None:
        assert facts["triton"][0].isdigit()
        assert facts["triton_after_tensorflow"] == "works once keras_kd is imported"
        assert "Import keras_kd or triton before" in facts["before_keras_kd"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert doctor.report()["torch"] == {"torch": "not installed", "triton": "not installed"}
