"""`ops.numpy`: arrays that lie in every way, wrong ones, and threads, through both bindings.

`test_native_numpy.py` and `test_sparse_values.py` hold the numbers against float64. A call of the
fixture `native` compares both bindings, to the bit and to the letter.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from tests import logits, reference, tolerances
from tests.ops import sparse_checks

ROWS, CLASSES = 6, 33


def _packed(array):
    """The array's values in a packed record: no element starts at a multiple of its size."""
    record = np.dtype([("flag", "u1"), ("values", array.dtype, array.shape[1:])])
    records = np.zeros(len(array), record)
    records["values"] = array
    return records["values"]


def _off_by_a_byte(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    moved = buffer[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def _read_only(array):
    frozen = array.copy()
    frozen.setflags(write=False)
    return frozen


class Subclass(np.ndarray):
    pass


LAYOUTS = {
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "every other": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "transposed": lambda x: x.T.copy().T,
    "read-only": _read_only,
    "packed": _packed,
    "off by a byte": _off_by_a_byte,
    "a broadcast row": lambda x: np.broadcast_to(x[0], x.shape),
    "a subclass": lambda x: x.view(Subclass),
    "masked": lambda x: np.ma.masked_array(x, x > 0),
}


@pytest.mark.parametrize("dtype", list(logits.FLOAT_DTYPES))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(native, layout, dtype):
    student, teacher, indices, tail = sparse_checks.case(ROWS, CLASSES, 5, dtypes=(dtype, dtype))
    whole_teacher = logits.near_teacher(ROWS, CLASSES, dtypes=(dtype, dtype))[1]
    moved = [LAYOUTS[layout](x) for x in (student, teacher, indices, whole_teacher)]
    plain = [np.ascontiguousarray(x) for x in moved]
    assert plain[0].tobytes() == np.asarray(moved[0]).tobytes()
    for left, right in (
        (
            native.soft_target_loss(moved[0], moved[3], 2.0, gradient=True),
            native.soft_target_loss(plain[0], plain[3], 2.0, gradient=True),
        ),
        (
            native.hard_and_soft_loss(moved[0], moved[3], moved[2][:, 0], gradient=True),
            native.hard_and_soft_loss(plain[0], plain[3], plain[2][:, 0].copy(), gradient=True),
        ),
        (
            native.sparse_soft_target_loss(moved[0], moved[1], moved[2], tail, gradient=True),
            native.sparse_soft_target_loss(plain[0], plain[1], plain[2], tail, gradient=True),
        ),
    ):
        for found, expected in zip(left, right, strict=True):
            assert type(found) is np.ndarray
            assert found.tobytes() == expected.tobytes()


def test_the_other_byte_order(native):
    student, teacher, indices, tail = sparse_checks.case(ROWS, CLASSES, 5)
    swapped = [x.astype(x.dtype.newbyteorder("S")) for x in (student, teacher, indices, tail)]
    found = native.sparse_soft_target_loss(*swapped, gradient=True)
    expected = native.sparse_soft_target_loss(student, teacher, indices, tail, gradient=True)
    assert found[1].dtype.isnative
    for left, right in zip(found, expected, strict=True):
        assert left.tobytes() == right.tobytes()
    loss = native.soft_target_loss(
        student, student[::-1], sample_weight=np.arange(6, dtype=">f4").astype(">f8")
    )
    plain = native.soft_target_loss(student, student[::-1], sample_weight=np.arange(6.0))
    assert loss.tobytes() == plain.tobytes()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 0), (2, 0)], ids=str)
def test_no_elements(native, shape):
    student = np.zeros(shape, np.float32)
    labels = np.zeros(shape[:-1], np.int64)
    if shape == (2, 0):
        with pytest.raises(ValueError, match="Expected at least one class"):
            native.soft_target_loss(student, student)
        return
    loss, gradient = native.soft_target_loss(student, student, gradient=True)
    assert loss.shape == shape[:-1]
    assert gradient.shape == shape
    hard, soft = native.hard_and_soft_loss(student, student, labels)
    assert hard.shape == soft.shape == shape[:-1]
    sparse = native.sparse_soft_target_loss(
        student, student[..., :1], np.zeros((*shape[:-1], min(shape[-1], 1)), int), labels
    )
    assert sparse.shape == shape[:-1]


