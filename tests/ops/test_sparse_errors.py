"""Sparse teachers that are none are refused by a message that says what is wrong."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from keras_kd.ops import dispatch
from keras_kd.ops.backends import xla
from tests import logits
from tests.ops import sparse_checks

ROWS, CLASSES, KEPT = 6, 10, 3
STUDENT, VALUES, INDICES, TAIL = sparse_checks.case(ROWS, CLASSES, KEPT)


def _loss(student=STUDENT, values=VALUES, indices=INDICES, tail=TAIL, *args, **options):
    return ops.sparse_soft_target_loss(student, values, indices, tail, *args, **options)


def _with(index, row=4, place=2):
    indices = INDICES.astype(np.int64)
    indices[row, place] = index
    return indices


@pytest.mark.parametrize("index", [CLASSES, -1, 2**40])
@pytest.mark.parametrize("graph", [False, True])
def test_an_index_out_of_range_is_named(kernel, index, graph):
    message = rf"Index {index} at row 4 is out of range: expected 0 <= index < 10"
    op = tf.function(lambda i: _loss(indices=i)) if graph else lambda i: _loss(indices=i)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        op(tf.constant(_with(index)))


@pytest.mark.parametrize("graph", [False, True])
def test_an_index_that_is_there_twice_is_named(kernel, graph):
    twice = INDICES[4, 0]
    message = rf"Index {twice} at row 4 is there twice: expected distinct indices"
    op = tf.function(lambda i: _loss(indices=i)) if graph else lambda i: _loss(indices=i)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        op(tf.constant(_with(twice)))


@pytest.mark.parametrize("index", [CLASSES, INDICES[4, 0]])
def test_inside_xla_plain_tensorflow_cannot_raise(index):
    """It must not be silent either: the row is NaN, and only that row."""

    @tf.function(jit_compile=True)
    def step(student, indices):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = _loss(student, indices=indices)
        return loss, tape.gradient(loss, student)

    with ops.use_kernel("tensorflow"):
        loss, gradient = step(tf.constant(STUDENT), tf.constant(_with(index)))
    np.testing.assert_array_equal(np.isnan(loss), np.arange(ROWS) == 4)
    np.testing.assert_array_equal(np.isnan(gradient).all(axis=-1), np.arange(ROWS) == 4)


def test_inside_xla_the_native_kernel_raises(native):
    with (
        ops.use_kernel("native"),
        pytest.raises(tf.errors.InvalidArgumentError, match="Index 10 at row 4 is out of range"),
    ):
        tf.function(lambda i: _loss(indices=i), jit_compile=True)(tf.constant(_with(CLASSES)))


@pytest.mark.parametrize(
    ("bad", "received"),
    [
        ({"values": VALUES[:4]}, r"teacher_logits\.shape=\(4, 3\)"),
        ({"values": VALUES[:, :2]}, r"teacher_logits\.shape=\(6, 2\)"),
        ({"indices": INDICES[0]}, r"teacher_indices\.shape=\(3,\)"),
        ({"tail": TAIL[:, None]}, r"teacher_tail\.shape=\(6, 1\)"),
        ({"tail": TAIL[0]}, r"teacher_tail\.shape=\(\)"),
        ({"student": STUDENT[0]}, r"student_logits\.shape=\(10,\)"),
        ({"student": np.float32(1)}, r"student_logits\.shape=\(\)"),
    ],
    ids=lambda x: x if isinstance(x, str) else next(iter(x)),
)
def test_shapes_belong_together(bad, received):
    with pytest.raises(ValueError, match=rf"`teacher_tail` the shape of those.*{received}"):
        _loss(**bad)


@pytest.mark.parametrize("kept", [0, 11])
def test_at_least_one_and_at_most_all_classes_are_kept(kept):
    shape = (ROWS, kept)
    with pytest.raises(ValueError, match=rf"at least one and at most num_classes.*\(6, {kept}\)"):
        _loss(values=np.zeros(shape, np.float32), indices=np.zeros(shape, np.int32))


def test_more_than_all_classes_are_noticed_later_too(kernel):
    anything = tf.TensorSpec([None, None])
    later = tf.function(
        lambda student, values, indices: _loss(student, values, indices),
        input_signature=[anything, anything, tf.TensorSpec([None, None], tf.int32)],
    )
    values, indices = np.zeros((ROWS, 11), np.float32), np.tile(np.arange(11), (ROWS, 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 10|out of range"):
        later(STUDENT, values, indices.astype(np.int32))


def test_types():
    with pytest.raises(ValueError, match=r"`teacher_indices`.*Received.*float32"):
        _loss(indices=INDICES.astype(np.float32))
    with pytest.raises(ValueError, match=r"`teacher_logits`.*float32.*Received.*int32"):
        _loss(values=VALUES.astype(np.int32))
    with pytest.raises(ValueError, match=r"`student_logits`.*float32.*Received.*int32"):
        _loss(student=STUDENT.astype(np.int32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"`temperature`.*Received: temperature=0\.0"),
        ({"divergence": "kl"}, r"`divergence`.*Received: divergence=kl"),
        ({"divergence": "jsd", "mixing_weight": 1.0}, "`mixing_weight`"),
        ({"reduction": "max"}, "`reduction`"),
        ({"sample_weight": np.ones(5)}, r"`sample_weight`.*\(5,\)"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        _loss(**options)


def test_a_tensor_with_an_invalid_temperature_raises_when_it_is_read(kernel):
    with pytest.raises(tf.errors.InvalidArgumentError, match="temperature=-1"):
        _loss(temperature=tf.constant(-1.0))


def test_gradients_that_there_are_not(kernel):
    student, values, tail = map(tf.constant, (STUDENT, VALUES, TAIL))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([student, values, tail])
        loss = _loss(student, values, tail=tail)
        alone = _loss(student, values, differentiable=False)
    assert tape.gradient(loss, [values, tail]) == [None, None]
    assert tape.gradient(loss, student) is not None
    with pytest.raises(ValueError, match="sparse_soft_target_loss was called with differentiable="):
        tape.gradient(alone, student)
    np.testing.assert_allclose(alone, loss, rtol=1e-6, atol=1e-10)


def test_second_order_gradient_is_refused(kernel):
    student = tf.constant(STUDENT)
    with tf.GradientTape() as outer:
        outer.watch(student)
        with tf.GradientTape() as inner:
            inner.watch(student)
            loss = _loss(student)
        gradient = inner.gradient(loss, student)
    with pytest.raises(NotImplementedError, match="Second-order gradients"):
        outer.gradient(gradient, student)


def test_numpy_arrays_are_checked(native):
    call = native.sparse_soft_target_loss
    with pytest.raises(ValueError, match=r"`indices` must have shape \(6, 3\).*\(6, 2\)"):
        call(STUDENT, VALUES, INDICES[:, :2], TAIL)
    with pytest.raises(ValueError, match=r"`tail` must have shape \(6,\).*\(\)"):
        call(STUDENT, VALUES, INDICES, TAIL[0])
    with pytest.raises(ValueError, match=r"(?s)same shape but for the classes.*\(4, 3\)"):
        call(STUDENT, VALUES[:4], INDICES, TAIL)
    with pytest.raises(ValueError, match="Index 10 at row 4 is out of range"):
        call(STUDENT, VALUES, _with(10), TAIL)


def test_where_a_gpu_is_plain_tensorflow_computes_inside_xla(native, monkeypatch):
    """There is no kernel for it, and the graph does not know where it will run."""
    monkeypatch.setattr(dispatch, "gpu_is_visible", lambda: True)
    monkeypatch.setattr(xla, "unavailable_on_gpu", lambda: "")
    with ops.use_kernel("native"):
        graph = tf.function(lambda student: _loss(student)).get_concrete_function(
            tf.constant(STUDENT)
        )
    functions = graph.graph.as_graph_def().library.function
    found = {node.op for function in functions for node in function.node_def}
    assert "KerasKd>SparseSoftTargetLoss" in found
    assert "XlaCallModule" not in found


def test_static_shapes_are_kept(kernel):
    @tf.function
    def shapes(student, values, indices, tail):
        loss = ops.sparse_soft_target_loss(student, values, indices, tail)
        assert loss.shape.as_list() == [None, 7]
        assert tf.gradients(loss, student)[0].shape.as_list() == [None, 7, 10]
        return loss

    kept = tf.TensorSpec([None, 7, 3])
    shapes.get_concrete_function(
        tf.TensorSpec([None, 7, 10]),
        kept,
        tf.TensorSpec(kept.shape, tf.int32),
        tf.TensorSpec([None, 7]),
    )


def test_inputs_are_left_alone(native):
    inputs = sparse_checks.case(8, logits.LONG, 5)
    before = [x.copy() for x in inputs]
    native.sparse_soft_target_loss(*inputs, gradient=True)
    for left, right in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(left, right)
