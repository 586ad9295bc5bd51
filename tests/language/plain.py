"""Small language models of Keras' own layers, and batches of tokens."""

import keras
import numpy as np

WORDS, LENGTH, ROWS = 37, 6, 5


def language_model(width=8, words=WORDS, seed=0, head="head", **options):
    """Ids to logits; the head is a `Dense` of the arguments."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    hidden = keras.layers.Embedding(words, width, name="embedding")(ids)
    hidden = keras.layers.Dense(width, activation="tanh", name="hidden")(hidden)
    logits = keras.layers.Dense(words, name=head, **options)(hidden)
    return keras.Model(ids, logits, name="language_model")


def tokens(rows=ROWS, words=WORDS, seed=0):
    """Ids and labels, the next ids; two labels are to be ignored."""
    ids = np.random.default_rng(seed).integers(words, size=(rows, LENGTH + 1))
    labels = ids[:, 1:].copy()
    labels[0, :2] = -100
    return ids[:, :-1].astype("int32"), labels


def from_logits(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)
