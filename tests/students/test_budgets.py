"""Budgets are met within 5 %, and never exceeded."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.export.timing import tflite_milliseconds
from keras_kd.measurement import sizes
from keras_kd.students import budgets
from tests.students import networks


def random(family, **options):
    teacher = getattr(networks, family)(**options)
    networks.randomize(teacher)
    return teacher


def shrink(teacher, **options):
    return kd.students.shrink(teacher, print_fn=None, **options)


def costs(model):
    """As `measure` counts them."""
    size, _ = sizes.measure_keras(model, networks.data(model, rows=1))
    return {"bytes": size["bytes"], "macs": size["macs"]}


WIDER = {
    "mlp": {"width": 24},
    "vgg": {},
    "resnet": {},
    "transformer": {"width": 16},
}
CASES = [
    ("mlp", "position"),
    ("mlp", "magnitude"),
    ("vgg", "magnitude"),
    ("resnet", "position"),
    ("transformer", "magnitude"),
]


@pytest.mark.parametrize(("family", "rank"), CASES)
def test_met_within_five_percent(family, rank):
    teacher = random(family, **WIDER[family])
    before, whole = [w.numpy() for w in teacher.weights], costs(teacher)
    for limits in ({"bytes": 0.5}, {"bytes": 0.8, "macs": 0.4}):
        budget = {key: int(share * whole[key]) for key, share in limits.items()}
        made = costs(shrink(teacher, budget=budget, rank=rank))
        shares = [made[key] / limit for key, limit in budget.items()]
        assert 0.95 <= max(shares) <= 1, (budget, made)
    for value, weight in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(value, weight.numpy())


def test_both_directions_keep_as_many_units():
    """Keras makes the backward layer of a Bidirectional of the forward one's configuration."""
    teacher = random("lstm", units=8)
    budget = {"bytes": 2 * teacher.count_params()}
    student = shrink(teacher, budget=budget)
    assert 0.95 * budget["bytes"] <= 4 * student.count_params() <= budget["bytes"]


def test_a_limit_that_a_model_has_exactly_is_met_exactly():
    teacher = random("mlp")
    small = shrink(teacher, width=0.5)
    budget = {"bytes": 4 * small.count_params()}
    made = shrink(teacher, budget=budget, depth=1.0)
    assert budget["bytes"] * 0.95 <= 4 * made.count_params() <= budget["bytes"]
    whole = shrink(teacher, budget={"bytes": 4 * teacher.count_params()})
    x = networks.data(teacher)
    np.testing.assert_array_equal(whole(x), teacher(x))


def test_one_of_depth_and_width_may_be_given():
    teacher = random("mlp", width=24, depth=6)
    half = {"bytes": 2 * teacher.count_params()}
    by_width = shrink(teacher, budget=half, depth=1.0)
    assert len(by_width.layers) == len(teacher.layers)
    by_number = shrink(teacher, budget=half, layers=[0, 1, 2, 5])
    assert [x.name for x in by_number.layers[:-1]] == [f"hidden_{i}" for i in (0, 1, 2, 5)]
    assert 0.95 * half["bytes"] <= 4 * by_number.count_params() <= half["bytes"]
    by_depth = shrink(teacher, budget=half, width=1.0)
    assert {layer.units for layer in by_depth.layers[:-1]} == {24}
    blocks = len(by_depth.layers) - 1
    assert 4 * by_depth.count_params() <= half["bytes"]
    # One block of 24 * 24 + 24 parameters more would not have fitted.
    assert 4 * (by_depth.count_params() + 600) > half["bytes"]
    assert blocks < 6


def test_depth_and_width_are_balanced_by_position():
    teacher = random("mlp", width=24, depth=6)
    student = shrink(teacher, budget={"bytes": int(0.4 * 4 * teacher.count_params())})
    hidden = student.layers[:-1]
    assert 3 <= len(hidden) < 6
    assert 12 <= np.mean([layer.units for layer in hidden]) < 24


def test_what_is_dead_pays_for_the_budget():
    """Half of the units of one layer are dead: they go, and more of the others stays."""
    teacher = random("mlp", width=24, depth=2)
    dead = [1, 2, 3, 5, 8, 9, 13, 14, 18, 20, 21, 23]
    kernel, bias = teacher.get_layer("hidden_0").get_weights()
    kernel[:, dead], bias[dead] = 0.0, 0.0
    teacher.get_layer("hidden_0").set_weights([kernel, bias])
    reader, other = teacher.get_layer("hidden_1").get_weights()
    reader[dead] = 0.0
    teacher.get_layer("hidden_1").set_weights([reader, other])
    alive = 4 * (24 * 12 + 12 + 12 * 24 + 24 + 24 * 5 + 5)
    x = networks.data(teacher)
    student = shrink(teacher, budget={"bytes": alive}, rank="magnitude", depth=1.0)
    kept = student.get_layer("hidden_0").get_weights()[1]
    assert np.isin(kept, bias[np.setdiff1d(np.arange(24), dead)]).all()
    evenly = shrink(teacher, budget={"bytes": alive}, depth=1.0)
    errors = [np.abs(np.asarray(model(x) - teacher(x))).mean() for model in (student, evenly)]
    assert errors[0] < errors[1]


