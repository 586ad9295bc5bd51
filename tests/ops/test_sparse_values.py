"""Loss and gradient for sparse teachers agree with float64, for every size, dtype and way in."""

import numpy as np
import pytest

from keras_kd import ops
from tests import logits, reference, tolerances
from tests.ops import sparse_checks

WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)
CLASSES = [1, 2, 7, 33, 100, 1000]


@WITH_DIVERGENCES
def test_every_way_in(op_mode, divergence):
    for temperature in (1.0, 4.0):
        inputs = sparse_checks.case(logits.ROWS, logits.SHORT, 3, temperature)
        sparse_checks.check(op_mode, inputs, temperature, divergence)


def test_every_way_in_with_other_types(op_mode):
    pair = ("float16", "bfloat16")
    student, teacher, indices, tail = sparse_checks.case(logits.ROWS, logits.SHORT, 3, 2.0, pair)
    sparse_checks.check(op_mode, (student, teacher, indices.astype(np.int64), tail), 2.0)


@WITH_DIVERGENCES
@pytest.mark.parametrize("classes", CLASSES)
def test_every_count(arithmetic, classes, divergence):
    for kept in sparse_checks.kept_counts(classes):
        for temperature in (0.5, 2.0):
            inputs = sparse_checks.case(12 if classes > 100 else 40, classes, kept, temperature)
            sparse_checks.check(arithmetic, inputs, temperature, divergence)


@pytest.mark.parametrize("kept", [1, 64, 200])
def test_many_classes(arithmetic, kept):
    sparse_checks.check(arithmetic, sparse_checks.case(4, 32003, kept, 2.0), 2.0)


@WITH_DIVERGENCES
@pytest.mark.parametrize("pair", logits.DTYPE_PAIRS, ids="-".join)
def test_dtype_pairs(arithmetic, pair, divergence):
    for classes in (7, 150):
        inputs = sparse_checks.case(logits.ROWS, classes, 5, 2.0, pair)
        sparse_checks.check(arithmetic, inputs, 2.0, divergence)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradient_is_no_worse_than_plain_low_precision_arithmetic(arithmetic, dtype):
    inputs = sparse_checks.case(40, 150, 8, 2.0, (dtype, dtype))
    student, teacher, indices, tail = inputs
    _, gradient = arithmetic.sparse(*inputs, 2.0)
    truth = reference.sparse_soft_target_gradient(*inputs, 2.0)
    plain = _plain_gradient(student, teacher, indices, tail.astype(student.dtype))
    error, plain_error = (
        np.abs(x.astype(np.float64) - truth).max(axis=-1) for x in (gradient, plain)
    )
    small = tolerances.gradient_limit(*reference.pool(*inputs, 2.0), 2.0)[:, 0]
    assert (error <= plain_error + small).all()
    assert error.mean() < plain_error.mean() / 2


def _plain_gradient(student, teacher, indices, tail):
    """The forward KL's gradient at T = 2, rounded to the dtype after every step."""
    one, two = student.dtype.type(1), student.dtype.type(2)
    p = np.exp(np.concatenate([teacher / two, tail[..., None]], axis=-1))
    p /= p.sum(axis=-1, keepdims=True, dtype=p.dtype)
    q = np.exp(student / two)
    q /= q.sum(axis=-1, keepdims=True, dtype=q.dtype)
    rest = q.copy()
    np.put_along_axis(rest, indices, 0, axis=-1)
    ratio = one - p[..., -1:] / rest.sum(axis=-1, keepdims=True, dtype=q.dtype)
    slope = two * rest * ratio
    kept = two * (np.take_along_axis(q, indices, axis=-1) - p[..., :-1])
    np.put_along_axis(slope, indices, kept, axis=-1)
    return slope


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.uint8])
def test_index_types(arithmetic, dtype):
    student, teacher, indices, tail = sparse_checks.case(12, 33, 5)
    expected = arithmetic.sparse(student, teacher, indices, tail)
    actual = arithmetic.sparse(student, teacher, indices.astype(dtype), tail)
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_order_of_the_kept_classes_does_not_matter(arithmetic):
    student, teacher, indices, tail = sparse_checks.case(12, 100, 7)
    expected = arithmetic.sparse(student, teacher, indices, tail)
    order = np.random.default_rng(1).permutation(7)
    actual = arithmetic.sparse(student, teacher[:, order], indices[:, order], tail)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(actual[1], expected[1], rtol=0, atol=1e-6)


