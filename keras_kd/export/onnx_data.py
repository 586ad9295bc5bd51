"""Inputs to compare with that nobody gave."""

import keras
import numpy as np

from keras_kd import models
from keras_kd.export import students

_MADE_ROWS = 32
# Unknown dimensions (time steps) of made inputs.
_MADE_SIZE = 8


def made_for(model, seed=0):
    """Random inputs for a model: normal numbers, whole numbers that its embeddings take.

    Raises:
        ValueError: It has whole numbers as inputs whose range nothing tells.
    """
    rng = np.random.default_rng(seed)
    flat = keras.tree.flatten(models.input_specs(model))
    limits = students.vocabularies(model)

    def made(i, spec):
        shape = [_MADE_ROWS, *(_MADE_SIZE if size is None else size for size in spec.shape[1:])]
        if spec.dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        limit = limits.get(i, 256 if spec.dtype == "uint8" else None)
        if limit is not None:
            return rng.integers(0, limit, shape).astype(spec.dtype)
        if "int" not in spec.dtype:
            return rng.normal(size=shape).astype(spec.dtype)
        raise ValueError(
            f"Input {i} of {model.name!r} takes whole numbers, and no Embedding right after it "
            "tells which. Pass some inputs: to_onnx(..., data=inputs)."
        )

    values = [made(i, spec) for i, spec in enumerate(flat)]
    return keras.tree.pack_sequence_as(models.input_specs(model), values)
