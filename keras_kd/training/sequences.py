"""Batches whose sequences are written while a `fit` runs: what a step asks who writes them."""

import dataclasses
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class SampledBatch:
    """A batch as a step trains on it.

    Attributes:
        x: The inputs.
        y: The labels.
        sample_weight: The sample weights, or `None`.
        hard_factor: Float32 scalar: 0 where the labels are the student's own, and teach nothing.
    """

    x: Any
    y: Any
    sample_weight: Any
    hard_factor: Any = 1.0


class Sequences(Protocol):
    """Who writes sequences, such as `keras_kd.language.OnPolicy`."""

    def replaced(self, x: Any, y: Any, sample_weight: Any, step: Any) -> SampledBatch:
        """The batch that is trained on in a step."""
        ...
