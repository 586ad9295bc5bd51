"""How close a text is to a reference: word and character errors, and answers to questions.

The figures of one text. `keras_kd.measure` has those of a whole data set, by the same counts.
"""

import collections
import dataclasses
import re
import string
import unicodedata
from collections.abc import Callable
from typing import Any

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# Speech.


@dataclasses.dataclass(frozen=True)
class Errors:
    """Substitutions, deletions and insertions that make a text of its reference.

    Attributes:
        errors: How many.
        length: Words, or characters, of the reference.
    """

    errors: int
    length: int

    @property
    def rate(self) -> float:
        """`errors / length`; of an empty reference 0 without errors, and else infinite."""
        if self.length == 0:
            return 0.0 if self.errors == 0 else float("inf")
        return self.errors / self.length


def count_errors(text: str, reference: str, unit: str = "words") -> Errors:
    """Counts errors as jiwer does, with its default transforms: outer and repeated spaces go.

    Args:
        text: What was recognized.
        reference: What was said.
        unit: `"words"` or `"characters"`.
    """
    jiwer = validation.needs("jiwer", "Errors of words and characters", "language")
    process = jiwer.process_words if unit == "words" else jiwer.process_characters
    found = process([reference], [text])
    errors = found.substitutions + found.deletions + found.insertions
    return Errors(errors, found.substitutions + found.deletions + found.hits)


def word_error_rate(text: str, reference: str, normalize: Callable | None = None) -> float:
    """The word error rate of one text.

    `(substitutions + deletions + insertions) / words of the reference`, of the shortest way from
    the reference to the text; above 1 where much was added. Needs
    `pip install 'keras-kd[language]'`: jiwer counts.

    Args:
        text: What was recognized.
        reference: What was said.
        normalize: A function that is applied to both before, such as
            `keras_kd.language.normalize_speech`. Without it `"Yes."` and `"yes"` differ.

    Returns:
        A float, at least 0. Of an empty reference: 0 for an empty text, else infinite.

    Raises:
        ImportError: jiwer is missing.
        ValueError: `text` or `reference` is no string.

    Example:

    ```python
    import keras_kd as kd

    assert kd.language.word_error_rate("the cat sat", "the cat sat down") == 0.25
    normalize = kd.language.normalize_speech
    assert kd.language.word_error_rate("Yes.", "yes", normalize) == 0.0
    ```
    """
    return _rate(text, reference, normalize, "words")


def character_error_rate(text: str, reference: str, normalize: Callable | None = None) -> float:
    """The character error rate of one text: as `word_error_rate`, over characters.

    Args:
        text: What was recognized.
        reference: What was said.
        normalize: A function that is applied to both before.

    Returns:
        A float, at least 0. Of an empty reference: 0 for an empty text, else infinite.

    Raises:
        ImportError: jiwer is missing.
        ValueError: `text` or `reference` is no string.

    Example:

    ```python
    import keras_kd as kd

    assert kd.language.character_error_rate("cart", "card") == 0.25
    ```
    """
    return _rate(text, reference, normalize, "characters")


def _rate(text: str, reference: str, normalize: Callable | None, unit: str) -> float:
    validation.function("normalize", normalize, ["text"], optional=True)
    pair = _string("text", text), _string("reference", reference)
    if normalize is not None:
        pair = normalize(pair[0]), normalize(pair[1])
    return count_errors(*pair, unit).rate


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(name, "a string", repr(value))
    return value


# What stands in brackets was not said: notes of who made the transcript.
_IN_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]*\)")


def normalize_speech(text: str) -> str:
    """A transcript without what is not heard, for languages with spaces between words.

    The rule of Whisper's basic normalizer: lower case, without what stands in brackets, with a
    space in place of each mark, symbol and punctuation sign (Unicode's categories M, S and P), and
    single spaces.

    Args:
        text: A string.

    Returns:
        A string.

    Raises:
        ValueError: `text` is no string.

    Example:

    ```python
    import keras_kd as kd

    assert kd.language.normalize_speech("Well, [noise] it's 5 o'clock!") == "well it s 5 o clock"
    ```

    Reference: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision",
    https://arxiv.org/abs/2212.04356, appendix C
    """
    text = _IN_BRACKETS.sub("", _string("text", text).lower())
    kept = (
        " " if unicodedata.category(each)[0] in "MSP" else each
        for each in unicodedata.normalize("NFKC", text)
    )
    return " ".join("".join(kept).split())