def test_one_row_alone_stays_an_array(native):
    student, teacher = (x[0] for x in logits.near_teacher(2, 10))
    for weight in (None, 2.0, np.float32(0.0)):
        loss, gradient = native.soft_target_loss(
            student, teacher, sample_weight=weight, gradient=True
        )
        assert isinstance(loss, np.ndarray)
        assert loss.shape == ()
        assert gradient.shape == (10,)
    hard, _ = native.hard_and_soft_loss(student, teacher, 3)
    np.testing.assert_allclose(hard, reference.hard_loss(student, np.array(3)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_weights_are_broadcast(native, shape, dtype):
    student, teacher = (x.reshape(3, 4, 10) for x in logits.near_teacher(12, 10))
    weight = np.resize([0, 1, 2.5], shape).astype(dtype)
    loss, gradient = native.soft_target_loss(student, teacher, sample_weight=weight, gradient=True)
    whole = np.broadcast_to(weight.astype(np.float64), (3, 4))
    tolerances.assert_loss(loss, whole * reference.soft_target_loss(student, teacher))
    slope = whole[..., None] * reference.soft_target_gradient(student, teacher)
    tolerances.assert_gradient(gradient, slope, student, teacher, size=np.maximum(whole, 1))
    labels = np.zeros((3, 4), np.int16)
    native.hard_and_soft_loss(
        student, teacher, labels, hard_weight=weight, soft_weight=weight.tolist(), gradient=True
    )


def test_rows_that_hold_no_distribution(native):
    student, teacher = logits.near_teacher(6, 10)
    student[0], student[1, 3], teacher[2], teacher[3, 1] = np.nan, np.inf, -np.inf, -np.inf
    for divergence in reference.DIVERGENCES:
        loss = native.soft_target_loss(student, teacher, 2.0, divergence, gradient=True)[0]
        assert np.isnan(loss).tolist() == [True, True, True, False, False, False]
    weighted = native.soft_target_loss(student, teacher, sample_weight=[0, 1, 0, 1, 1, np.inf])
    assert np.isnan(weighted).tolist() == [False, True, False, False, False, False]


def test_what_numpy_can_read(native):
    student, teacher = logits.near_teacher(3, 4)
    expected = native.soft_target_loss(student, teacher)

    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.array(self.values, dtype=dtype)

    given = (Tensor(student), Tensor(teacher), np.int8(1))
    found = native.soft_target_loss(*given, mixing_weight=True)
    assert found.tobytes() == expected.tobytes()


VALUES = np.zeros((4, 10), np.float32)
KEPT = np.tile(np.arange(3), (4, 1))
WRONG = {
    "float64": ("soft", (VALUES.astype(np.float64), VALUES), {}, "`student`.*Received: float64"),
    "integers": ("soft", (VALUES, VALUES.astype(int)), {}, "`teacher`.*Received: int64"),
    "float8": ("soft", (VALUES.astype(ml_dtypes.float8_e4m3), VALUES), {}, "Received: float8_e4m3"),
    "text": ("soft", ("logits", VALUES), {}, "`student`.*Received: str"),
    "nothing": ("soft", (None, VALUES), {}, "`student`.*Received: object"),
    "ragged": ("soft", ([[1.0], [1.0, 2.0]], VALUES), {}, "inhomogeneous"),
    "scalar": ("soft", (np.float32(1), VALUES), {}, "`student` must have at least one dimension"),
    "shapes": ("soft", (VALUES, VALUES[:3]), {}, r"Received: \(4, 10\) and \(3, 10\)"),
    "ranks": ("soft", (VALUES, VALUES[0]), {}, r"Received: \(4, 10\) and \(10,\)"),
    "zero temperature": ("soft", (VALUES, VALUES, 0), {}, "temperature=0.0"),
    "infinite temperature": ("soft", (VALUES, VALUES, 1e300), {}, "temperature=inf"),
    "NaN temperature": ("soft", (VALUES, VALUES, np.nan), {}, "temperature=nan"),
    "temperature in words": ("soft", (VALUES, VALUES, "4"), {}, "number.*temperature='4'"),
    "temperatures": ("soft", (VALUES, VALUES, np.ones(2)), {}, "number.*temperature=array"),
    "huge temperature": ("soft", (VALUES, VALUES, 10**400), {}, "too large"),
    "divergence": ("soft", (VALUES, VALUES, 1.0, "kl"), {}, "'jsd'.. Received: divergence=kl"),
    "divergences": ("soft", (VALUES, VALUES, 1.0, ["jsd"]), {}, "Received: divergence=..jsd"),
    "mixing": ("soft", (VALUES, VALUES, 1.0, "jsd", 1.0), {}, "mixing_weight=1.0"),
    "mixing in words": ("soft", (VALUES, VALUES, 1.0, "jsd", "half"), {}, "mixing_weight='half'"),
    "truth of an array": ("soft", (VALUES, VALUES), {"gradient": np.ones(2)}, "ambiguous"),
    "weights": (
        *("soft", (VALUES, VALUES), {"sample_weight": np.ones(3)}),
        r"`sample_weight` must broadcast to shape \(4,\). Received: shape \(3,\)",
    ),
    "weights of too many dimensions": (
        *("soft", (VALUES, VALUES), {"sample_weight": np.ones((1, 4))}),
        r"`sample_weight` must broadcast to shape \(4,\). Received: shape \(1, 4\)",
    ),
    "weights in words": ("soft", (VALUES, VALUES), {"sample_weight": "one"}, "could not convert"),
    "labels of the wrong shape": (
        *("both", (VALUES, VALUES, [1, 2]), {}),
        r"`labels` must have shape \(4,\). Received: shape \(2,\)",
    ),
    "no labels": ("both", (VALUES, VALUES, None), {}, "`labels`.*integers. Received: object"),
    "labels in float": ("both", (VALUES, VALUES, np.ones(4)), {}, "`labels`.*Received: float64"),
    "labels in bool": ("both", (VALUES, VALUES, np.ones(4, bool)), {}, "`labels`.*Received: bool"),
    "a label too many": ("both", (VALUES, VALUES, [0, 1, 2, 10]), {}, "Label 10 at row 3"),
    "hard weights": (
        *("both", (VALUES, VALUES, [0] * 4), {"hard_weight": [1, 2]}),
        "`hard_weight` must broadcast",
    ),
    "soft weights": (
        *("both", (VALUES, VALUES, [0] * 4), {"soft_weight": [1, 2]}),
        "`soft_weight` must broadcast",
    ),
    "rows of a sparse teacher": (
        *("sparse", (VALUES, VALUES[:3, :3], KEPT, [0] * 4), {}),
        r"but for the classes. Received: \(4, 10\) and \(3, 3\)",
    ),
    "indices": (
        *("sparse", (VALUES, VALUES[:, :3], KEPT[:, :2], [0] * 4), {}),
        r"`indices` must have shape \(4, 3\). Received: shape \(4, 2\)",
    ),
    "indices in float": (
        *("sparse", (VALUES, VALUES[:, :3], KEPT * 1.0, [0] * 4), {}),
        "`indices`.*Received: float64",
    ),
    "an index twice": (
        *("sparse", (VALUES, VALUES[:, :3], KEPT * 0, [0] * 4), {}),
        "Index 0 at row 0 is there twice",
    ),
    "tail": (
        *("sparse", (VALUES, VALUES[:, :3], KEPT, [0] * 3), {}),
        r"`tail` must have shape \(4,\). Received: shape \(3,\)",
    ),
    "too many kept": (
        *("sparse", (VALUES[:, :2], VALUES[:, :3], KEPT, [0] * 4), {}),
        "at most 2 classes",
    ),
}
FUNCTIONS = {
    "soft": "soft_target_loss",
    "both": "hard_and_soft_loss",
    "sparse": "sparse_soft_target_loss",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(native, name):
    function, args, kwargs, message = WRONG[name]
    with pytest.raises((ValueError, OverflowError), match=f"(?s){message}"):
        getattr(native, FUNCTIONS[function])(*args, **kwargs)


def test_threads_at_once(native):
    """16 of them, each with its own problem, on the kernels' one pool of threads."""
    problems = [sparse_checks.case(200 + i, 100 + i, 7, seed=i) for i in range(16)]
    expected = [native.sparse_soft_target_loss(*each, 2.0, gradient=True) for each in problems]
    together = threading.Barrier(16)

    def run(problem):
        together.wait()
        return [native.sparse_soft_target_loss(*problem, 2.0, gradient=True) for _ in range(5)]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(run, problems))
    for results, (loss, gradient) in zip(found, expected, strict=True):
        for result in results:
            assert result[0].tobytes() == loss.tobytes()
            assert result[1].tobytes() == gradient.tobytes()


def test_python_runs_during_a_call(binding):
    """Where no thread is ever interrupted, another one runs only when the call lets it."""
    student, teacher = logits.near_teacher(200, 1000)
    may_run, calls, calls_when_python_ran = threading.Lock(), [], []

    def compute():
        may_run.release()
        # One call may be over before the other thread has woken up; many are not.
        while len(calls) < 2000 and not calls_when_python_ran:
            binding.soft_target_loss(student, teacher, gradient=True)
            calls.append(None)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        may_run.acquire()
        worker = threading.Thread(target=compute)
        worker.start()
        may_run.acquire()
        calls_when_python_ran.append(len(calls))
        worker.join()
    finally:
        sys.setswitchinterval(before)
    assert calls_when_python_ran[0] < 2000
