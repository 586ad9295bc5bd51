"""Data and scores of language models: masking, packing, pseudo-labels, errors of texts.

`mask_tokens` and `pack` make training data of token ids, `label` lets a teacher write texts and
`load_labels` reads them, `retrieval_data` and `similarity_data` make test data of embeddings, and
the others say how near a text is to a reference.
"""

from keras_kd.language.completions import ShowCompletions
from keras_kd.language.label_files import load_labels
from keras_kd.language.labels import Labels, label
from keras_kd.language.masking import mask_tokens
from keras_kd.language.on_policy import OnPolicy
from keras_kd.language.packing import attention_mask, pack
from keras_kd.language.pairs import retrieval_data, similarity_data
from keras_kd.language.scores import (
    WordErrorFilter,
    answer_f1,
    character_error_rate,
    exact_match,
    normalize_answer,
    normalize_speech,
    word_error_rate,
)

__all__ = [
    "Labels",
    "OnPolicy",
    "ShowCompletions",
    "WordErrorFilter",
    "answer_f1",
    "attention_mask",
    "character_error_rate",
    "exact_match",
    "label",
    "load_labels",
    "mask_tokens",
    "normalize_answer",
    "normalize_speech",
    "pack",
    "retrieval_data",
    "similarity_data",
    "word_error_rate",
]
