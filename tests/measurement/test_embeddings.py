"""Retrieval and similarity: by a plain search in NumPy; ties, weights, teachers, files."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_kd as kd
from keras_kd import __main__
from tests import extras

WIDTH = 6
QUIET = {"latency": False, "verbose": 0}


def encoder(seed=0, width=WIDTH):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(width, "tanh")])


def inputs(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype("float32")


def constant(batch):
    return np.ones((len(batch), 3), "float32")


def zeros(batch):
    return np.zeros((len(batch), 3), "float32")


def broken(batch):
    return np.full((len(batch), 2), np.nan)


def unit(values):
    values = np.float64(values)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def plain_search(vectors, queries, documents, items, ks):
    """`(recalls by k, reciprocal ranks)` of each query, by sorting."""
    recalls, reciprocal = {k: [] for k in ks}, []
    for query in queries:
        others = [d for d in documents if d != query]
        order = sorted(others, key=lambda d: -(vectors[d] @ vectors[query]))
        right = [items[d] == items[query] for d in order]
        for k in ks:
            recalls[k].append(sum(right[:k]) / sum(right))
        reciprocal.append(1 / (right.index(True) + 1))
    return recalls, reciprocal


@pytest.mark.parametrize("batch_size", [7, 256])
def test_queries_and_documents(batch_size):
    queries, documents = inputs(30), inputs(40, seed=1)
    documents[:30] = queries + 0.7 * documents[:30]
    relevant = np.random.default_rng(2).permutation(30)
    relevant[3] = -1
    data = kd.language.retrieval_data(queries, documents, relevant)
    model = encoder()
    found = kd.measure(model, data, task="retrieval", batch_size=batch_size, **QUIET)
    vectors = unit(model(data[0]))
    asked = [i for i in range(30) if i != 3]
    items = [*relevant, *range(40)]
    recalls, reciprocal = plain_search(vectors, asked, range(30, 70), items, (1, 5, 10))
    true = {f"recall_at_{k}": np.mean(each) for k, each in recalls.items()}
    assert found.quality == pytest.approx({**true, "mrr": np.mean(reciprocal)})
    assert found.samples == 29
    assert np.flatnonzero(found.counted).tolist() == asked
    np.testing.assert_allclose(found.sample_scores["recall_at_5"].numerators, recalls[5])
    assert "29 queries among 40 documents." in found.notes


def test_labels_of_one_number_search_all_the_others():
    x, labels = inputs(50), np.random.default_rng(0).integers(6, size=50)
    labels[:2] = -1  # found, but not looked for
    labels[2] = 99  # alone
    model = encoder()
    found = kd.measure(model, (x, labels), task="retrieval", top_k=(1, 3), **QUIET)
    asked = [i for i in range(3, 50) if (labels == labels[i]).sum() > 1]
    recalls, reciprocal = plain_search(unit(model(x)), asked, range(50), labels, (1, 3))
    true = {f"recall_at_{k}": np.mean(each) for k, each in recalls.items()}
    assert found.quality == pytest.approx({**true, "mrr": np.mean(reciprocal)})
    assert found.samples == len(asked)


def test_weights():
    queries, documents = inputs(10), inputs(12, seed=1)
    x, labels = kd.language.retrieval_data(queries, documents[:10])
    x, labels = np.concatenate([x, documents[10:]]), np.concatenate([labels, [[50, 1], [51, 1]]])
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 22)
    weights[4] = 0  # a query
    weights[[13, 20]] = 0  # documents: that of query 3, and one of none
    model = encoder()
    found = kd.measure(model, (x, labels, weights), task="retrieval", top_k=(1, 4), **QUIET)
    asked = [i for i in range(10) if i not in (3, 4)]
    there = [i for i in range(10, 22) if i not in (13, 20)]
    recalls, reciprocal = plain_search(unit(model(x)), asked, there, labels[:, 0], (1, 4))
    true = {f"recall_at_{k}": np.average(v, weights=weights[asked]) for k, v in recalls.items()}
    true["mrr"] = np.average(reciprocal, weights=weights[asked])
    assert found.quality == pytest.approx(true)
    assert found.weights == pytest.approx(weights[asked])


def test_a_model_that_gives_one_vector_for_all_finds_nothing():
    x = inputs(20)
    data = kd.language.retrieval_data(x, x)
    found = kd.measure(constant, data, task="retrieval", **QUIET)
    assert found.quality["recall_at_1"] == found.quality["recall_at_10"] == 0.0
    assert found.quality["mrr"] == pytest.approx(1 / 20)
    assert kd.measure(zeros, data, task="retrieval", **QUIET).quality["recall_at_10"] == 0.0


def test_top_k_of_few_documents():
    x = inputs(6)
    data = kd.language.retrieval_data(x[:3], x[3:])
    found = kd.measure(encoder(), data, task="retrieval", **QUIET)
    assert set(found.quality) == {"recall_at_1", "mrr"}
    found = kd.measure(encoder(), data, task="retrieval", top_k=3, **QUIET)
    assert found.quality["recall_at_3"] == 1.0
    with pytest.raises(
        ValueError, match="`top_k`. Expected numbers up to that of the documents, 3"
    ):
        kd.measure(encoder(), data, task="retrieval", top_k=(1, 4), **QUIET)


def test_retrieval_against_a_teacher():
    x = inputs(25)
    data = kd.language.retrieval_data(x, x + 0.1 * inputs(25, seed=1))
    model = encoder()
    for teacher in (encoder(1), encoder(1, width=9)):
        found = kd.measure(model, data, task="retrieval", teacher=teacher, **QUIET).teacher
        ours, theirs = unit(model(data[0])), unit(teacher(data[0]))
        first = [(v[:25] @ v[25:].T).argmax(axis=1) for v in (ours, theirs)]
        assert found["agreement"] == pytest.approx(np.mean(first[0] == first[1]))
        if ours.shape == theirs.shape:
            assert found["cosine"] == pytest.approx((ours * theirs).sum(axis=1).mean())
        else:
            assert "cosine" not in found


def write_tflite(model, path):
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def write_onnx(model, path):
    extras.require("onnxruntime")
    kd.export.to_onnx(model, path)


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.parametrize("task", ["retrieval", "similarity"])
def test_a_file_has_the_same_figures(task, kind, tmp_path):
    x, other = inputs(20), inputs(20, seed=1)
    make = {"retrieval": kd.language.retrieval_data, "similarity": kd.language.similarity_data}
    extra = () if task == "retrieval" else (np.arange(20) % 7,)
    data = make[task](x, x + other, *extra)
    model = encoder()
    path = tmp_path / f"encoder.{kind}"
    {"tflite": write_tflite, "onnx": write_onnx}[kind](model, path)
    expected = kd.measure(model, data, task=task, **QUIET).quality
    found = kd.measure(path, data, task=task, teacher=model, runs=2, verbose=0)
    assert found.quality == pytest.approx(expected)
    assert found.teacher["cosine"] == pytest.approx(1.0)
    assert found.latency is not None


# Similarity.


def test_similarity():
    first, second = inputs(30), inputs(30, seed=1)
    model = encoder()
    cosines = (unit(model(first)) * unit(model(second))).sum(axis=1)
    scores = np.round(cosines + np.random.default_rng(0).normal(size=30), 1)  # with ties
    data = kd.language.similarity_data(first, second, scores)
    found = kd.measure(model, data, task="similarity", **QUIET)

    def ranks(values):
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    signs = [np.sign(np.subtract.outer(v, v)) for v in (cosines, scores)]
    tau = (signs[0] * signs[1]).sum() / np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    true = {
        "spearman": np.corrcoef(ranks(cosines), ranks(scores))[0, 1],
        "kendall": tau,
        "pearson": np.corrcoef(cosines, scores)[0, 1],
    }
    assert found.quality == pytest.approx(true)
    assert found.samples == 30
    assert found.labels.tolist() == scores.tolist()
    order = np.random.default_rng(3).permutation(60)
    mixed = kd.measure(model, (data[0][order], data[1][order]), task="similarity", **QUIET)
    assert mixed.quality == pytest.approx(true)
    weights = np.ones(60)
    weights[[4, 34]] = 0
    found = kd.measure(model, (*data, weights), task="similarity", **QUIET)
    rest = np.arange(30) != 4
    assert found.quality["spearman"] == pytest.approx(
        stats.spearmanr(cosines[rest], scores[rest]).statistic
    )


def test_scores_of_a_model_that_reads_both_texts():
    x, scores = inputs(15), np.random.default_rng(1).normal(size=15)
    model = encoder(width=1)
    found = kd.measure(model, (x, scores), task="similarity", teacher=encoder(1, width=1), **QUIET)
    values = np.asarray(model(x))[:, 0]
    assert found.quality["spearman"] == pytest.approx(stats.spearmanr(values, scores).statistic)
    other = np.asarray(encoder(1, width=1)(x))[:, 0]
    assert found.teacher == pytest.approx({"spearman": stats.spearmanr(values, other).statistic})


def test_one_score_for_all_has_no_rank():
    data = kd.language.similarity_data(inputs(5), inputs(5), np.arange(5))
    for given in (encoder(), constant, zeros):  # the same inputs: 1, 1 and 0, up to rounding
        found = kd.measure(given, data, task="similarity", **QUIET)
        assert found.quality == {}
        assert "spearman, kendall, pearson: left out; all scores are the same." in found.notes


# Bad input.


def test_bad_labels():
    x = inputs(6)

    def raises(match, labels, *weights, task="retrieval", model=None, **options):
        with pytest.raises(ValueError, match=match):
            kd.measure(model or encoder(), (x, labels, *weights), task=task, **QUIET, **options)

    raises(r"Expected labels \[samples\], whole numbers", np.arange(6) + 0.5)
    raises(r"Expected labels \[samples\], whole numbers", np.zeros((6, 3)))
    raises("The second label of a sample must be 0, a query, or 1", np.full((6, 2), 2))
    raises("No query has a document to find", np.arange(6))
    raises("No query has a document to find", np.zeros((6, 2), int))
    raises(r"The data has 12 sample weights for 6 embeddings", np.zeros(6, int), np.ones((6, 2)))
    raises("`class_names` names classes", np.zeros(6, int), class_names=["a"])
    pairs = np.array([[0, 1], [0, 1], [1, 2], [1, 2], [2, 5], [2, 5]])
    raises(r"Two samples must have the number of a pair; 4 have 0", pairs // 2, task="similarity")
    wrong = pairs.copy()
    wrong[1, 1] = 7
    raises("Both samples of a pair must have its score", wrong, task="similarity")
    raises("scores that are not all the same", pairs * [1, 0], task="similarity")
    raises("Rank correlations take no sample weights", pairs, np.arange(1, 7.0), task="similarity")
    raises("needs|Expected labels", np.arange(6), task="similarity")
    deep = keras.Sequential([keras.Input((4,)), keras.layers.Reshape((2, 2))])
    raises(r"Expected embeddings \[samples, width\]: pool", np.zeros(6, int), model=deep)
    raises("gives NaN or infinities in 6 of 6 samples", np.zeros(6, int), model=broken)
    raises("The teacher gives|has 5 samples", np.zeros(6, int), teacher=np.ones((5, 2)))


def test_bad_pairs():
    x = inputs(4)
    with pytest.raises(ValueError, match="`relevant`. Expected the number of a document for each"):
        kd.language.retrieval_data(x, x[:3])
    with pytest.raises(ValueError, match="`relevant`. Expected integers, one for each of 4"):
        kd.language.retrieval_data(x, x, [1, 2])
    with pytest.raises(ValueError, match="`relevant`. Expected numbers of 3 documents, or -1"):
        kd.language.retrieval_data(x, x[:3], [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"`queries`. Expected an array \[samples, ...\]"):
        kd.language.retrieval_data(3, x)
    with pytest.raises(ValueError, match="`first`, `second` and `scores` must have one length"):
        kd.language.similarity_data(x, x, [1, 2])
    # Structures, and texts.
    both, labels = kd.language.retrieval_data({"a": x}, {"a": x[:2]}, [0, 1, 1, -1])
    assert both["a"].shape == (6, 4)
    assert labels.tolist() == [[0, 0], [1, 0], [1, 0], [-1, 0], [0, 1], [1, 1]]
    texts, labels = kd.language.similarity_data(["a", "b"], ["c", "d"], [0.5, 1])
    assert texts.tolist() == ["a", "b", "c", "d"]
    assert labels.tolist() == [[0, 0.5], [1, 1], [0, 0.5], [1, 1]]


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    model = encoder()
    model.save(tmp_path / "encoder.keras")
    data = kd.language.retrieval_data(inputs(12), inputs(12) + 0.1)
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
    (tmp_path / "own_search.py").write_text(
        "import numpy as np\n\ndef test():\n    found = np.load('data.npz')\n"
        "    return found['x'], found['y']\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["measure", "encoder.keras", "--data", "own_search:test", "--runs", "0", "--json"]
    assert __main__.main([*words, "--task", "retrieval", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quality"] == pytest.approx(
        kd.measure(model, data, task="retrieval", **QUIET).quality
    )
    assert __main__.main([*words, "--task", "search"]) == 2
    assert "--task" in capsys.readouterr().err
