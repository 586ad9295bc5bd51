"""`ops.backends.ctypes`: each instruction set on NumPy arrays against float64, however they lie."""

import numpy as np
import pytest

from tests import conftest, logits, reference, tolerances

# N - 1, N and N + 1 of the vectors of 4, 8 and 16, of the block of 64, and odd sizes between.
CLASSES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 129, 252, 1001]


def _check(native, student, teacher, divergence, temperature=2.0, weight=0.5):
    loss, gradient = native.soft_target_loss(
        student, teacher, temperature, divergence, weight, gradient=True
    )
    expected = reference.soft_target_loss(student, teacher, temperature, divergence, weight)
    slope = reference.soft_target_gradient(student, teacher, temperature, divergence, weight)
    assert loss.dtype == np.float32
    assert gradient.dtype == student.dtype
    tolerances.assert_loss(loss, expected, temperature)
    tolerances.assert_gradient(gradient, slope, student, teacher, temperature)


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
@pytest.mark.parametrize("pair", logits.DTYPE_PAIRS, ids="-".join)
def test_values(native, instruction_set, pair, divergence):
    for classes in CLASSES:
        student, teacher = logits.near_teacher(37, classes, 2.0, dtypes=pair)
        _check(native, student, teacher, divergence, weight=0.3)


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
def test_large_rows(native, instruction_set, divergence):
    for classes in (32003, 131072):
        _check(native, *logits.near_teacher(4, classes, 2.0), divergence)


@pytest.mark.parametrize("rows", [1, 3, 15, 16, 17, 33, 160])
def test_row_counts(native, instruction_set, rows):
    for classes in (10, 150):
        _check(native, *logits.near_teacher(rows, classes, 2.0), "forward_kl")


