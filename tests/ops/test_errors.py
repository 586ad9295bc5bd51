"""Bad input is refused by a message that names the argument and what was received."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops

pytestmark = pytest.mark.usefixtures("kernel")

LOGITS = np.zeros((4, 10), np.float32)
LABELS = np.zeros(4, np.int32)


def _soft(student=LOGITS, teacher=LOGITS, **options):
    return ops.soft_target_loss(student, teacher, **options)


def _hard_and_soft(student=LOGITS, teacher=LOGITS, labels=LABELS, **options):
    return ops.hard_and_soft_loss(student, teacher, labels, **options)


def _combined(student=LOGITS, teacher=LOGITS, labels=LABELS, **options):
    return ops.combined_loss(student, teacher, labels, 1.0, 1.0, **options)


EVERY_OP = pytest.mark.parametrize("op", [_soft, _hard_and_soft, _combined])
OPS_WITH_LABELS = pytest.mark.parametrize("op", [_hard_and_soft, _combined])


def _invalid(argument, received):
    return (
        rf"Invalid value for argument `{argument}`\. Expected .*\. Received: {argument}={received}"
    )


@EVERY_OP
@pytest.mark.parametrize("value", [0, 0.0, -1.0, np.nan, np.inf, -np.inf], ids=str)
def test_temperature_is_positive_and_finite(op, value):
    with pytest.raises(ValueError, match=_invalid("temperature", value)):
        op(temperature=value)


@EVERY_OP
def test_temperature_is_one_number(op):
    with pytest.raises(
        ValueError, match=r"Invalid value for argument `temperature`\. Expected a scalar"
    ):
        op(temperature=[1.0, 2.0])


@EVERY_OP
@pytest.mark.parametrize("value", ["kl", "FORWARD_KL", None], ids=str)
def test_divergence_is_one_of_three(op, value):
    with pytest.raises(ValueError, match=_invalid("divergence", value)) as error:
        op(divergence=value)
    for name in ("forward_kl", "reverse_kl", "jsd"):
        assert name in str(error.value)


@EVERY_OP
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 2.0, np.nan], ids=str)
def test_mixing_weight_is_between_zero_and_one(op, value):
    with pytest.raises(ValueError, match=_invalid("mixing_weight", value)):
        op(divergence="jsd", mixing_weight=value)


@EVERY_OP
def test_class_counts_are_equal(op):
    with pytest.raises(ValueError, match=r"different numbers of classes.*10.*12"):
        op(teacher=np.zeros((4, 12), np.float32))


@EVERY_OP
def test_class_counts_that_are_known_only_later_are_equal(op):
    signature = [tf.TensorSpec([None, None]), tf.TensorSpec([None, None])]
    later = tf.function(op, input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"10.*12|12.*10"):
        later(LOGITS, np.zeros((4, 12), np.float32))


@EVERY_OP
def test_row_counts_are_equal(op):
    with pytest.raises(ValueError, match=r"(?s)\(4, 10\).*\(1, 10\)"):
        op(teacher=np.zeros((1, 10), np.float32))


@EVERY_OP
def test_ranks_are_equal(op):
    with pytest.raises(ValueError, match=r"same rank.*\(4, 10\).*\(4, 1, 10\)"):
        op(teacher=np.zeros((4, 1, 10), np.float32))


@EVERY_OP
def test_scalars_have_no_classes(op):
    with pytest.raises(ValueError, match=r"rank, at least 1.*Received.*\(\)"):
        op(student=np.float32(1.0), teacher=np.float32(1.0))


@EVERY_OP
@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.complex64])
def test_logits_are_real_numbers(op, who, dtype):
    name = np.dtype(dtype).name
    with pytest.raises(ValueError, match=rf"`{who}_logits`.*float32.*Received.*{name}"):
        op(**{who: LOGITS.astype(dtype)})


@OPS_WITH_LABELS
@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_labels_are_integers(op, dtype):
    name = np.dtype(dtype).name
    with pytest.raises(ValueError, match=rf"`labels`.*int32.*Received.*{name}"):
        op(labels=LABELS.astype(dtype))


@OPS_WITH_LABELS
@pytest.mark.parametrize("shape", [(5,), (4, 1), (4, 10), ()], ids=str)
def test_labels_have_one_entry_a_row(op, shape):
    with pytest.raises(ValueError, match=rf"`labels`.*\(4,\).*Received.*{_escaped(shape)}"):
        op(labels=np.zeros(shape, np.int32))


@pytest.mark.parametrize("shape", [(5,), (4, 1), (4, 10)], ids=str)
def test_sample_weight_broadcasts_to_the_rows(shape):
    for op in (_soft, _hard_and_soft):
        with pytest.raises(ValueError, match=rf"`sample_weight`.*Received.*{_escaped(shape)}"):
            op(sample_weight=np.ones(shape, np.float32))


@pytest.mark.parametrize("name", ["hard_weight", "soft_weight"])
def test_weights_of_the_combined_loss_broadcast_to_the_rows(name):
    weights = {"hard_weight": 1.0, "soft_weight": 1.0, name: np.ones((4, 1), np.float32)}
    with pytest.raises(ValueError, match=rf"`{name}`.*Received.*\(4, 1\)"):
        ops.combined_loss(LOGITS, LOGITS, LABELS, **weights)


def _escaped(shape):
    return str(shape).replace("(", r"\(").replace(")", r"\)")


@EVERY_OP
@pytest.mark.parametrize("graph", [False, True])
def test_second_order_gradient_is_refused(op, graph):
    def curvature(student):
        with tf.GradientTape() as outer:
            outer.watch(student)
            with tf.GradientTape() as inner:
                inner.watch(student)
                losses = op(student=student)
            gradient = inner.gradient(losses, student)
        return outer.gradient(gradient, student)

    student = tf.constant(np.linspace(0, 1, 40, dtype=np.float32).reshape(4, 10))
    with pytest.raises(NotImplementedError, match="Second-order gradients"):
        (tf.function(curvature) if graph else curvature)(student)


@pytest.mark.parametrize("op", [_soft, _combined])
def test_a_loss_that_was_asked_for_without_gradient_has_none(op):
    student = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(student)
        losses = op(student=student, differentiable=False)
    with pytest.raises(ValueError, match="differentiable=False"):
        tape.gradient(losses, student)


@EVERY_OP
def test_teacher_has_no_gradient(op):
    student, teacher = tf.constant(LOGITS), tf.constant(LOGITS + 1.0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([student, teacher])
        losses = op(student=student, teacher=teacher)
    assert tape.gradient(losses, teacher) is None
    assert tape.gradient(losses, student) is not None
