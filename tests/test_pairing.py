"""Proposed pairs of layers, and training with them."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd import pairing
from tests.distiller import linear
from tests.distiller.linear import compiled
from tests.taps import networks


def dense(*widths, prefix="d"):
    hidden = [
        keras.layers.Dense(n, activation="tanh", name=f"{prefix}{i}") for i, n in enumerate(widths)
    ]
    return keras.Sequential(
        [keras.Input((linear.FEATURES,)), *hidden, keras.layers.Dense(linear.CLASSES, name="head")]
    )


def images(*stages, prefix="c"):
    """Each stage: filters of its convolutions; between stages, pooling."""
    layers = [keras.Input((16, 16, 1))]
    for i, stage in enumerate(stages):
        for j, filters in enumerate(stage):
            name = f"{prefix}{i}_{j}"
            layers.append(keras.layers.Conv2D(filters, 3, padding="same", name=name))
        layers += [keras.layers.MaxPooling2D(name=f"{prefix}pool{i}"), keras.layers.Dropout(0.1)]
    layers += [keras.layers.GlobalAveragePooling2D(name=f"{prefix}mean")]
    return keras.Sequential([*layers, keras.layers.Dense(4, name="head")])


def pairs(*args, **kwargs):
    return list(kd.pair_layers(*args, print_fn=None, **kwargs))


def test_by_depth():
    teacher, student = dense(8, 8, 8, 8, prefix="t"), dense(3, 3, prefix="s")
    assert pairs(teacher, student) == [("t1", "s0"), ("t3", "s1")]
    assert pairs(teacher, student, count=1) == [("t3", "s1")]


@pytest.mark.parametrize(
    ("of_teacher", "of_student", "expected"),
    [
        (4, 2, [(1, 0), (3, 1)]),
        (5, 2, [(1, 0), (4, 1)]),
        (5, 3, [(1, 0), (2, 1), (4, 2)]),
        (4, 1, [(3, 0)]),
        (2, 3, [(0, 0), (1, 2)]),
        (1, 3, [(0, 2)]),
    ],
)
@pytest.mark.parametrize("kind", ["layers", "blocks"])
def test_the_last_ones_meet_and_the_others_are_evenly_spread(
    of_teacher, of_student, expected, kind
):
    if kind == "layers":
        made = dense(*[4] * of_teacher, prefix="t"), dense(*[3] * of_student, prefix="s")
        names = [(f"t{i}", f"s{j}") for i, j in expected]
    else:
        made = stacked(of_teacher), stacked(of_student)
        names = [(f"block_{i}", f"block_{j}") for i, j in expected]
    assert pairs(*made) == names


def stacked(depth, width=networks.WIDTH, around=True):
    """Blocks of several layers between layers that are none."""
    inputs = keras.Input((linear.FEATURES,))
    x = inputs
    if around:
        x = keras.layers.Dense(width, name="stem")(x)
        x = keras.layers.LayerNormalization(name="norm")(x)
    for i in range(depth):
        x = keras.layers.Dropout(0.1)(networks.Block(width, name=f"block_{i}")(x))
    if around:
        x = keras.layers.Dense(7, name="neck")(x)
    return keras.Model(inputs, keras.layers.Dense(linear.CLASSES, name="head")(x))


def test_blocks_are_paired_only_where_both_models_have_them():
    assert pairs(stacked(2), dense(5, prefix="s")) == [("neck", "s0")]
    found = pairs(stacked(2), stacked(2), pattern="n*")
    assert found == [("norm", "norm"), ("neck", "neck")]


def test_layers_of_one_rank_are_counted_among_themselves():
    # Where the teacher's images end does not depend on how many vectors follow.
    def network(convolutions, vectors, prefix):
        layers = [keras.Input((8, 8, 1))]
        for i in range(convolutions):
            layers.append(keras.layers.Conv2D(4, 3, padding="same", name=f"{prefix}c{i}"))
        layers.append(keras.layers.Flatten())
        for i in range(vectors):
            layers.append(keras.layers.Dense(6, name=f"{prefix}d{i}"))
        return keras.Sequential([*layers, keras.layers.Dense(4, name="head")])

    found = pairs(network(4, 4, "t"), network(2, 1, "s"))
    assert found == [("tc1", "sc0"), ("tc3", "sc1"), ("td3", "sd0")]


def test_calls_of_a_shared_block():
    block = networks.Block(linear.FEATURES, name="shared")
    inputs = keras.Input((linear.FEATURES,))
    x = inputs
    for _ in range(4):
        x = block(x)
    teacher = keras.Model(inputs, keras.layers.Dense(linear.CLASSES)(x))
    student = stacked(2, around=False)
    tap = kd.taps.Tap
    found = pairs(teacher, student)
    assert found == [(tap("shared", call=1), "block_0"), (tap("shared", call=3), "block_1")]
    x, y = linear.data(12)
    hints = kd.pair_layers(teacher, student, print_fn=None).hints()
    made = compiled(teacher, student, hints)
    assert np.isfinite(made.fit(x, y, verbose=0).history["loss"][0])


def test_by_shape():
    teacher, student = dense(8, 3, 5, 6, prefix="t"), dense(3, 6, prefix="s")
    assert pairs(teacher, student, strategy="shape") == [("t1", "s0"), ("t3", "s1")]
    with pytest.raises(ValueError, match=r"No layers.*strategy='shape'.*taps.summary"):
        pairs(dense(8), dense(3), strategy="shape")


def test_by_stage():
    teacher = images((8, 8), (16, 16), (32,), prefix="t")
    student = images((4,), (6,), (8,), prefix="s")
    found = pairs(teacher, student, strategy="last_of_stage")
    # The pooling begins the next size; what the pooling's stage ends with is the convolution.
    assert ("t1_1", "s1_0") in found
    assert ("t0_1", "s0_0") in found
    assert ("tmean", "smean") in found


def test_by_similarity_finds_the_copied_layers():
    teacher, student = dense(8, 7, 6, 5, prefix="t"), dense(8, 6, prefix="s")
    x, _ = linear.data(200)
    # The student's layers compute what the first and the third of the teacher do.
    student.get_layer("s0").set_weights(teacher.get_layer("t0").get_weights())
    inner = keras.Model(teacher.inputs, teacher.get_layer("t2").output)
    target = inner.predict(x, verbose=0)
    hidden = keras.Model(student.inputs, student.get_layer("s0").output).predict(x, verbose=0)
    kernel = np.linalg.lstsq(hidden, np.arctanh(np.clip(target, -0.999, 0.999)), rcond=None)[0]
    student.get_layer("s1").set_weights([kernel, np.zeros(6)])
    found = kd.pair_layers(teacher, student, "similarity", data=x, print_fn=None)
    assert list(found) == [("t0", "s0"), ("t2", "s1")]
    assert found.rows[0]["score"] == pytest.approx(1.0)
    assert found.rows[1]["score"] > 0.97


def test_the_best_pairs_never_cross():
    gains = np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.85]])
    assert pairing._best_in_order(gains) == [(1, 0), (2, 1)]


def test_blocks_stand_for_what_is_in_them():
    teacher, student = networks.transformer(4), networks.transformer(2)
    found = pairs(teacher, student)
    assert ("backbone/transformer_layer_1", "backbone/transformer_layer_1") in found
    assert not any("attention" in path for pair in found for path in pair)
    found = pairs(teacher, student, pattern="*layer_1")
    assert found == [("backbone/transformer_layer_1", "backbone/transformer_layer_1")]


def test_a_subclassed_model_needs_data():
    x, _ = linear.data(8)
    teacher, student = networks.subclassed(), networks.subclassed()
    with pytest.raises(ValueError, match="Pass `data`"):
        pairs(teacher, student)
    assert pairs(teacher, student, data=x) == [("blocks/0", "blocks/0"), ("blocks/1", "blocks/1")]


@pytest.mark.parametrize("strategy", pairing.STRATEGIES)
def test_one_line_distills_layer_by_layer(strategy, capsys):
    keras.utils.set_random_seed(0)
    teacher, student = dense(8, 8, 8, prefix="t"), dense(8, 8, prefix="s")
    x, y = linear.data(48)
    found = kd.pair_layers(teacher, student, strategy, data=x)
    assert "teacher_shape" in capsys.readouterr().out
    hints = found.hints("cosine", weight=0.5)
    assert sum(hint.weight for hint in hints) == pytest.approx(0.5)
    made = compiled(teacher, student, [kd.losses.SoftTargets(4.0), *hints], mode="graph")
    made.optimizer.learning_rate = 0.3
    history = made.fit(x, y, epochs=25, verbose=0).history
    for hint in hints:
        assert history[hint.name][-1] < 0.9 * history[hint.name][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "order"}, "strategy='order'"),
        ({"strategy": "similarity"}, "needs `data`"),
        ({"count": 0}, "count"),
        ({"pattern": "nothing*"}, r"No layers.*pattern='nothing\*'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        pairs(dense(3), dense(3), **options)


def test_objects_that_are_not_models():
    with pytest.raises(ValueError, match="`teacher`. Expected a keras.Model. Received: teacher=3"):
        pairs(3, dense(3))
    with pytest.raises(ValueError, match="`student`. Expected a keras.Model. Received: student="):
        pairs(dense(3), keras.layers.Dense(2))