def test_loss_alone_is_the_same_loss(native, instruction_set):
    for classes in (10, 1001):
        student, teacher = logits.near_teacher(37, classes)
        for divergence in reference.DIVERGENCES:
            alone = native.soft_target_loss(student, teacher, 2.0, divergence)
            loss, _ = native.soft_target_loss(student, teacher, 2.0, divergence, gradient=True)
            np.testing.assert_allclose(alone, loss, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", list(logits.FLOAT_DTYPES))
@pytest.mark.parametrize("classes", [10, 33, 1001])
def test_misaligned_arrays(native, instruction_set, dtype, classes):
    """One element off any vector's alignment, the student by another offset than the teacher."""
    student, teacher = logits.near_teacher(20, classes, dtypes=(dtype, dtype))
    expected = native.soft_target_loss(student, teacher, gradient=True)
    for offsets in ((1, 0), (0, 1), (1, 3), (5, 2)):
        moved = [
            _at_offset(array, offset)
            for array, offset in zip((student, teacher), offsets, strict=True)
        ]
        actual = native.soft_target_loss(*moved, gradient=True)
        for left, right in zip(actual, expected, strict=True):
            assert left.tobytes() == right.tobytes()


def _at_offset(array, offset):
    """A contiguous copy that starts `offset` elements after its buffer."""
    buffer = np.empty(array.size + offset, array.dtype)
    moved = buffer[offset:].reshape(array.shape)
    moved[...] = array
    return moved


def test_arrays_that_are_not_contiguous(native):
    student, teacher = logits.near_teacher(20, 33)
    expected = native.soft_target_loss(student, teacher, gradient=True)
    spaced = np.zeros((40, 66), np.float32)
    spaced[::2, ::2] = student
    views = [
        (spaced[::2, ::2], teacher),
        (np.asfortranarray(student), teacher[::-1].copy()[::-1]),
        (student[:, ::-1].copy()[:, ::-1], np.asfortranarray(teacher)),
    ]
    for left, right in views:
        assert not (left.flags.c_contiguous and right.flags.c_contiguous)
        loss, gradient = native.soft_target_loss(left, right, gradient=True)
        np.testing.assert_array_equal(loss, expected[0])
        np.testing.assert_array_equal(gradient, expected[1])


def test_inputs_are_left_alone(native):
    student, teacher = logits.near_teacher(20, 33)
    before = student.copy(), teacher.copy()
    native.soft_target_loss(student, teacher, gradient=True)
    native.hard_and_soft_loss(student, teacher, np.zeros(20, np.int32), gradient=True)
    np.testing.assert_array_equal(student, before[0])
    np.testing.assert_array_equal(teacher, before[1])


@pytest.mark.parametrize("shape", [(0, 10), (5,), (2, 3, 7)], ids=str)
def test_shapes(native, shape):
    rows = int(np.prod(shape[:-1]))
    student, teacher = (x.reshape(shape) for x in logits.far_apart(rows, shape[-1]))
    loss, gradient = native.soft_target_loss(student, teacher, gradient=True)
    assert loss.shape == shape[:-1]
    assert gradient.shape == shape
    tolerances.assert_loss(loss, reference.soft_target_loss(student, teacher))


def test_sample_weight(native, instruction_set):
    for classes in (10, 150):
        student, teacher = logits.near_teacher(37, classes)
        loss, gradient = native.soft_target_loss(student, teacher, gradient=True)
        weight = np.linspace(0.5, 2.0, 37, dtype=np.float32)
        weight[[0, 20]] = 0.0
        student[[0, 20]] = np.nan
        weighted, slope = native.soft_target_loss(
            student, teacher, sample_weight=weight, gradient=True
        )
        np.testing.assert_allclose(weighted, weight * loss, rtol=1e-6)
        np.testing.assert_allclose(slope, weight[:, None] * gradient, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
@pytest.mark.parametrize("pair", logits.DTYPE_PAIRS, ids="-".join)
def test_hard_and_soft(native, instruction_set, pair, divergence):
    for classes in (1, 10, 33, 65, 1001):
        student, teacher = logits.near_teacher(20, classes, 2.0, dtypes=pair)
        labels = np.random.default_rng(0).integers(0, classes, 20)
        hard_weight, soft_weight = np.linspace(-1.1, 2, 40, dtype=np.float32).reshape(2, 20)
        hard, soft, gradient = native.hard_and_soft_loss(
            student,
            teacher,
            labels,
            2.0,
            divergence,
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            gradient=True,
        )
        np.testing.assert_allclose(hard, reference.hard_loss(student, labels), rtol=2e-6, atol=2e-6)
        tolerances.assert_loss(
            soft, reference.soft_target_loss(student, teacher, 2.0, divergence), 2.0
        )
        slope = hard_weight[:, None] * reference.hard_gradient(student, labels)
        slope += soft_weight[:, None] * reference.soft_target_gradient(
            student, teacher, 2.0, divergence
        )
        tolerances.assert_gradient(
            gradient, slope, student, teacher, 2.0, np.abs(hard_weight) + np.abs(soft_weight)
        )


@pytest.mark.parametrize("label", [10, -1, 2**40])
def test_label_out_of_range(native, label):
    labels = np.array([0, 1, 2, label])
    student = np.zeros((4, 10), np.float32)
    with pytest.raises(
        ValueError, match=f"Label {label} at row 3 is out of range: expected 0 <= label < 10"
    ):
        native.hard_and_soft_loss(student, student, labels)


def test_bad_arguments(native):
    values = np.zeros((4, 10), np.float32)
    with pytest.raises(ValueError, match=r"(?s)\(4, 10\).*\(4, 12\)"):
        native.soft_target_loss(values, np.zeros((4, 12), np.float32))
    with pytest.raises(ValueError, match=r"(?s)temperature.*0"):
        native.soft_target_loss(values, values, temperature=0.0)
    with pytest.raises(ValueError, match=r"(?s)divergence.*kl"):
        native.soft_target_loss(values, values, divergence="kl")
    with pytest.raises((TypeError, ValueError), match="float64"):
        native.soft_target_loss(values.astype(np.float64), values)
    with pytest.raises(ValueError, match=r"baseline.*Received: name=sse9"):
        native.set_instruction_set("sse9")


def test_instruction_sets_of_this_machine_are_all_tested(native):
    names = native.instruction_sets()
    assert "baseline" in names
    assert set(names) <= set(conftest.INSTRUCTION_SETS)


def test_instruction_sets_are_really_switched(native):
    """Vectors of other lengths add in another order: some last bits must differ."""
    student, teacher = logits.far_apart(64, 1001)
    results = set()
    for name in native.instruction_sets():
        native.set_instruction_set(name)
        assert native.instruction_set() == name
        results.add(native.soft_target_loss(student, teacher).tobytes())
    assert len(results) == len(native.instruction_sets())


def test_automatic_is_the_widest_instruction_set(native):
    native.set_instruction_set("auto")
    assert native.instruction_set() == native.instruction_sets()[-1]


def test_build_info(native):
    info = native.build_info()
    assert set(info) >= {"version", "compiler", "architecture", "instruction_sets", "abi_version"}
    assert set(native.instruction_sets()) <= set(info["instruction_sets"])
