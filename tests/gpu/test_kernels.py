"""The CUDA kernels on a real GPU: the cases that the simulator of PTX runs elsewhere."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.cuda.kernel_device import DIVERGENCES, DTYPES
from tests.cuda.value_cases import CLASSES, check

pytestmark = pytest.mark.gpu


@pytest.fixture
def device():
    from tests.cuda.driver import CudaDevice

    return CudaDevice()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("student", DTYPES)
@pytest.mark.parametrize("teacher", DTYPES)
def test_values(device, teacher, student, classes):
    for i, divergence in enumerate(DIVERGENCES):
        hard = (i + classes) % 2 == 0
        check(device, classes, student, teacher, divergence, hard, 1.0 if classes % 2 else 4.0)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("classes", [10, 100, 1000, 1100])
def test_odd_addresses(device, classes, offset, divergence):
    check(device, classes, "float32", "float32", divergence, True, 2.0, offset=offset)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("classes", [10, 300, 5001, 32003])
def test_gradient_from_statistics(device, classes, divergence):
    check(device, classes, "float32", "float32", divergence, True, 2.0, from_statistics=True)


@pytest.mark.parametrize("classes", [10, 1000, 8000, 131072])
def test_every_run_gives_the_same_bits(classes):
    import numpy as np

    from tests.cuda.driver import CudaDevice

    logits = np.random.default_rng(0).normal(size=(2, 3, classes)).astype("float32")
    first, second = (CudaDevice().run(*logits, temperature=2.0) for _ in range(2))
    assert first[1].tobytes() == second[1].tobytes()
    assert first[2].tobytes() == second[2].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer(tool):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer was not found")
    if os.environ.get("KERAS_KD_UNDER_SANITIZER"):
        pytest.skip("this is the run that it watches")
    cases = ["test_odd_addresses", "test_gradient_from_statistics"]
    tests = [f"{__file__}::{name}" for name in cases]
    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable]
        + ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        check=False,
        env={**os.environ, "KERAS_KD_UNDER_SANITIZER": "1"},
        capture_output=True,
        text=True,
    )
    output = done.stdout[-4000:] + done.stderr[-2000:]
    assert done.returncode == 0, output
    assert "passed" in done.stdout, output
    assert "skipped" not in done.stdout, output
