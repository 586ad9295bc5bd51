"""`mask_tokens`: how many, which, what they become; NumPy, graph, XLA, datasets; bad input."""

import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd

VOCABULARY, MASK, SPECIAL = 50, 4, [1, 2]
OPTIONS = {"mask_id": MASK, "vocabulary_size": VOCABULARY, "special_ids": SPECIAL}


def batch(rows=64, length=40, seed=0):
    """Ids with a special token at both ends, and padding behind."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, length + 1, rows)
    ids = rng.integers(5, VOCABULARY, (rows, length))
    places = np.arange(length)
    ids[:, 0] = 1
    ids[np.arange(rows), lengths - 1] = 2
    mask = places < lengths[:, None]
    return np.where(mask, ids, 0).astype("int32"), mask


def expected_counts(ids, mask, rate):
    may = mask & ~np.isin(ids, SPECIAL)
    return np.maximum(1, np.round(rate * may.sum(axis=1))).astype(int)


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
def test_how_many_and_which(rate):
    ids, mask = batch()
    new, labels = kd.language.mask_tokens(ids, mask, rate, seed=3, **OPTIONS)
    chosen = labels != -100
    assert np.array_equal(chosen.sum(axis=1), expected_counts(ids, mask, rate))
    assert not (chosen & (~mask | np.isin(ids, SPECIAL))).any()
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(new[~chosen], ids[~chosen])
    assert (new.dtype, labels.dtype) == (np.int32, np.int32)


def test_shares_of_masked_random_and_kept():
    ids, mask = batch(rows=2000)
    new, labels = kd.language.mask_tokens(ids, mask, 0.5, seed=1, **OPTIONS)
    chosen = labels != -100
    count = chosen.sum()
    masked, kept = (new == MASK) & chosen, (new == ids) & chosen
    others = new[chosen & ~masked & ~kept]
    # Five standard deviations; a random token is the old one in 1 of 47.
    noise = 5 * 0.5 / np.sqrt(count)
    assert masked.sum() / count == pytest.approx(0.8, abs=noise)
    assert len(others) / count == pytest.approx(0.1 * 46 / 47, abs=noise)
    assert not np.isin(others, [*SPECIAL, MASK]).any()
    assert len(np.unique(others)) == VOCABULARY - 3  # 0, which is not special here, too


def test_each_token_is_as_likely():
    ids = np.full((4000, 10), 7)
    _, labels = kd.language.mask_tokens(ids, rate=0.3, seed=0, **OPTIONS)
    assert (labels != -100).mean(axis=0) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_other_shares(shares):
    ids, mask = batch()
    new, labels = kd.language.mask_tokens(
        ids, mask, seed=0, mask_share=shares[0], random_share=shares[1], **OPTIONS
    )
    chosen = labels != -100
    assert (new[chosen] == MASK).all() == (shares[0] == 1)
    assert (new[chosen] == ids[chosen]).all() == (sum(shares) == 0)


def test_seeds():
    ids, mask = batch()
    one, same, other, step = (
        kd.language.mask_tokens(ids, mask, seed=seed, **OPTIONS)[0] for seed in (1, 1, 2, (1, 1))
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, step)


@pytest.mark.parametrize("positions", [None, 5])
def test_a_graph_equals_numpy(positions):
    ids, mask = batch()
    options = {**OPTIONS, "positions": positions}
    expected = kd.language.mask_tokens(ids, mask, seed=(3, 9), **options)
    found = traced(options)(tf.constant(ids), tf.constant(mask), tf.constant(9))
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def traced(options, jit=False):
    return tf.function(
        lambda a, b, step: kd.language.mask_tokens(a, b, seed=(3, step), **options), jit_compile=jit
    )


def test_xla_masks_as_many():
    ids, mask = batch()
    masked = traced(OPTIONS, jit=True)
    new, labels = masked(tf.constant(ids), tf.constant(mask), tf.constant(9))
    chosen = labels.numpy() != -100
    assert np.array_equal(chosen.sum(axis=1), expected_counts(ids, mask, 0.15))
    assert not (chosen & (~mask | np.isin(ids, SPECIAL))).any()
    assert np.array_equal(new.numpy()[~chosen], ids[~chosen])
    again = masked(tf.constant(ids), tf.constant(mask), tf.constant(9))
    np.testing.assert_array_equal(again[1], labels)


def test_positions_say_the_same_as_labels():
    ids, mask = batch()
    new, labels = kd.language.mask_tokens(ids, mask, 0.1, seed=5, **OPTIONS)
    x, y, weights = kd.language.mask_tokens(ids, mask, 0.1, seed=5, positions=8, **OPTIONS)
    assert np.array_equal(x["token_ids"], new)
    assert np.array_equal(x["padding_mask"], mask)
    for row in range(len(ids)):
        places = np.flatnonzero(labels[row] != -100)
        count = len(places)
        assert x["mask_positions"][row].tolist() == [*places, *[0] * (8 - count)]
        assert y[row].tolist() == [*labels[row, places], *[0] * (8 - count)]
        assert weights[row].tolist() == [1.0] * count + [0.0] * (8 - count)


def test_fewer_positions_than_chosen_tokens():
    ids, mask = batch()
    x, y, weights = kd.language.mask_tokens(ids, mask, 0.5, seed=5, positions=3, **OPTIONS)
    counts = np.minimum(3, expected_counts(ids, mask, 0.5))
    assert np.array_equal(weights.sum(axis=1), counts)
    changed = (x["token_ids"] != ids).sum(axis=1)
    assert (changed <= counts).all()
    full = weights.all(axis=1)
    true = np.take_along_axis(ids, x["mask_positions"], axis=1)
    assert np.array_equal(true[full], y[full])


def test_more_positions_than_tokens():
    x, y, weights = kd.language.mask_tokens(
        np.array([[7, 8]]), rate=1.0, seed=0, positions=4, **OPTIONS
    )
    assert x["mask_positions"].tolist() == [[0, 1, 0, 0]]
    assert y.tolist() == [[7, 8, 0, 0]]
    assert weights.tolist() == [[1, 1, 0, 0]]
    assert "padding_mask" not in x


def test_rows_without_a_token_to_choose():
    new, labels = kd.language.mask_tokens(
        np.array([[1, 2, 0], [1, 9, 2]]), np.array([[1, 1, 0], [1, 1, 1]]), seed=0, **OPTIONS
    )
    assert new[0].tolist() == [1, 2, 0]
    assert labels.tolist() == [[-100] * 3, [-100, 9, -100]]


def test_small_and_unsigned_ids_have_labels_too():
    ids, mask = batch()
    expected = kd.language.mask_tokens(ids, mask, seed=0, **OPTIONS)
    found = kd.language.mask_tokens(ids.astype("uint8"), mask, seed=0, **OPTIONS)
    np.testing.assert_array_equal(found, expected)


def dataset_of(element, batch_size=8):
    return tf.data.Dataset.from_tensor_slices(element).batch(batch_size)


def test_datasets_differ_by_batch_and_iteration_and_are_the_same_again():
    ids, mask = (np.tile(each[:1], (32, 1)) for each in batch())
    x = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}

    def read():
        masked = kd.language.mask_tokens(dataset_of(x), seed=7, **OPTIONS)
        return [[labels.numpy() for _, labels in masked] for _ in range(2)]

    one, again = read(), read()
    np.testing.assert_array_equal(one, again)
    every = [labels.tobytes() for epoch in one for labels in epoch]
    assert len(set(every)) == 8


def test_elements_of_datasets():
    ids, mask = batch(8)
    x = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.ones_like(ids)}
    for element in (x, (x, np.zeros(8)), (x, np.zeros(8), np.ones(8))):
        ((inputs, labels),) = kd.language.mask_tokens(dataset_of(element), seed=0, **OPTIONS)
        assert set(inputs) == set(x)
        assert np.array_equal(inputs["segment_ids"], x["segment_ids"])
        chosen = labels.numpy() != -100
        assert np.array_equal(chosen.sum(axis=1), expected_counts(ids, mask, 0.15))
    ((inputs, labels),) = kd.language.mask_tokens(dataset_of(ids), seed=0, **OPTIONS)
    assert inputs.shape == labels.shape == ids.shape
    found = kd.language.mask_tokens(dataset_of(x), seed=0, positions=6, **OPTIONS)
    assert found.element_spec[0]["mask_positions"].shape == (None, 6)


def test_bad_arguments():
    ids, mask = batch()

    def raises(match, *args, **options):
        with pytest.raises(ValueError, match=match):
            kd.language.mask_tokens(*args, **{"seed": 0, **OPTIONS, **options})

    raises(r"`rate`. Expected a finite number above 0", ids, mask, 0.0)
    raises(r"`rate`. Expected a number between 0 and 1", ids, mask, 15)
    raises(r"`mask_id`. Expected an id below vocabulary_size, 50", ids, mask, mask_id=50)
    raises(r"`special_ids`. Expected a list of ids", ids, mask, special_ids=1)
    raises(r"`special_ids`. Expected an id below", ids, mask, special_ids=[99])
    raises(r"`random_share`. Expected at most 0.2", ids, mask, random_share=0.3)
    raises(r"`positions`. Expected an integer, at least 1", ids, mask, positions=0)
    raises(r"`seed`. Expected an integer, at least 0", ids, mask, seed=None)
    raises(r"`seed`. Expected an integer, or two of them", ids, mask, seed=(1, 2, 3))
    raises(r"`ids`. Expected an array or a tensor \[batch, length\]", ids[0], mask)
    raises(r"`ids`. Expected integers, the ids of tokens", ids * 1.0, mask)
    raises(r"`padding_mask`. Expected the shape of the ids, \(64, 40\)", ids, mask[:, :9])
    raises(r"range from 0 to 49; the vocabulary has the ids 0 to 39", ids, mask, vocabulary_size=40)
    raises(r"All 3 ids of the vocabulary are special", ids, mask, vocabulary_size=3, mask_id=0)
    raises(r"of a dataset it is part of its elements", dataset_of(ids), mask)
    raises(r"`ids`. Expected a dataset of batches", dataset_of({"ids": ids}))
    raises(r"`ids`. Expected a dataset of batches", tf.data.Dataset.from_tensor_slices(ids))
    raises(r"`seed`. Expected an integer, at least 0", dataset_of(ids), seed=(1, 2))


@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
def test_an_id_of_a_dataset_that_is_not_in_the_vocabulary(wrong):
    masked = kd.language.mask_tokens(dataset_of([[7, wrong]]), seed=0, **OPTIONS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="An id is not in the vocabulary"):
        list(masked)
