"""Numbers as text: spreads, sizes, times, probabilities."""

import math
from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"
_BYTES = (("GB", 1e9), ("MB", 1e6), ("KB", 1e3))
_COUNTS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def fixed(value: float, decimals: int, sign: str = "") -> str:
    """`value` with a real minus sign; never "-0.0"."""
    text = f"{value:{sign}.{decimals}f}"
    if float(text) == 0:
        text = f"{0:{sign}.{decimals}f}"
    return text.replace("-", MINUS)


def decimals(value: float, deviation: float | None = None) -> int:
    """How many show a spread: one, or two where one would show 0.0."""
    seen = abs(value) if deviation is None else deviation
    return 1 if seen >= 0.095 or seen == 0 else 2


def significant(value: float, digits: int = 3) -> int:
    """How many decimals show this many digits of a value."""
    if value == 0 or not math.isfinite(value):
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def spread(mean: float, deviation: float | None, places: int, sign: str = "") -> str:
    """Such as `"91.8 ± 0.3"`; without a deviation the mean alone."""
    text = fixed(mean, places, sign)
    return text if deviation is None else f"{text} ± {fixed(deviation, places)}"


def p_value(p: float) -> str:
    """Such as `"p = 0.01"`."""
    if p < 0.001:
        return "p < 0.001"
    # Near 0.05 two places would hide on which side it is.
    return f"p = {p:.3f}" if p < 0.0095 or 0.045 <= p < 0.055 else f"p = {p:.2f}"


def size(count: float) -> str:
    """Bytes, in units of 1000: `"35.5 KB"`."""
    return _scaled(count, _BYTES, " B")


def count(number: float) -> str:
    """Such as `"206.9 k"`."""
    return _scaled(number, _COUNTS, "")


def _scaled(number: float, units: Iterable[tuple[str, float]], smallest: str) -> str:
    for unit, factor in units:
        if number >= factor:
            return f"{_three(number / factor)} {unit}"
    return f"{number:.0f}{smallest}"


def microseconds(value: float) -> str:
    """A time: `"43 µs"`, `"1.2 ms"`."""
    if value >= 1e6:
        return f"{_three(value / 1e6)} s"
    return f"{_three(value / 1e3)} ms" if value >= 1e3 else f"{_three(value)} µs"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


def percent(share: float, places: int = 0) -> str:
    """Such as `"96 %"`."""
    return f"{fixed(100 * share, places)} %"


def plural(number: int, noun: str) -> str:
    """Such as `"3 seeds"`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
