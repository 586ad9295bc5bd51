"""Texts of a run: a column of texts as numbers of words, by the words of the training part."""

import keras
import numpy as np

from keras_kd.runs import samples, tables
from keras_kd.runs.reading import Configuration
from keras_kd.runs.samples import Samples

PLACE = "data.texts"


def load(config: Configuration) -> Samples:
    """Reads the texts, and makes numbers of their words.

    Raises:
        ValueError: A file or a column is not there, labels or texts are missing, or texts are
            longer than the models read.
    """
    section = config.values.data.chosen
    rows = tables.read_rows(config, section, PLACE, [section.text])
    if section.text == section.label:
        raise config.error(f"{PLACE}.text", "it is the column of the labels too. Name another.")
    column = rows.frame[section.text]
    empty = np.flatnonzero(column.isna().to_numpy())
    if len(empty):
        raise config.error(
            f"{PLACE}.text",
            f"{len(empty)} of {len(column)} rows have no text, the first in row "
            f"{int(empty[0]) + 1}. Fill them in, or remove these rows.",
        )
    words = column.astype(str).to_numpy().astype(object)
    notes = _check_lengths(config, section, words)
    vectorize = keras.layers.TextVectorization(
        section.vocabulary_size, output_sequence_length=section.length
    )
    vectorize.adapt(words[rows.indices["train"]].astype(str))
    inputs = np.asarray(vectorize(words.astype(str))).astype("int32")
    return Samples(
        kind="texts",
        parts=samples.datasets(inputs, rows.labels, rows.indices, section.batch_size),
        counts={part: len(rows.indices[part]) for part in samples.PARTS},
        classes=rows.classes,
        batch_size=section.batch_size,
        shape=(section.length,),
        dtype="int32",
        preprocessing={
            "input": "int32: lower case without punctuation, split at white space; for each word "
            "its place in the vocabulary (1 where it is not there), then 0",
            "length": section.length,
            "vocabulary": [str(each) for each in vectorize.get_vocabulary()],
            "classes": rows.classes,
        },
        digest=rows.digest,
        notes=notes,
    )


def _check_lengths(config, section, words):
    lengths = np.array([len(each.split()) for each in words])
    long = int((lengths > section.length).sum())
    if not long:
        return []
    found = (
        f"{long} of {len(words)} texts have more than {section.length} words, the longest "
        f"{int(lengths.max())}"
    )
    if section.long_texts == "refuse":
        raise config.error(
            f"{PLACE}.length",
            f"{found}. Write `length: {int(lengths.max())}`, or "
            "`long_texts: cut` to leave out what is behind.",
        )
    return [f"{found}: what is behind is left out"]
