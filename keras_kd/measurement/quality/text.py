"""Figures of generated text."""

import numpy as np

from keras_kd.measurement.quality import figures
from keras_kd.teachers import host

_ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


def checked(name, answers):
    """Texts and references of the rows that count.

    Args:
        name: Of the model, for errors.
        answers: `Answers`.

    Raises:
        ValueError: They are no strings, or have weights, which BLEU does not know.
    """
    texts, references = list(answers.outputs), np.asarray(answers.labels).tolist()
    for who, values in ((name, texts), ("The data", np.ravel(answers.labels).tolist())):
        wrong = next((x for x in values if not isinstance(x, (str, bytes))), None)
        if wrong is not None:
            raise ValueError(
                f"The task is 'text', but {who} gives {wrong!r} of type {type(wrong).__name__} "
                "where a string is expected. `decode` makes strings of a model's outputs."
            )
    if len(texts) != len(references):
        raise ValueError(
            f"{name} gives {len(texts)} texts where the data has {len(references)} rows."
        )
    weights = np.ones(len(texts)) if answers.weights is None else np.ravel(answers.weights)
    if len(set(weights.tolist()) - {0}) != 1 or len(weights) != len(texts):
        raise ValueError(
            "BLEU knows no sample weights: give all texts the same one, or 0 to those that do not "
            "count."
        )
    rows = np.flatnonzero(weights)
    return [_text(texts[i]) for i in rows], [_text(references[i]) for i in rows]


def _text(value):
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value


def measure(texts, references):
    """BLEU of sacrebleu (0 to 100) and the mean F-measures of rouge-score (0 to 1, no stemmer).

    Args:
        texts: A list of strings.
        references: A list of strings, or of as many strings for each text; with several the best
            one counts for ROUGE.
    """
    bleu = host.needs("sacrebleu.metrics", "keras_kd.measure of text", "measure").BLEU()
    rouge = host.needs("rouge_score.rouge_scorer", "keras_kd.measure of text", "measure")
    each = [[x] if isinstance(x, str) else list(x) for x in references]
    quality = {"bleu": bleu.corpus_score(texts, [list(x) for x in zip(*each, strict=True)]).score}
    scorer = rouge.RougeScorer(list(_ROUGE.values()))
    scores = [scorer.score_multi(x, text) for x, text in zip(each, texts, strict=True)]
    for name, key in _ROUGE.items():
        quality[name] = float(np.mean([score[key].fmeasure for score in scores]))
    return figures.Figures(quality, np.array(texts, object), np.array(references, object))
