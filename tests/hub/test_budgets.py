"""Budgets and ranks of KerasHub's models."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.measurement import sizes
from keras_kd.students import budgets
from tests.hub import models
from tests.hub.cases import spread

pytestmark = pytest.mark.in_turn(4)


def shrink(teacher, **options):
    return kd.students.shrink(teacher, print_fn=None, **options)


def first(x):
    return {name: value[:1] for name, value in x.items()}


def outputs(model, x):
    return np.asarray(model({name: x[name] for name in model.input}, training=False))


def kernels(model, path):
    return next(w for w in model.weights if w.path.endswith(path)).numpy()


@pytest.mark.parametrize("rank", ["magnitude", "activation"])
def test_a_bert_meets_its_budget(rank, tmp_path):
    teacher, x = spread(models.bert_classifier(layers=4)), models.pairs_of_segments()[0]
    before = teacher.get_weights()
    whole, _ = sizes.measure_keras(teacher, first(x))
    budget = {"bytes": int(0.6 * whole["bytes"]), "macs": int(0.4 * whole["macs"])}
    student = shrink(teacher, budget=budget, rank=rank, data=x)
    made, _ = sizes.measure_keras(student, first(x))
    assert 0.95 <= max(made[key] / limit for key, limit in budget.items()) <= 1
    assert type(student) is type(teacher)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(student, x))
    for one, two in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("make", [models.llama3, models.gemma, models.bart])
def test_other_families_meet_bytes(make):
    teacher = spread(make(layers=3))
    limit = int(0.5 * budgets.bytes_of(teacher))
    student = shrink(teacher, budget={"bytes": limit}, rank="magnitude")
    assert 0.95 * limit <= 4 * student.count_params() <= limit


def test_layers_or_width_may_be_given():
    teacher = spread(models.bert_classifier(layers=4))
    limit = 2 * teacher.count_params()
    student = shrink(teacher, budget={"bytes": limit}, layers=[0, 3])
    assert student.backbone.num_layers == 2
    assert 0.95 * limit <= 4 * student.count_params() <= limit
    student = shrink(teacher, budget={"bytes": int(1.7 * limit)}, width=1.0)
    assert student.backbone.hidden_dim == teacher.backbone.hidden_dim
    assert student.backbone.num_layers == 3


def by_norm(parts, count):
    """The largest norms of what is tied together."""
    return np.sort(np.argsort(-np.sqrt(sum(parts)), kind="stable")[:count])


def test_by_magnitude_the_largest_norms_stay():
    teacher = spread(models.bert_classifier(layers=2))
    student = shrink(teacher, width=0.5, rank="magnitude")
    squares = {w.path: w.numpy().astype("float64") ** 2 for w in teacher.weights}
    hidden = by_norm(
        [
            value.sum(axis=tuple(j for j in range(value.ndim) if j != i))
            for path, value in squares.items()
            for i, size in enumerate(value.shape)
            # The width is 32, and so is nothing else but the channels of all heads together.
            if size == 32
        ],
        16,
    )
    path = "transformer_layer_1/self_attention_layer/{}"
    of_heads = []
    for name in ("query", "key", "value"):
        for part, axes in (("kernel", (0, 2)), ("bias", 1)):
            value = next(v for k, v in squares.items() if k.endswith(path.format(f"{name}/{part}")))
            of_heads.append(value.sum(axis=axes))
    output = next(
        v for k, v in squares.items() if k.endswith(path.format("attention_output/kernel"))
    )
    heads = by_norm([*of_heads, output.sum(axis=(1, 2))], 2)
    query = kernels(teacher, path.format("query/kernel"))
    made = kernels(student, path.format("query/kernel"))
    np.testing.assert_array_equal(made, query[hidden][:, heads])


def test_by_magnitude_what_is_dead_goes():
    teacher = spread(models.gpt2(layers=3, width=16, heads=2))
    x = models.tokens()
    for weight in teacher.weights:
        value = weight.numpy()
        if "transformer_layer_1" in weight.path and (
            "attention_output" in weight.path or "feedforward_output" in weight.path
        ):
            value[...] = 0.0  # the second block adds nothing
        if "feedforward_intermediate_dense" in weight.path:
            value[..., 3::4] = 0.0
        if "feedforward_output_dense/kernel" in weight.path:
            value[3::4] = 0.0
        weight.assign(value)
    student = shrink(teacher, rank="magnitude", depth=0.67)
    np.testing.assert_allclose(outputs(student, x), outputs(teacher, x), rtol=1e-4, atol=1e-5)
    limit = budgets.bytes_of(student) - 2 * 4 * 8 * (16 + 1 + 16)  # without the dead units
    smaller = shrink(teacher, rank="magnitude", budget={"bytes": limit}, layers=[0, 2])
    np.testing.assert_allclose(outputs(smaller, x), outputs(teacher, x), rtol=1e-4, atol=1e-5)


def test_the_plan_of_a_budget():
    teacher, x = spread(models.bert_classifier(layers=3)), models.pairs_of_segments()[0]
    whole, _ = sizes.measure_keras(teacher, first(x))
    budget = {"macs": whole["macs"] // 2}
    rows = kd.students.plan(teacher, budget=budget, data=x)
    assert sum(row["teacher_bytes"] for row in rows) == whole["bytes"]
    assert sum(row["teacher_macs"] for row in rows) == whole["macs"]
    assert sum(row["student_macs"] for row in rows) <= budget["macs"]
    removed = [row for row in rows if row["how"] == "removed"]
    assert all(row["importance_lost"] == round(1 / 3, 4) for row in removed)
    assert "importance_lost" not in kd.students.plan(teacher, rank="activation", data=x)[0]


def test_errors():
    teacher = models.bert_classifier(layers=2)
    cases = [
        ({"budget": {"bytes": 100}}, r"budget of 100 bytes: the smallest one takes [\d,]+ bytes"),
        ({"budget": {"bytes": 10**9}}, r"1,000,000,000 bytes is above the largest student of"),
        ({"budget": {"macs": 10_000}}, r"depends on the open sizes. Pass data="),
        ({"budget": {"bytes": 10_000}, "copy": "average"}, "'slice' or None for a model of Ker"),
        ({"budget": {"bytes": 10_000}, "lora_rank": 2}, "counts no adapters"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            shrink(teacher, **options)
