"""Scores of one text: by hand, by another edit distance, and by the rules of SQuAD's script."""

import numpy as np
import pytest

import keras_kd as kd
from tests import extras

extras.require("jiwer")
language = kd.language


def distance(one, other):
    """The Levenshtein distance of two sequences."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_word_and_character_errors_by_hand():
    # One substitution, one deletion, one insertion of 5 words.
    assert language.word_error_rate("a X c e f", "a b c d e") == pytest.approx(3 / 5)
    assert language.word_error_rate("one two three", "one") == 2.0
    assert language.word_error_rate("  one   two ", "one two") == 0.0
    assert language.character_error_rate("kitten", "sitting") == pytest.approx(3 / 7)
    assert language.word_error_rate("", "a b") == 1.0


def test_empty_references():
    for rate in (language.word_error_rate, language.character_error_rate):
        assert rate("", "") == 0.0
        assert rate("a", "") == float("inf")


def test_errors_equal_an_edit_distance():
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = (
            [str(word) for word in rng.integers(4, size=rng.integers(1, 9))] for _ in range(2)
        )
        found = language.word_error_rate(" ".join(one), " ".join(other))
        assert found == pytest.approx(distance(one, other) / len(other))
        texts = " ".join(one), " ".join(other)
        found = language.character_error_rate(*texts)
        assert found == pytest.approx(distance(*texts) / len(texts[1]))


def test_normalize_speech():
    normalize = language.normalize_speech
    assert normalize("  Hello, (laughs) WORLD!\n<unk>It\u2019s 3.5% ") == "hello world it s 3 5"
    assert normalize("Žluťoučký kůň") == "žluťoučký kůň"
    assert language.word_error_rate("Hello, World!", "hello world", normalize) == 0.0
    assert language.word_error_rate("Hello, World!", "hello world") == 1.0


def test_word_error_filter():
    keep = language.WordErrorFilter(0.25)
    assert keep(None, "the cat sat there.", "the cat sat here") is True  # 0.25 is not above
    assert keep(None, "the cat", "the cat sat here") is False
    exact = language.WordErrorFilter(0.0, normalize=None)
    assert exact(None, "a b", "a b")
    assert not exact(None, "A b", "a b")
    with pytest.raises(ValueError, match=r"`normalize`. Expected one of \('speech',\)"):
        language.WordErrorFilter(normalize="english")
    lower = language.WordErrorFilter(0.0, normalize=str.lower)
    assert lower(None, "A b", "a B")
    with pytest.raises(ValueError, match="needs references. Pass prompts to"):
        keep("prompt", "text", None)
    with pytest.raises(ValueError, match="`limit`. Expected a finite number, at least 0"):
        language.WordErrorFilter(-0.1)


def test_answers_by_hand():
    assert language.normalize_answer("  The  cat's (an) A-Team. ") == "cats ateam"
    assert language.exact_match("an answer!", "Answer") == 1.0
    assert language.exact_match("answers", ["answer", "reply"]) == 0.0
    # 2 common words of 3 and 4: precision 2/3, recall 1/2.
    assert language.answer_f1("x y z", "x y u v") == pytest.approx(
        2 * (2 / 3) * 0.5 / (2 / 3 + 0.5)
    )
    assert language.answer_f1("x x y", "x z") == pytest.approx(2 / 5)  # a repeated word counts once
    assert language.answer_f1("x y", ["q", "x y"]) == 1.0
    assert language.answer_f1("x", "q") == 0.0


def test_questions_without_an_answer():
    # As SQuAD 2's script: an empty answer is right or not, and nothing in between.
    for score in (language.exact_match, language.answer_f1):
        assert score("", "") == 1.0
        assert score("the", "") == 1.0  # nothing is left of it
        assert score("Nile", "") == 0.0
        assert score("", "Nile") == 0.0


@pytest.mark.parametrize("score", [language.exact_match, language.answer_f1])
def test_bad_answers(score):
    with pytest.raises(ValueError, match="`text`. Expected a string"):
        score(3, "a")
    with pytest.raises(ValueError, match="`answers`. Expected a string, or a list of strings"):
        score("a", [])
    with pytest.raises(ValueError, match="`answers`. Expected a string"):
        score("a", ["b", None])


@pytest.mark.parametrize("rate", [language.word_error_rate, language.character_error_rate])
def test_bad_texts(rate):
    with pytest.raises(ValueError, match="`text`. Expected a string"):
        rate(b"a", "a")
    with pytest.raises(ValueError, match="`reference`. Expected a string"):
        rate("a", None)
    with pytest.raises(ValueError, match="`normalize`. Expected a function of"):
        rate("a", "a", "lower")
