"""Losses and gradients of nvcc's PTX, run by the simulator, against the float64 truth.

The simulator watches every access and barrier, and makes each approximate exponential and
logarithm wrong by up to 2 units in the last place, as a GPU may. `make test-cuda` runs this; it
takes minutes, so it is not among the tests that pytest finds by itself.
"""

import pytest

from tests.cuda import ptx_device
from tests.cuda.kernel_device import DIVERGENCES, DTYPES
from tests.cuda.ptx_device import PtxDevice
from tests.cuda.value_cases import CLASSES, check

ARCHITECTURES = [75, 80, 90]
NOISE_ULP = 2

pytestmark = pytest.mark.skipif(bool(ptx_device.missing()), reason=ptx_device.missing() or "-")


def grouped(architecture, student):
    """A case that shares a process with its like: each process compiles and translates kernels."""
    group = pytest.mark.xdist_group(f"{architecture} {student}")
    return pytest.param(architecture, student, marks=group)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(
    ("architecture", "student"), [grouped(a, s) for a in ARCHITECTURES for s in DTYPES]
)
def test_values(architecture, student, classes):
    """Every kernel, pair of types and divergence; hard losses in every other case."""
    for i, teacher in enumerate(DTYPES):
        for j, divergence in enumerate(DIVERGENCES):
            hard = (i + j + classes) % 2 == 0
            temperature = 1.0 if classes % 2 else 4.0
            # 131072 classes are split over blocks, and streamed where they are not.
            device = PtxDevice(architecture, processors=8 if i else 1, noise_ulp=NOISE_ULP)
            check(device, classes, student, teacher, divergence, hard, temperature)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("classes", [10, 100, 1000, 1100])
@pytest.mark.xdist_group("80 float32")
def test_odd_addresses(classes, offset, divergence):
    device = PtxDevice(80, noise_ulp=NOISE_ULP)
    check(device, classes, "float32", "float32", divergence, True, 2.0, offset=offset)


@pytest.mark.parametrize(
    "student",
    [pytest.param(s, marks=pytest.mark.xdist_group(f"80 {s}")) for s in DTYPES],
)
def test_every_kernel(student):
    """Those that the cases above leave out: streamed, split, and from saved statistics."""
    device = PtxDevice(80, noise_ulp=NOISE_ULP)
    plenty, little = 227 << 10, 4096
    for divergence in DIVERGENCES:
        for classes, hard, limits in [
            (10, True, (1, plenty)),
            (100, False, (1, plenty)),
            (1100, True, (1, plenty)),
            (1100, True, (1, little)),
            (5001, False, (16, plenty)),
        ]:
            device.limits = limits
            for from_statistics in (False, True):
                options = {"from_statistics": from_statistics}
                check(device, classes, student, "float32", divergence, hard, 2.0, **options)
    assert set(device.launched) == set(ptx_device.kernels(80, student))
