"""How alike two models' features are: linear CKA."""

import numpy as np


def cka(features, others):
    """Centred kernel alignment of two layers' features of the same rows.

    `sum(K * L) / sqrt(sum(K * K) sum(L * L))` with the centred Gram matrices `K` and `L`: 1 where
    one is a rotation and scaling of the other. Widths may differ.

    Args:
        features: `[rows, ...]`.
        others: `[rows, ...]`.

    Returns:
        A float from 0 to 1; 0 where the features of all rows are equal.

    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414
    """
    return cka_of_grams(centred_gram(features), centred_gram(others))


def cka_of_grams(a, b):
    """As `cka`, of what `centred_gram` gives: with many layers each is worked out once."""
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def centred_gram(features):
    """Inner products of the rows' deviations from their mean, `[rows, rows]` in float64."""
    rows = np.asarray(features, "float64")
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(axis=0)
    return rows @ rows.T
