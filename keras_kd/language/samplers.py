"""Samplers of KerasHub by name, and a model that uses one for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# How each is made; the numbers are what papers and libraries take by default.
_MADE = {
    "greedy": lambda kh, t: kh.samplers.GreedySampler(),
    "random": lambda kh, t: kh.samplers.RandomSampler(temperature=t),
    "top_k": lambda kh, t: kh.samplers.TopKSampler(k=50, temperature=t),
    "top_p": lambda kh, t: kh.samplers.TopPSampler(p=0.95, temperature=t),
}


def made(sampler: Any, temperature: float | None = None) -> Any:
    """A sampler of KerasHub.

    Args:
        sampler: A name, or a sampler.
        temperature: Of one that is named; `None`: 1.

    Raises:
        ValueError: There is no such sampler, or the temperature is another one's.
    """
    if isinstance(sampler, str):
        validation.one_of("sampler", sampler, _MADE)
        hub = validation.needs("keras_hub", "A sampler", "hub")
        if sampler == "greedy" and temperature is not None:
            raise ValueError(
                "sampler='greedy' takes the most likely token at any temperature. Leave "
                f"`temperature` out. Received: temperature={temperature!r}"
            )
        number = 1.0 if temperature is None else validation.positive("temperature", temperature)
        return _MADE[sampler](hub, number)
    if not callable(getattr(sampler, "get_next_token", None)):
        names = ", ".join(map(repr, _MADE))
        raise invalid("sampler", f"one of {names}, or a sampler of KerasHub", repr(sampler))
    if temperature is not None:
        raise ValueError(
            "`temperature` is of a sampler that is named; this one has its own. Leave it out. "
            f"Received: temperature={temperature!r}"
        )
    return sampler


@contextlib.contextmanager
def used(model: Any, sampler: Any) -> Iterator[None]:
    """While it is open a model samples with this sampler; its own is back afterwards."""
    before = getattr(model, "sampler", None)
    # Past Keras' attribute tracking: nothing of the user's model changes.
    object.__setattr__(model, "sampler", sampler)
    try:
        yield
    finally:
        object.__setattr__(model, "sampler", before)
