"""The tasks that `measure` knows, by what a model gives: numbers, texts, embeddings, tokens."""

# Each output of a sample is right or wrong, near or far, by itself.
NUMBERS = ("multiclass", "binary", "multilabel", "regression")
# Strings, which are compared with references.
TEXTS = ("text", "translation", "summarization", "question_answering", "speech_recognition")
# A vector for each sample; what counts is which samples lie near each other.
EMBEDDINGS = ("retrieval", "similarity")
# Logits for each position, too many to be kept.
LANGUAGE_MODEL = "language_model"

ALL = (*NUMBERS, *TEXTS, *EMBEDDINGS, LANGUAGE_MODEL)
# Outputs and labels of these look like those of others: only the user's word tells them.
NAMED = tuple(task for task in ALL if task not in (*NUMBERS, "text"))