class WordErrorFilter:
    """For `label(keep=)`: keeps a pseudo-label whose word error rate is small enough.

    Distil-Whisper's filter: where the teacher's transcript differs much from the one that is there,
    one of the two is wrong, often because the teacher invented words. Needs
    `pip install 'keras-kd[language]'`.

    Args:
        limit: The largest word error rate that is kept, a fraction; Distil-Whisper: 0.1.
        normalize: What is applied to text and reference before they are compared: `"speech"` for
            `keras_kd.language.normalize_speech`, a function, or `None`.

    Raises:
        ImportError: jiwer is missing.
        ValueError: An argument is wrong, or, when it is called, there is no reference.

    Example:

    ```python
    import keras_kd as kd

    keep = kd.language.WordErrorFilter(0.2)
    assert keep("clip 1", "The cat sat down here.", "the cat sat down here")
    assert not keep("clip 2", "Thanks for watching!", "the cat sat")
    ```

    Reference: Gandhi et al., "Distil-Whisper", https://arxiv.org/abs/2311.00430
    """

    def __init__(self, limit: float = 0.1, normalize: str | Callable | None = "speech"):
        self.limit = validation.non_negative("limit", limit)
        if isinstance(normalize, str):
            validation.one_of("normalize", normalize, ["speech"])
            normalize = normalize_speech
        self.normalize = validation.function("normalize", normalize, ["text"], optional=True)
        validation.needs("jiwer", "keras_kd.language.WordErrorFilter", "language")

    def __call__(self, prompt: Any, text: str, reference: str | None) -> bool:
        """Whether the text is kept.

        Args:
            prompt: It is not looked at.
            text: What the teacher recognized.
            reference: What was said.
        """
        if reference is None:
            raise ValueError(
                "A word error rate needs references. Pass prompts to keras_kd.language.label as "
                "pairs (prompt, reference)."
            )
        return word_error_rate(text, reference, self.normalize) <= self.limit


# Answers to questions.

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalize_answer(text: str) -> str:
    """An answer as SQuAD compares it: lower case, without punctuation and English articles.

    Args:
        text: A string.

    Returns:
        A string, with single spaces.

    Raises:
        ValueError: `text` is no string.

    Example:

    ```python
    import keras_kd as kd

    assert kd.language.normalize_answer("The Eiffel-Tower, a  tower.") == "eiffeltower tower"
    ```

    Reference: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
    https://arxiv.org/abs/1606.05250 (its official evaluation script)
    """
    text = "".join(each for each in _string("text", text).lower() if each not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(text: str, answers: str | list[str]) -> float:
    """Whether an answer equals one of the right ones, after SQuAD's normalization.

    Args:
        text: The answer.
        answers: A string, or a list of right answers; an empty string: there is no answer.

    Returns:
        1.0 or 0.0.

    Raises:
        ValueError: They are no strings, or there is no answer.

    Example:

    ```python
    import keras_kd as kd

    assert kd.language.exact_match("The Nile.", ["nile", "river Nile"]) == 1.0
    ```

    Reference: see `normalize_answer`.
    """
    given = normalize_answer(text)
    return float(any(given == normalize_answer(each) for each in _listed(answers)))


def answer_f1(text: str, answers: str | list[str]) -> float:
    """The F1 of an answer's words against the right one that it is nearest to.

    `2 c / (n + m)` with `c` words in common (as often as both have them), of `n` and `m` words
    after SQuAD's normalization; where one of them has no words, 1 if neither has, else 0.

    Args:
        text: The answer.
        answers: A string, or a list of right answers; an empty string: there is no answer.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: They are no strings, or there is no answer.

    Example:

    ```python
    import keras_kd as kd

    # Two of three words, which are both words of the right answer.
    assert kd.language.answer_f1("long river Nile", ["river Nile", "it"]) == 0.8
    ```

    Reference: see `normalize_answer`.
    """
    given = normalize_answer(text).split()
    return max(_f1(given, normalize_answer(each).split()) for each in _listed(answers))


def _f1(given: list[str], right: list[str]) -> float:
    if not given or not right:
        return float(given == right)
    common = sum((collections.Counter(given) & collections.Counter(right)).values())
    return 2 * common / (len(given) + len(right))


def _listed(answers: Any) -> list[str]:
    listed = [answers] if isinstance(answers, str) else answers
    if not isinstance(listed, (list, tuple)) or not listed:
        raise invalid("answers", "a string, or a list of strings", repr(answers))
    return [_string("answers", each) for each in listed]