def test_open_sizes_come_from_data():
    inputs = keras.Input((None, 4))
    x = keras.layers.Conv1D(16, 3, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.Conv1D(16, 3, padding="same", name="last")(x)
    teacher = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    with pytest.raises(ValueError, match=r"depends on the open sizes. Pass data="):
        shrink(teacher, budget={"macs": 10_000})
    data = np.zeros((3, 10, 4), "float32")
    student = shrink(teacher, budget={"macs": 5_000}, data=data)
    assert 4_750 <= sizes.measure_keras(student, data[:1])[0]["macs"] <= 5_000
    # A budget of bytes needs no sample, and so no data.
    assert shrink(teacher, budget={"bytes": 2_000}).count_params() <= 500


def test_half_precision_and_saving(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        teacher = networks.mlp(24)
    finally:
        keras.config.set_dtype_policy("float32")
    student = shrink(teacher, budget={"bytes": 2_000}, rank="magnitude")
    assert 1_900 <= 2 * student.count_params() <= 2_000
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    x = networks.data(teacher)
    np.testing.assert_array_equal(np.float32(loaded(x)), np.float32(student(x)))


def test_averages_meet_budgets_too():
    teacher = random("mlp", width=24)
    student = shrink(teacher, budget={"bytes": 3_000}, copy="average")
    assert 2_850 <= 4 * student.count_params() <= 3_000


def test_the_plan_of_a_budget():
    teacher = random("resnet")
    budget = {"bytes": 2 * teacher.count_params()}
    rows = kd.students.plan(teacher, budget=budget)
    assert sum(row["teacher_bytes"] for row in rows) == 4 * teacher.count_params()
    assert 0.95 * budget["bytes"] <= sum(r["student_bytes"] for r in rows) <= budget["bytes"]
    assert sum(row["teacher_macs"] for row in rows) == costs(teacher)["macs"]
    lines = []
    student = kd.students.shrink(teacher, budget=budget, print_fn=lines.append)
    assert lines[0].split()[-1] == "importance_lost"
    macs = costs(teacher)["macs"], costs(student)["macs"]
    assert lines[-1] == "multiply-adds: {:,} -> {:,}".format(*macs)
    assert lines[-2].startswith(f"bytes: {4 * teacher.count_params():,} -> ")


# Latency: by a clock that takes a microsecond for a thousand multiply-adds, and 2 for a call.


def clock(model, sample):
    del sample
    return 0.002 + costs(model)["macs"] / 1e6


@pytest.fixture
def timed():
    budgets.register_timer(clock)
    yield
    budgets.register_timer(tflite_milliseconds)


@pytest.mark.parametrize("limits", [{}, {"macs": 1_500}])
def test_latency_is_met(timed, limits):
    teacher = random("mlp", width=24)
    whole = clock(teacher, None)
    student = shrink(teacher, budget={"latency_ms": 0.5 * whole, **limits})
    made = {**costs(student), "latency_ms": clock(student, None)}
    shares = [made[key] / limit for key, limit in limits.items()]
    shares.append(made["latency_ms"] / (0.5 * whole))
    assert 0.9 <= max(shares) <= 1
    with pytest.raises(ValueError, match=r"budget of 0.001 ms: the smallest one takes 0\.00"):
        shrink(teacher, budget={"latency_ms": 0.001})
    with pytest.raises(
        ValueError, match=r"A budget of 50 ms is above the largest student of .*: 0\.00"
    ):
        shrink(teacher, budget={"latency_ms": 50})


def test_a_file_is_timed():
    teacher = random("mlp")
    sample = np.zeros((1, 12), "float32")
    assert 0 < tflite_milliseconds(teacher, sample) < 1_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 100}, r"`budget`. Expected a dict with some of the keys \('bytes', 'macs'"),
        ({"budget": {}}, r"Expected a dict with some"),
        ({"budget": {"byte": 100}}, r"Received: budget=\{'byte': 100\}"),
        ({"budget": {"bytes": 0}}, r"`budget\['bytes'\]`. Expected a finite number above 0"),
        ({"budget": {"macs": "few"}}, r"`budget\['macs'\]`. Expected a number"),
        ({"budget": {"bytes": 10}}, r"budget of 10 bytes: the smallest one takes 92 bytes. Pass "),
        ({"budget": {"macs": 3}}, r"3 multiply-adds: the smallest one takes 17 multiply-adds"),
        (
            {"budget": {"bytes": 10_000}},
            r"10,000 bytes is above the largest student.*: 2,756 bytes.*leave 'bytes' out",
        ),
        (
            {"budget": {"bytes": 1_000}, "depth": 0.5, "width": 0.5},
            r"nothing to choose where both.*depth=0.5, width=0.5. Leave one of them out",
        ),
        ({"budget": {"bytes": 1_000}, "layers": [0], "width": 0.5}, r"Received: layers=\[0\]"),
        ({"budget": {"bytes": 1_000}, "data": np.ones((2, 12))}, "Leave `data` out"),
        ({"budget": {"bytes": 1_000}, "lora_rank": 2}, "counts no adapters"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        shrink(networks.mlp(), **options)
