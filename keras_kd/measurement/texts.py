"""Quality of texts: translations, summaries, answers, transcripts, against references."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.language import scores
from keras_kd.measurement.quality import Figures
from keras_kd.measurement.sample_scores import SampleScores

_ROUGE = {
    "rouge_1": "rouge1",
    "rouge_2": "rouge2",
    "rouge_l": "rougeL",
    "rouge_lsum": "rougeLsum",
}
_WHO = "keras_kd.measure of text"


@dataclasses.dataclass(frozen=True)
class Texts:
    """The samples of a task of texts that count.

    Attributes:
        texts: What the model wrote.
        references: A string, or a list of them, for each, as the data have it.
        listed: A list of references for each.
        weights: Float64, above 0.
        counted: Bool, which of all samples these are.
    """

    texts: list[str]
    references: list[Any]
    listed: list[list[str]]
    weights: np.ndarray
    counted: np.ndarray


def select(task: str, name: str, outputs: Any) -> Texts:
    """Texts and references of the samples that count.

    Args:
        task: One of `tasks.TEXTS`.
        name: The model's name, for errors.
        outputs: `ModelOutputs`.

    Raises:
        ValueError: They are no strings, or have weights that the task does not take.
    """
    texts, references = list(outputs.outputs), np.asarray(outputs.labels).tolist()
    for who, values in ((name, texts), ("The data", list(_leaves(references)))):
        wrong = next((x for x in values if not isinstance(x, (str, bytes))), None)
        if wrong is not None:
            raise ValueError(
                f"The task is {task!r}, but {who} gives {wrong!r} of type {type(wrong).__name__} "
                "where a string is expected. `decode` makes strings of a model's outputs, and "
                "`generate` has a model write them."
            )
    if len(texts) != len(references):
        raise ValueError(
            f"{name} gives {len(texts)} texts where the data has {len(references)} samples."
        )
    weights = np.ones(len(texts)) if outputs.weights is None else np.ravel(outputs.weights)
    if len(weights) != len(texts):
        raise ValueError(
            f"The data has {len(weights)} sample weights for {len(texts)} texts: one each."
        )
    counted = weights > 0
    if not counted.any():
        raise ValueError("`data` has no sample of a weight above 0.")
    if task in _UNWEIGHTED and len(set(weights[counted].tolist())) > 1:
        raise ValueError(
            "BLEU takes no sample weights: give all texts the same one, or 0 to those that do not "
            "count."
        )
    rows = np.flatnonzero(counted)
    kept = [_text(references[i]) for i in rows]
    weights = np.asarray(weights[rows], np.float64)
    return Texts([_text(texts[i]) for i in rows], kept, list(map(_listed, kept)), weights, counted)


def _leaves(value: Any) -> Any:
    for each in value:
        yield from _leaves(each) if isinstance(each, (list, tuple)) else [each]


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(each) for each in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _listed(references: Any) -> list[str]:
    """A list of references; empty ones among others fill up rows of an array."""
    if isinstance(references, str):
        return [references]
    return [each for each in references if each] or [""]


def require(task: str) -> None:
    """Imports what a task needs; raises with the extra that has it where it is missing."""
    for module in _NEEDS[task]:
        validation.needs(module, _WHO, "language")


def measure(task: str, given: Texts) -> Figures:
    """The figures of texts.

    Args:
        task: One of `tasks.TEXTS`.
        given: The texts.
    """
    quality, by_sample = _MEASURES[task](given)
    weights = None if (given.weights == given.weights[0]).all() else given.weights
    quality |= {name: each.value(weights) for name, each in by_sample.items()}
    predictions, labels = (_objects(x) for x in (given.texts, given.references))
    found = Figures(quality, predictions, labels, weights=weights, sample_scores=by_sample)
    if not given.counted.all():
        found.counted = given.counted.reshape(-1, 1)
    return found


def _objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), object)
    found[:] = values
    return found


# Each of these returns `(figures of all texts, {figure: SampleScores})`.


def _general(given: Texts) -> tuple[dict, dict]:
    return _bleu(given), _rouge(given, ("rouge_1", "rouge_2", "rouge_l"))


def _translation(given: Texts) -> tuple[dict, dict]:
    metrics = validation.needs("sacrebleu.metrics", _WHO, "language")
    return {**_bleu(given), "chrf": _corpus(metrics.CHRF(), given)}, {}


def _summarization(given: Texts) -> tuple[dict, dict]:
    return {}, _rouge(given, tuple(_ROUGE))


def _answers(given: Texts) -> tuple[dict, dict]:
    measures: dict[str, Callable] = {"exact_match": scores.exact_match, "f1": scores.answer_f1}
    pairs = list(zip(given.texts, given.listed, strict=True))
    return {}, {
        name: SampleScores.mean([score(*pair) for pair in pairs])
        for name, score in measures.items()
    }


def _speech(given: Texts) -> tuple[dict, dict]:
    several = next((i for i, each in enumerate(given.listed) if len(each) > 1), None)
    if several is not None:
        raise ValueError(
            f"The task is 'speech_recognition', and a sample has {len(given.listed[several])} "
            "references. Word error rates count against one of them: give one transcript each."
        )
    found = {}
    for name, unit in (("wer", "words"), ("cer", "characters")):
        counts = [
            scores.count_errors(text, reference, unit)
            for text, (reference,) in zip(given.texts, given.listed, strict=True)
        ]
        lengths = np.array([each.length for each in counts], np.float64)
        if not lengths.any():
            raise ValueError(f"All references are empty: there are no {unit} to count errors of.")
        errors = np.array([each.errors for each in counts], np.float64)
        found[name] = SampleScores(errors, lengths)
    return {}, found


def _bleu(given: Texts) -> dict[str, float]:
    metrics = validation.needs("sacrebleu.metrics", _WHO, "language")
    return {"bleu": _corpus(metrics.BLEU(), given)}


def _corpus(metric: Any, given: Texts) -> float:
    if any(each == [""] for each in given.listed):
        raise ValueError("A reference is empty, against which BLEU is not defined.")
    most = max(map(len, given.listed))
    # sacrebleu passes over those that are missing.
    columns = [[x[i] if i < len(x) else "" for x in given.listed] for i in range(most)]
    return metric.corpus_score(given.texts, columns).score


def _rouge(given: Texts, names: tuple[str, ...]) -> dict[str, SampleScores]:
    rouge = validation.needs("rouge_score.rouge_scorer", _WHO, "language")
    scorer = rouge.RougeScorer([_ROUGE[name] for name in names])
    pairs = zip(given.listed, given.texts, strict=True)
    found = [scorer.score_multi(references, text) for references, text in pairs]
    return {
        name: SampleScores.mean([each[_ROUGE[name]].fmeasure for each in found]) for name in names
    }


_MEASURES: dict[str, Callable[[Texts], tuple[dict, dict]]] = {
    "text": _general,
    "translation": _translation,
    "summarization": _summarization,
    "question_answering": _answers,
    "speech_recognition": _speech,
}
# Tasks with a figure of the whole corpus.
_UNWEIGHTED = ("text", "translation")
_NEEDS = {
    "text": ("sacrebleu.metrics", "rouge_score.rouge_scorer"),
    "translation": ("sacrebleu.metrics",),
    "summarization": ("rouge_score.rouge_scorer",),
    "question_answering": (),
    "speech_recognition": ("jiwer",),
}