@WITH_DIVERGENCES
def test_numpy(native, instruction_set, divergence):
    for classes in (1, 2, 7, 15, 16, 17, 33, 129, 1000, 4097):
        for kept in sparse_checks.kept_counts(classes):
            inputs = sparse_checks.case(17 if classes < 200 else 3, classes, kept, 2.0)
            result = native.sparse_soft_target_loss(
                *inputs, 2.0, divergence, mixing_weight=0.3, gradient=True
            )
            sparse_checks.assert_close(*result, inputs, 2.0, divergence, 0.3)
            alone = native.sparse_soft_target_loss(*inputs, 2.0, divergence, 0.3)
            assert alone.tobytes() == result[0].tobytes()


@pytest.mark.parametrize("dtype", list(logits.FLOAT_DTYPES))
def test_misaligned_and_strided_arrays(native, instruction_set, dtype):
    student, teacher, indices, tail = sparse_checks.case(9, 33, 5, dtypes=(dtype, dtype))
    expected = native.sparse_soft_target_loss(student, teacher, indices, tail, gradient=True)
    buffer = np.empty(student.size + 1, student.dtype)
    moved = buffer[1:].reshape(student.shape)
    moved[...] = student
    for inputs in (
        (moved, teacher, indices, tail),
        (np.asfortranarray(student), teacher[:, ::-1], indices[:, ::-1], tail[:]),
        (student, np.repeat(teacher, 2, axis=0)[::2], np.asfortranarray(indices), tail),
    ):
        loss, gradient = native.sparse_soft_target_loss(*inputs, gradient=True)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-5, atol=1e-10)
        np.testing.assert_allclose(
            gradient.astype(np.float32), expected[1].astype(np.float32), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(("shape", "kept"), [((20_000, 10), 3), ((300, 1000), 20), ((5, 50000), 9)])
def test_the_same_bits_for_any_number_of_threads(native, instruction_set, shape, kept):
    inputs = sparse_checks.case(*shape, kept)
    before = native.num_threads()
    results = []
    for threads in (1, 2, 3):
        native.set_num_threads(threads)
        results.append(native.sparse_soft_target_loss(*inputs, 2.0, gradient=True))
    native.set_num_threads(before)
    for result in results[1:]:
        for left, right in zip(result, results[0], strict=True):
            assert left.tobytes() == right.tobytes()


def test_a_row_does_not_depend_on_its_place(native, instruction_set):
    for classes in (10, 150, 5000):
        inputs = sparse_checks.case(20, classes, 5)
        loss, gradient = native.sparse_soft_target_loss(*inputs, gradient=True)
        for first in (1, 7, 19):
            part = native.sparse_soft_target_loss(*(x[first:] for x in inputs), gradient=True)
            assert part[0].tobytes() == loss[first:].tobytes()
            assert part[1].tobytes() == gradient[first:].tobytes()


@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic", "xla", "xla_dynamic"])
def test_every_way_in_gives_the_bits_of_the_native_kernel(native, mode):
    from tests.op_mode import OpMode

    inputs = sparse_checks.case(logits.ROWS, logits.SHORT, 3, 4.0)
    actual = OpMode("native", mode).sparse(*inputs, 4.0)
    expected = native.sparse_soft_target_loss(*inputs, 4.0, gradient=True)
    for left, right in zip(actual, expected, strict=True):
        assert left.tobytes() == right.tobytes()


def test_each_kernel_is_what_it_says(native):
    import tensorflow as tf

    def operations(kernel):
        with ops.use_kernel(kernel):
            function = tf.function(ops.sparse_soft_target_loss)
            inputs = map(tf.constant, sparse_checks.case(4, 10, 3))
            definition = function.get_concrete_function(*inputs).graph.as_graph_def()
        return {node.op for branch in definition.library.function for node in branch.node_def}

    assert {"KerasKd>SparseSoftTargetLoss", "XlaCallModule"} <= operations("native")
    assert not {"KerasKd>SparseSoftTargetLoss", "XlaCallModule"} & operations("tensorflow")
