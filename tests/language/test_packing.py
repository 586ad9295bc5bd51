"""`pack`: every token once, labels inside of documents, rows as another packer makes them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd


def documents(count=30, most=9, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 90, rng.integers(1, most + 1)).tolist() for _ in range(count)]


def expected(sequences, length, split, end=None):
    """Rows of (id, label, segment, position), written as the docstring says it."""
    rows, row = [], []

    def flush():
        rows.append(row + [(0, -100, 0, 0)] * (length - len(row)))
        row.clear()

    for document in sequences:
        tokens = [*document, *([] if end is None else [end])] if document else []
        if not split and len(row) + len(tokens) > length:
            flush()
        segment, begin = (row[-1][2] if row else 0) + 1, len(row)
        for place, token in enumerate(tokens):
            if len(row) == length:
                flush()
                segment, begin = 1, 0
            label = tokens[place + 1] if place + 1 < len(tokens) else -100
            row.append((token, label, segment, len(row) - begin))
        if split and len(row) == length:
            flush()
    if row:
        flush()
    return np.array(rows)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("end", [None, 99])
@pytest.mark.parametrize("length", [10, 13, 64])
def test_rows(split, end, length):
    found = documents() + [[], [5]]
    x, y = kd.language.pack(found, length, split=split, end_id=end, segments=True)
    true = expected(found, length, split, end)
    np.testing.assert_array_equal(x["token_ids"], true[..., 0])
    np.testing.assert_array_equal(y, true[..., 1])
    np.testing.assert_array_equal(x["segment_ids"], true[..., 2])
    np.testing.assert_array_equal(x["positions"], true[..., 3])
    np.testing.assert_array_equal(x["padding_mask"], true[..., 2] > 0)
    assert {each.dtype for each in (*x.values(), y)} == {np.dtype("int32")}


def test_every_label_once_wherever_a_document_is_cut():
    found = documents(most=40)
    x, y = kd.language.pack(found, 7)
    pairs = sorted(zip(x["token_ids"][y != -100].tolist(), y[y != -100].tolist(), strict=True))
    assert pairs == sorted(p for each in found for p in itertools.pairwise(each))
    assert x["padding_mask"].sum() == sum(map(len, found))
    assert set(x) == {"token_ids", "padding_mask"}


def test_a_document_that_fills_rows_exactly():
    x, y = kd.language.pack([[1, 2, 3, 4], [5, 6]], 2)
    assert x["token_ids"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert y.tolist() == [[2, 3], [4, -100], [6, -100]]
    x, _ = kd.language.pack([[1, 2, 3], [4, 5]], 3, split=False)
    assert x["token_ids"].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_weights_in_place_of_a_class():
    found = documents()
    x, y = kd.language.pack(found, 12, pad_id=3)
    other, labels, weights = kd.language.pack(found, 12, pad_id=3, ignore_class=None)
    np.testing.assert_array_equal(other["token_ids"], x["token_ids"])
    np.testing.assert_array_equal(weights, (y != -100).astype("float32"))
    np.testing.assert_array_equal(labels, np.where(y == -100, 3, y))
    assert x["token_ids"][x["padding_mask"] == 0].tolist() == [3] * (x["padding_mask"] == 0).sum()


@pytest.mark.parametrize("split", [True, False])
def test_drop_remainder(split):
    found = documents(most=6)
    x, _ = kd.language.pack(found, 12, split=split)
    dropped, _ = kd.language.pack(found, 12, split=split, drop_remainder=True)
    is_full = bool(x["padding_mask"][-1].all())
    np.testing.assert_array_equal(
        dropped["token_ids"], x["token_ids"] if is_full else x["token_ids"][:-1]
    )
    x, y = kd.language.pack([[1, 2]], 4, split=split, drop_remainder=True)
    assert x["token_ids"].shape == y.shape == (0, 4)
    x, _ = kd.language.pack([[1, 2], [3, 4]], 4, split=split, drop_remainder=True)
    assert x["token_ids"].tolist() == [[1, 2, 3, 4]]


def test_datasets_equal_lists():
    found = documents()
    data = tf.data.Dataset.from_generator(
        lambda: found, output_signature=tf.TensorSpec([None], tf.int64)
    )
    rows = kd.language.pack(data, 11, segments=True)
    assert rows.element_spec[0]["token_ids"].shape == (11,)
    x, y = kd.language.pack(found, 11, segments=True)
    for _ in range(2):  # a second iteration starts from scratch
        (batch,) = rows.batch(1000)
        tf.nest.map_structure(np.testing.assert_array_equal, batch, (x, y))


def test_attention_mask_keeps_documents_apart():
    """A packed document gets the outputs that it gets alone."""
    keras.utils.set_random_seed(0)
    attention = keras.layers.MultiHeadAttention(2, 4)
    table = keras.layers.Embedding(100, 8)
    found = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    x, _ = kd.language.pack(found, 12, segments=True)
    mask = kd.language.attention_mask(x["segment_ids"])
    embedded = table(x["token_ids"])
    packed = attention(embedded, embedded, attention_mask=mask)
    start = 0
    for document in found:
        alone = table(np.array([document]))
        expected_output = attention(alone, alone, use_causal_mask=True)
        np.testing.assert_allclose(
            packed[:, start : start + len(document)], expected_output, atol=1e-6
        )
        start += len(document)
    both = kd.language.attention_mask(x["segment_ids"], causal=False).numpy()
    assert np.array_equal(both, both.transpose(0, 2, 1))
    assert both[0, 0, :4].tolist() == [True, True, True, False]


def test_bad_input():
    def raises(match, sequences, length=4, **options):
        with pytest.raises(ValueError, match=match):
            kd.language.pack(sequences, length, **options)

    raises(r"`length`. Expected an integer, at least 2", [[1]], 1)
    raises(r"`split`. Expected True or False", [[1]], split=1)
    raises(r"`ignore_class`. Expected a negative integer", [[1]], ignore_class=0)
    raises(r"`end_id`. Expected an integer, at least 0", [[1]], end_id=-1)
    raises(r"`sequences`. Expected a list of lists of token ids", "text")
    raises(r"`sequences`. Expected at least one document", [])
    raises(r"`sequences\[1\]`. Expected a list of token ids", [[1], ["a"]])
    raises(r"`sequences\[0\]`. Expected a list of token ids", [1, 2])
    raises(r"`sequences\[0\]`. Expected a list of token ids", [[1.5]])
    long = [[1], [1, 2, 3, 4]]
    raises(
        r"Document 1 has 4 tokens and an end, and a row 4. With split", long, split=False, end_id=9
    )
    assert len(kd.language.pack(long, 4, split=False)[1]) == 2
    data = tf.data.Dataset.from_tensors([[1, 2], [3, 4]])
    raises(r"Expected a dataset of documents, integers \[tokens\] each", data)
    data = kd.language.pack(tf.data.Dataset.from_tensors([1, 2, 3, 4, 5]), 4, split=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than a row of 4 tokens"):
        list(data)
    with pytest.raises(ValueError, match=r"`segment_ids`. Expected \[batch, length\]"):
        kd.language.attention_mask([1, 2])
