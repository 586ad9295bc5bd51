"""Reports of language models, texts and embeddings: figures, tests, slices, pages."""

import json

import keras
import numpy as np
import pytest
from scipy import stats

import keras_kd as kd
from tests import extras

extras.require("jiwer")
WORDS, LENGTH = 9, 6
QUIET = {"latency": False, "verbose": 0}


def lookup(table, name="student"):
    """A model that reads ids and gives the rows of a table."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.Embedding(*table.shape)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layer], name=name)
    layer.set_weights([table.astype("float32")])
    return model


def tables(noise, seed=0):
    """Logits that favor the next word, more or less clearly."""
    rng = np.random.default_rng(seed)
    return 3 * np.roll(np.eye(WORDS), 1, axis=1) + noise * rng.normal(size=(WORDS, WORDS))


def texts(rows=40):
    rng = np.random.default_rng(7)
    start = rng.integers(WORDS, size=(rows, 1))
    ids = (start + np.arange(LENGTH)) % WORDS
    labels = np.where(
        rng.random(ids.shape) < 0.8, (ids + 1) % WORDS, rng.integers(WORDS, size=ids.shape)
    )
    labels[rng.random(ids.shape) < 0.2] = -100
    return ids.astype("int32"), labels


def losses(table, ids, labels):
    """`(sums of losses, numbers of labels)` of each text."""
    logits = np.float64(np.float32(table))[ids]
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    each = -np.take_along_axis(logs, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    counts = labels >= 0
    return (each * counts).sum(axis=1), counts.sum(axis=1)


def test_a_language_model_of_one_seed(tmp_path):
    ids, labels = texts()
    good, bad = tables(0.3), tables(1.5, seed=1)
    found = kd.report(
        lookup(tables(0.0), "teacher"),
        lookup(good),
        lookup(bad),
        data=(ids, labels),
        task="language_model",
        slices={"start": ids[:, 0] % 2},
        **QUIET,
    )
    assert found.metric.key == "perplexity"
    values, influences = [], []
    for table in (good, bad):
        sums, counts = losses(table, ids, labels)
        value = np.exp(sums.sum() / counts.sum())
        steps = (sums - counts * sums.sum() / counts.sum()) / counts.mean()
        values.append(value)
        influences.append(value * (1 + steps))
    difference = found.difference
    assert difference.mean == pytest.approx(values[1] - values[0], rel=1e-5)
    test = stats.ttest_rel(influences[1], influences[0])
    # The gain itself, by the samples' spread.
    error = np.std(influences[1] - influences[0], ddof=1) / np.sqrt(len(ids))
    p = 2 * stats.t.sf(abs(np.mean(influences[1] - influences[0])) / error, len(ids) - 1)
    assert p == pytest.approx(test.pvalue)
    assert difference.p == pytest.approx(p, rel=1e-3)
    assert found.finding == "gain"
    assert "lowered perplexity" in found.verdict
    candidates = {each.name: each for each in found.comparison.candidates}
    assert candidates["distilled"].measurements[0].teacher["agreement"] > 0.5
    by_slice = {row["value"]: row for row in found.slices}
    for value, row in by_slice.items():
        rows = ids[:, 0] % 2 == value
        sums, counts = losses(good, ids[rows], labels[rows])
        assert row["scores"]["distilled"] == pytest.approx(
            np.exp(sums.sum() / counts.sum()), rel=1e-5
        )
        assert row["gain"] > 0
    assert "distilled, perplexity" in str(found)
    found.save_html(tmp_path / "report.html")
    found.save_json(tmp_path / "report.json")
    assert "perplexity" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["metric"] == "perplexity"
    )


def test_a_language_model_is_trained_and_exported(tmp_path):
    ids, labels = texts()
    labels = np.maximum(labels, 0)

    def train(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.05), loss=loss, run_eagerly=True)
        model.fit(ids, labels, epochs=2, batch_size=20, verbose=0)

    def student():
        stack = [keras.layers.Embedding(WORDS, 4), keras.layers.Dense(WORDS)]
        return keras.Sequential([keras.Input((LENGTH,), dtype="int32"), *stack])

    extras.require("ai_edge_litert")
    found = kd.report(
        lookup(tables(0.0), "teacher"),
        make_student=student,
        train=train,
        seeds=2,
        exports={"float32": kd.export.to_tflite},
        data=(ids, labels),
        task="language_model",
        metric="log_loss",
        **QUIET,
    )
    candidates = {each.name: each for each in found.comparison.candidates}
    for model, value in zip(
        found.students, candidates["float32"].values("quality", "log_loss"), strict=True
    ):
        logits = np.float64(model(ids))
        logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        true = -np.take_along_axis(logs, labels[..., None], axis=-1).mean()
        assert value == pytest.approx(true, rel=1e-4)
    assert found.difference.seeds == 2
    assert candidates["float32"].measurements[0].teacher["kl"] > 0


ANSWERS = [f"answer {i}" for i in range(30)]


class Writer(keras.Model):
    """Writes the right answer to some of the questions."""

    def __init__(self, right, other, name):
        super().__init__(name=name)
        self.right, self.other = right, other

    def call(self, x):
        return x

    def generate(self, prompts):
        return [ANSWERS[int(each)] if int(each) in self.right else self.other for each in prompts]


def writer(right, other="nothing", name="writer"):
    model = Writer(set(right), other, name)
    model(np.zeros((1, 1), "float32"))
    return model


def write(model, prompts):
    return model.generate(prompts)


QUESTIONS = [str(i) for i in range(30)]


def test_answers_of_one_seed_are_tested_by_mcnemar():
    found = kd.report(
        writer(range(29)),
        writer(range(20)),
        writer([*range(8), 25]),
        data=(QUESTIONS, ANSWERS),
        task="question_answering",
        metric="exact_match",
        generate=write,
        slices={"half": np.arange(30) // 15},
        **QUIET,
    )
    assert found.difference.test == "McNemar's exact test"
    assert found.difference.p == pytest.approx(stats.binomtest(12, 13, 0.5).pvalue)
    assert found.difference.mean == pytest.approx(11 / 30)
    assert found.finding == "gain"
    assert "points of exact match" in found.verdict
    rows = {row["value"]: row["scores"] for row in found.slices}
    assert rows[1] == pytest.approx(
        {"teacher": 14 / 15, "labels only": 1 / 15, "distilled": 5 / 15}
    )
    assert "distilled, exact match, %" in str(found)
    found = kd.report(
        None,
        writer(range(20), "answer"),
        writer(range(8), "answer"),
        data=(QUESTIONS, ANSWERS),
        task="question_answering",
        generate=write,
        **QUIET,
    )
    assert found.metric.key == "f1"
    gains = np.where((np.arange(30) >= 8) & (np.arange(30) < 20), 1 - 2 / 3, 0.0)
    assert found.difference.test == "paired t-test over the samples"
    assert found.difference.p == pytest.approx(stats.ttest_1samp(gains, 0.0).pvalue)


def test_transcripts_and_translations(tmp_path):
    references = ["one two three four", "five six", "seven eight nine"] * 10
    options = {"data": (QUESTIONS, references), "generate": lambda model, x: model.speak(x)}
    said = {
        "student": ["one two three four", "five", "seven eight nine ten"] * 10,
        "baseline": ["one two", "five", "seven ate nine"] * 10,
    }

    def speaker(name):
        model = writer([], name=name)
        model.speak = lambda prompts: [said[name][int(each)] for each in prompts]
        return model

    models = speaker("student"), speaker("baseline")
    found = kd.report(None, *models, task="speech_recognition", **options, **QUIET)
    assert found.metric.key == "wer"
    assert found.difference.mean == pytest.approx((4 - 2) / 9)
    errors = np.array([[2, 1, 1], [0, 1, 1]]) @ np.eye(3)
    lengths = np.array([4, 2, 3])
    influences = [e.sum() / 9 + (e - e.sum() / 9 * lengths) / lengths.mean() for e in errors]
    gains = np.tile(influences[0] - influences[1], 10)
    assert found.difference.p == pytest.approx(stats.ttest_1samp(gains, 0.0).pvalue)
    assert "lowered word error rate" in found.verdict
    found = kd.report(None, *models, task="translation", metric="chrf", **options, **QUIET)
    assert found.difference.p is None  # of the whole corpus, and one seed
    found.save_markdown(tmp_path / "report.md")
    assert "chrF" in (tmp_path / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="Slices need a prediction for each sample"):
        kd.report(None, *models, task="translation", slices=[0] * 30, **options, **QUIET)
    with pytest.raises(ValueError, match=r"`metric`. Expected one of \['cer', 'wer'\]"):
        kd.report(None, *models, task="speech_recognition", metric="bleu", **options, **QUIET)


@pytest.mark.parametrize("task", ["retrieval", "similarity"])
def test_embeddings(task, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype("float32")

    def encoder(noise, seed=0, name="encoder"):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(5, use_bias=False)], name=name
        )
        model.set_weights([np.eye(5) + noise * np.random.default_rng(seed).normal(size=(5, 5))])
        return model

    if task == "retrieval":
        data = kd.language.retrieval_data(x, x + 0.3 * rng.normal(size=x.shape).astype("float32"))
        options = {"metric": "recall_at_1"}
    else:
        other = rng.normal(size=x.shape).astype("float32")
        cosines = (x * other).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(other, axis=1)
        data, options = kd.language.similarity_data(x, other, cosines), {}
    students = [encoder(0.2, seed) for seed in range(2)]
    baselines = [encoder(2.0, seed + 5) for seed in range(2)]
    found = kd.report(encoder(0.0), students, baselines, data=data, task=task, **options, **QUIET)
    candidates = {each.name: each for each in found.comparison.candidates}
    expected = [kd.measure(each, data, task=task, **QUIET) for each in students]
    key = found.metric.key
    assert candidates["distilled"].values("quality", key) == [
        each.quality[key] for each in expected
    ]
    assert key == ("recall_at_1" if task == "retrieval" else "spearman")
    assert candidates["teacher"].mean("quality", key) > candidates["labels only"].mean(
        "quality", key
    )
    assert candidates["distilled"].mean("teacher", "cosine") > 0.8
    found.save_html(tmp_path / "report.html")
    one = kd.report(
        encoder(0.0),
        students[0],
        baselines[0],
        data=data,
        task=task,
        slices=None,
        **options,
        **QUIET,
    )
    if task == "retrieval":
        hits = [
            kd.measure(each, data, task=task, **QUIET).sample_scores[key].numerators == 1
            for each in (students[0], baselines[0])
        ]
        only = (hits[0] & ~hits[1]).sum(), (hits[1] & ~hits[0]).sum()
        assert one.difference.p == pytest.approx(stats.binomtest(only[0], sum(only), 0.5).pvalue)
        by_row = kd.report(
            None,
            students[0],
            data=data,
            task=task,
            slices={"part": np.arange(120) % 3},
            **options,
            **QUIET,
        )
        rows = {row["value"]: row["scores"]["distilled"] for row in by_row.slices}
        assert rows[2] == pytest.approx(hits[0][2::3].mean())
    else:
        assert one.difference.p is None
