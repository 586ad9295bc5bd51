"""Samplers of KerasHub: by name, for a while in a model, with draws that a number decides."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# How each is made; the numbers are what papers and libraries take by default.
_MADE = {
    "greedy": lambda samplers, t: samplers.GreedySampler(),
    "random": lambda samplers, t: samplers.RandomSampler(temperature=t),
    "top_k": lambda samplers, t: samplers.TopKSampler(k=50, temperature=t),
    "top_p": lambda samplers, t: samplers.TopPSampler(p=0.95, temperature=t),
}


def _samplers() -> Any:
    return validation.needs("keras_hub", "A sampler", "hub").samplers


def of_hub(sampler: Any) -> Any:
    """A sampler of KerasHub: one as it is, of any of its names, or greedy of `None`.

    Raises:
        ValueError: There is no such sampler.
    """
    samplers = _samplers()
    if isinstance(sampler, samplers.Sampler):
        return sampler
    if sampler is not None and not isinstance(sampler, str):
        raise invalid("sampler", "a sampler of KerasHub, its name, or None", repr(sampler))
    found = samplers.get(sampler or "greedy")
    if not isinstance(found, samplers.Sampler):  # of an unknown name it returns the name
        raise invalid("sampler", "a sampler of KerasHub or its name", repr(sampler))
    return found


def with_temperature(sampler: Any, temperature: float | None = None) -> Any:
    """A sampler of KerasHub that samples at a temperature.

    Args:
        sampler: `"greedy"`, `"random"`, `"top_k"`, `"top_p"`, or a sampler.
        temperature: Of one that is named; `None`: 1.

    Raises:
        ValueError: There is no such sampler, or the temperature is another one's.
    """
    if isinstance(sampler, str):
        validation.one_of("sampler", sampler, _MADE)
        if sampler == "greedy" and temperature is not None:
            raise ValueError(
                "sampler='greedy' takes the most likely token at any temperature. Leave "
                f"`temperature` out. Received: temperature={temperature!r}"
            )
        number = 1.0 if temperature is None else validation.positive("temperature", temperature)
        return _MADE[sampler](_samplers(), number)
    if not isinstance(sampler, _samplers().Sampler):
        names = ", ".join(map(repr, _MADE))
        raise invalid("sampler", f"one of {names}, or a sampler of KerasHub", repr(sampler))
    if temperature is not None:
        raise ValueError(
            "`temperature` is of a sampler that is named; this one has its own. Leave it out. "
            f"Received: temperature={temperature!r}"
        )
    return sampler


def reseed(sampler: Any, first: Callable[[int], Any]) -> None:
    """What a sampler draws next depends on the given numbers alone.

    Args:
        sampler: A sampler.
        first: From the place of a seed among the sampler's to the number that it becomes.
    """
    for place, state in enumerate(sampler.variables):
        # As Keras counts: a seed, and how many draws there were.
        start = tf.stack([tf.cast(first(place), tf.int64), 0])
        state.assign(tf.cast(start, state.dtype))


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
