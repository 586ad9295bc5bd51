"""Texts by task: known values of the libraries' documentation, figures by hand, `generate`."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.measurement import files

for package in ("jiwer", "rouge_score", "sacrebleu"):
    extras.require(package)
QUIET = {"latency": False, "verbose": 0}


def measure(texts, references, task, *weights, **options):
    return kd.measure(
        texts, (["x"] * len(texts), references, *weights), task=task, **QUIET, **options
    )


def test_translation_as_in_the_documentation_of_sacrebleu():
    texts = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    found = measure(texts, references, "translation")
    assert found.quality["bleu"] == pytest.approx(48.53, abs=0.005)
    assert found.quality["chrf"] == pytest.approx(59.73, abs=0.005)
    assert found.sample_scores == {}
    # Rows of another number of references, filled up in an array.
    fewer = [*references[:2], references[2][:1]]
    padded = [*references[:2], [references[2][0], ""]]
    assert (
        measure(texts, fewer, "translation").quality
        == measure(texts, np.array(padded), "translation").quality
    )
    with pytest.raises(ValueError, match="A reference is empty, against which BLEU"):
        measure(texts, ["a", "", "b"], "translation")
    with pytest.raises(ValueError, match="BLEU takes no sample weights"):
        measure(texts, references, "translation", [1.0, 2.0, 1.0])


def test_summaries_by_hand():
    reference = "The quick brown fox jumps over the lazy dog"
    # 6 of 8 and 9 words are common, 2 of 7 and 8 pairs; 5 words in order.
    texts = ["The quick brown dog jumps on the log.", reference]
    found = measure(texts, [reference] * 2, "summarization")
    expected = {"rouge_1": 12 / 17, "rouge_2": 4 / 15, "rouge_l": 10 / 17, "rouge_lsum": 10 / 17}
    assert found.quality == pytest.approx({k: (v + 1) / 2 for k, v in expected.items()})
    weighted = measure(texts, [reference] * 2, "summarization", [3.0, 1.0])
    assert weighted.quality == pytest.approx({k: (3 * v + 1) / 4 for k, v in expected.items()})
    of_samples = found.sample_scores["rouge_1"]
    assert of_samples.numerators == pytest.approx([12 / 17, 1])
    assert of_samples.is_mean


def test_answers_by_hand():
    texts = ["The Nile", "a long river", "", "Rome"]
    answers = [["Nile", "river Nile"], ["long green river"], [""], ["Paris", "Lyon"]]
    found = measure(texts, answers, "question_answering")
    assert found.quality == pytest.approx({"exact_match": 2 / 4, "f1": (1 + 4 / 5 + 1 + 0) / 4})
    assert found.labels.tolist() == answers
    assert found.samples == 4
    weighted = measure(texts, answers, "question_answering", [1.0, 2.0, 0.0, 1.0])
    assert weighted.quality == pytest.approx({"exact_match": 1 / 4, "f1": (1 + 2 * 4 / 5) / 4})
    assert weighted.samples == 3
    assert weighted.counted.reshape(-1).tolist() == [True, True, False, True]


def test_speech_by_hand():
    texts = ["hello duck", "a b c d e", "x"]
    references = ["hello world", "a b d e", "y z"]
    # As jiwer's documentation: 1 of 2; one word too many of 4; one wrong and one missing of 2.
    found = measure(texts, references, "speech_recognition")
    assert found.quality["wer"] == pytest.approx((1 + 1 + 2) / (2 + 4 + 2))
    characters = (5 + 2 + 3) / (11 + 7 + 3)
    assert found.quality["cer"] == pytest.approx(characters)
    weighted = measure(texts, references, "speech_recognition", [1.0, 0.5, 2.0])
    assert weighted.quality["wer"] == pytest.approx((1 + 0.5 + 4) / (2 + 2 + 4))
    with pytest.raises(ValueError, match="give one transcript each"):
        measure(texts, [["a", "b"]] * 3, "speech_recognition")
    with pytest.raises(ValueError, match="All references are empty"):
        measure(texts, ["", "", ""], "speech_recognition")


def test_an_empty_reference_counts_with_its_errors():
    found = measure(["uh", "a b"], ["", "a b"], "speech_recognition")
    assert found.quality["wer"] == pytest.approx(1 / 2)


def test_references_of_a_dataset_are_padded_by_batch():
    data = tf.data.Dataset.from_tensor_slices((["p", "q"], [["Nile", "a"], ["b", ""]])).batch(1)
    narrow = data.map(lambda x, y: (x, y[:, :1])).skip(1)
    data = data.take(1).concatenate(narrow)
    found = kd.measure(["nile", "b"], data, task="question_answering", **QUIET)
    assert found.quality["exact_match"] == 1.0


# Texts that a model writes.


class Letters(keras.Model):
    """Writes as many letters as asked; stands for what has a `generate` of its own."""

    def __init__(self):
        super().__init__(name="letters")
        self.dense = keras.layers.Dense(3)
        self.asked = []

    def call(self, x):
        return self.dense(x)

    def generate(self, prompts, max_length):
        self.asked.append(prompts)
        return [each.upper()[:max_length] for each in prompts]


@pytest.fixture
def letters():
    model = Letters()
    model(np.zeros((1, 2), "float32"))
    return model


def write(model, prompts):
    return model.generate(prompts, max_length=3)


def test_generate(letters):
    prompts, true = ["abcd", "ef", "ghi"], ["ABC", "EF", "XYZ"]
    options = {"generate": write, "task": "question_answering", "batch_size": 2}
    found = kd.measure(letters, (prompts, true), runs=2, warmup=0, verbose=0, **options)
    assert letters.asked[:2] == [["abcd", "ef"], ["ghi"]]
    assert found.predictions.tolist() == ["ABC", "EF", "GHI"]
    assert found.quality["exact_match"] == pytest.approx(2 / 3)
    assert found.size["parameters"] == 9
    assert "macs" not in found.size
    assert (found.kind, found.latency["runtime"]) == ("keras", "keras, generate")
    assert letters.asked[2:] == [["abcd"]] * 2  # what is timed is one sample
    assert found.latency["runs"] == 2
    data = tf.data.Dataset.from_tensor_slices((prompts, true)).batch(2)
    again = kd.measure(letters, data, latency=False, verbose=0, **options)
    assert again.quality == found.quality
    assert letters.asked[-1] == ["ghi"]


def test_generate_of_a_file(tmp_path):

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    path = tmp_path / "model.tflite"
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    path.write_bytes(converter.convert())

    def words(file, inputs):
        (outputs,) = file.run([inputs])
        return [["left", "right"][i] for i in outputs.argmax(axis=-1)]

    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    true = [["left", "right"][i] for i in np.asarray(model(x)).argmax(axis=-1)]
    found = kd.measure(path, (x, true), generate=words, task="question_answering", **QUIET)
    assert found.quality["exact_match"] == 1.0
    assert found.size["bytes"] == path.stat().st_size


def test_bad_generate(letters):
    data = (["a", "b"], ["A", "B"])

    def raises(match, model=letters, **options):
        with pytest.raises(ValueError, match=match):
            kd.measure(model, data, **{"task": "translation", **QUIET, **options})

    raises("`generate`. Expected a function of", generate="beam")
    raises("`generate`. Expected a function of", generate=lambda prompts: prompts)
    raises("pass one of them", generate=write, decode=list)
    raises("gives texts by itself", ["A", "B"], generate=write)
    raises("gives texts by itself", lambda x: x, generate=write)
    raises("`generate` writes texts, and the task is 'binary'", generate=write, task="binary")
    raises("must return a list with a string for each of 2", generate=lambda m, p: ["A"])
    raises(
        "The task is 'translation', but letters gives 1 of type int", generate=lambda m, p: [1, 2]
    )
    with pytest.raises(ValueError, match="`class_names` names classes, and the task is 'translat"):
        kd.measure(["A", "B"], data, task="translation", class_names=["a"], **QUIET)
    with pytest.raises(ValueError, match="`top_k` is for classes and retrieval"):
        kd.measure(["A", "B"], data, task="translation", top_k=3, **QUIET)
    with pytest.raises(ValueError, match="`task`. Expected 'auto' or one of"):
        kd.measure(["A", "B"], data, task="qa", **QUIET)


@pytest.mark.parametrize(
    ("task", "module"),
    [
        ("speech_recognition", "jiwer"),
        ("translation", "sacrebleu.metrics"),
        ("similarity", "scipy.stats"),
        ("summarization", "rouge_score.rouge_scorer"),
    ],
)
def test_what_is_missing_is_named_before_the_model_runs(task, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)

    def never(inputs):
        raise AssertionError

    with pytest.raises(ImportError, match=r"pip install 'keras-kd\[language\]'"):
        kd.measure(never, (["a"], ["b"]), task=task, **QUIET)


def test_texts_need_no_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    assert measure(["a"], ["a"], "question_answering").quality["f1"] == 1.0


def test_numbers_where_texts_are_due():
    x, _ = files.arrays()
    with pytest.raises(ValueError, match="`generate` has a model write them"):
        kd.measure(files.classifier(), (x[:2], ["a", "b"]), task="summarization", **QUIET)
