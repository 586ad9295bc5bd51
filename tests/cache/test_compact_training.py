"""Students of compact caches: their losses are within what the bytes are wrong by."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.cache import caches
from tests.cache.compact_rows import kept, logsumexp

CLASSES, K = 300, 20


def teacher():
    return caches.model(1, CLASSES)


def student():
    return caches.model(2, CLASSES)


def coarse(logits, classes, temperature):
    """Log-probabilities of the kept classes and of all others as one, `[rows, k + 1]`."""
    rest = [
        temperature * logsumexp(np.delete(row, at) / temperature)
        for row, at in zip(logits, classes, strict=True)
    ]
    pooled = np.concatenate([np.take_along_axis(logits, classes, -1), np.c_[rest]], -1)
    pooled = pooled / temperature
    return pooled - np.array([[logsumexp(row)] for row in pooled])


def wrong_by(teacher_logits, student_logits, temperature, k=K):
    """What the loss may be wrong by, by the documented errors, float64, of each row.

    `d / dt KL(p_t || q)` along `p_t ~ p exp(t d)` is the covariance of `d` and `log p_t / q`: at
    most half the range of one times half the range of the other. The range of `d`, the errors of
    the teacher's logits over T, is at most `2 e`, and that of `log p_t / q` grows by as much.
    """
    classes = kept(teacher_logits, k)
    p, q = (coarse(each, classes, temperature) for each in (teacher_logits, student_logits))
    spread = np.ptp(p - q, axis=-1)
    ordered = -np.sort(-teacher_logits)
    scale = ordered[:, 0] - ordered[:, k]
    last = ordered[:, 0] - ordered[:, k - 1]  # the kept logit that is wrong by most
    of_logits = (np.sqrt(last * scale) / 254 + scale / 508**2) / temperature
    of_rest = np.log(teacher_logits.shape[-1] - k) / (2 * 8190)
    e = np.maximum(of_logits, of_rest) + 1e-5
    return temperature**2 * e * (spread / 2 + e)


def histories(tmp_path, temperature, mode="graph", epochs=4):
    """Of `fit` with a compact cache and with a float32 one; a batch is an epoch."""
    found = []
    data = caches.dataset(batch=caches.ROWS)
    for dtype in ("compact", "float32"):
        path = caches.written(tmp_path / dtype, teacher(), data, dtype=dtype, top_k=K)
        history, _ = caches.trained(
            kd.teachers.Cached(path),
            kd.load_cache(path, data),
            kd.losses.SoftTargets(temperature),
            mode,
            epochs,
            student(),
        )
        found.append(history["soft_targets"])
    return found


@pytest.mark.parametrize(
    ("mode", "temperature"),
    [("graph", 1.0), ("graph", 2.0), ("graph", 4.0), ("eager", 2.0), ("xla", 2.0)],
)
def test_the_loss_is_that_of_float32_within_the_documented_error(tmp_path, mode, temperature):
    compact, exact = histories(tmp_path, temperature, mode)
    x, _ = caches.arrays()
    logits = [np.float64(model(x)) for model in (teacher(), student())]
    allowed = wrong_by(*logits, temperature).mean()
    assert allowed < 0.05 * exact[0]  # a bound that says something
    # In the first epoch both students are the same; then they differ by what they have learned.
    assert abs(compact[0] - exact[0]) <= allowed
    np.testing.assert_allclose(compact, exact, rtol=0, atol=2 * allowed)
    assert compact[-1] < compact[0]


def test_token_kd_of_a_gpt2_takes_it(tmp_path):
    hub = pytest.importorskip("tests.language.hub")
    del hub
    import keras_hub

    words, length, k = 400, 12, 30

    def gpt2(width, seed):
        keras.utils.set_random_seed(seed)
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=words,
            num_layers=1,
            num_heads=2,
            hidden_dim=width,
            intermediate_dim=2 * width,
            max_sequence_length=length,
        )
        for weight in backbone.trainable_weights:
            weight.assign(weight * 10.0)
        return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)

    ids = np.random.default_rng(0).integers(1, words, (6, length + 1)).astype("int32")
    x = {"token_ids": ids[:, :-1], "padding_mask": np.ones((6, length), "int32")}
    data = tf.data.Dataset.from_tensor_slices((x, ids[:, 1:])).batch(6)
    large = gpt2(16, seed=1)
    logits = [np.float64(model(x)).reshape(-1, words) for model in (large, gpt2(8, seed=2))]
    paths = {
        dtype: kd.cache_teacher(large, data, tmp_path / dtype, dtype=dtype, top_k=k, verbose=0)
        for dtype in ("compact", "float32")
    }
    for temperature in (1.0, 2.0, 4.0):
        found = {}
        for dtype, path in paths.items():
            distiller = kd.Distiller(
                kd.teachers.Cached(path), gpt2(8, seed=2), kd.losses.TokenKD(temperature)
            )
            distiller.compile(keras.optimizers.SGD(0.01), caches.from_logits(), jit_compile=False)
            history = distiller.fit(
                kd.load_cache(path, data), epochs=2, shuffle=False, verbose=0
            ).history
            found[dtype] = history["token_kd"]
        allowed = wrong_by(*logits, temperature, k).mean()
        assert abs(found["compact"][0] - found["float32"][0]) <= allowed
        np.testing.assert_allclose(*found.values(), rtol=0, atol=2 * allowed)


def test_other_losses_say_that_they_need_all_logits(tmp_path):
    path = caches.written(tmp_path / "c", dtype="compact", top_k=3)
    with pytest.raises(ValueError, match="needs all logits of the teacher"):
        kd.Distiller(kd.teachers.Cached(path), caches.model(2), kd.losses.LogitsMSE())


def test_a_student_of_other_classes_is_refused(tmp_path):
    data = caches.dataset()
    path = caches.written(tmp_path / "c", teacher(), data, dtype="compact", top_k=K)
    with pytest.raises(ValueError, match="classes"):
        caches.trained(kd.teachers.Cached(path), kd.load_cache(path, data))


def test_a_strategy_reads_it(tmp_path):
    path = caches.written(tmp_path / "c", dtype="compact", top_k=3)
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2))
        distiller.compile(keras.optimizers.SGD(0.1), caches.from_logits())
    history = distiller.fit(
        kd.load_cache(path, caches.dataset()), epochs=2, shuffle=False, verbose=0
    ).history["loss"]
    assert history[1] < history[0]
