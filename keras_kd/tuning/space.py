"""The space of a search: what each setting may be, and `Settings`, what a trial reads of it.

In Python and in YAML alike a list holds choices, `{"low": ..., "high": ...}` is a range, and a
single value is fixed.
"""

import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# What `tune` reads by itself, and what it is where the space does not hold it.
DEFAULTS: dict[str, Any] = {
    "alpha": 0.5,
    "batch_size": 32,
    "beta": None,  # 1 - alpha
    "divergence": "forward_kl",
    "hint": None,
    "hint_weight": 1.0,
    "learning_rate": 1e-3,
    "loss": "SoftTargets",
    "temperature": 4.0,
    "temperature_end": None,  # constant
}
# And where it shrinks the teacher; else these names are the user's.
SHRINKING = {"depth": 1.0, "width": 1.0}
# Where they may lie: above (or from) the first, up to the second.
_ABOVE_0 = {"learning_rate", "temperature", "temperature_end"}
_FROM_0 = {"alpha", "beta", "hint_weight"}
_SIMPLE = (bool, int, float, str)
_KEYS = {"low", "high", "log", "step"}
# So many settings of a finite space are listed to find those that were not tried.
_ENUMERATED = 4096


class Range(NamedTuple):
    """Numbers from `low` to `high`.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether they are drawn on a logarithmic scale.
        step: The distance of those that are drawn, or `None`: all.
        whole: Whether they are whole.
    """

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    @property
    def middle(self) -> float:
        """The number in the middle, on the scale that is drawn on."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step is not None:
            middle = self.low + self.step * round((middle - self.low) / self.step)
        return round(middle) if self.whole else middle

    def holds(self, value: Any) -> bool:
        """Whether a number lies in it."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            return False
        if self.whole and value != round(value):
            return False
        steps = 0 if self.step is None else (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)


class Space:
    """What may be set, and to what.

    Args:
        given: `{name: a list of choices, a range as a dict, or a value}`.
        shrinks: Whether the students are shrunk, by `"depth"` and `"width"`.

    Attributes:
        searched: `{name: a Range, or a tuple of choices}`.
        fixed: `{name: value}`.
    """

    def __init__(self, given: Any, shrinks: bool = False) -> None:
        if not isinstance(given, dict) or not given:
            raise invalid(
                "space",
                "a dict of settings by name, such as {'temperature': {'low': 1.0, 'high': 10.0, "
                "'log': True}, 'divergence': ['forward_kl', 'jsd'], 'alpha': 0.1}",
                repr(given),
            )
        self.shrinks = shrinks
        above_0 = _ABOVE_0 | (set(SHRINKING) if shrinks else set())
        continuous = above_0 | _FROM_0
        self.searched: dict[str, Range | tuple] = {}
        self.fixed: dict[str, Any] = {}
        for name, value in given.items():
            validation.text("space", name, "names of settings")
            if isinstance(value, dict):
                self.searched[name] = _range(name, value, name in continuous)
            elif isinstance(value, (list, tuple)):
                self.searched[name] = _choices(name, value)
            else:
                self.fixed[name] = _simple(name, value)
            if name in continuous:
                _check_bounds(name, self, name in above_0)
        if "beta" not in given and any(each > 1 for each in self._numbers("alpha")):
            raise ValueError(
                "`space` has an alpha above 1, and beta is 1 - alpha where the space has none. Add "
                "'beta' to `space`."
            )
        if not self.searched:
            raise ValueError(
                f"`space` fixes all of its settings, so there is nothing to search: {given}. Give "
                "one of them a list of choices or a range."
            )

    @property
    def names(self) -> list[str]:
        """Those of all settings."""
        return [*self.searched, *self.fixed]

    def _numbers(self, name):
        options = self.searched.get(name, (self.fixed.get(name),))
        values = [options.high] if isinstance(options, Range) else options
        return [each for each in values if isinstance(each, (int, float))]

    def start(self, name: str, wanted: Mapping[str, Any]) -> Any:
        """Where a setting begins: what is wanted, if it may be that, else what lies in the middle.

        Args:
            name: Of a setting that is searched.
            wanted: Values by name.
        """
        options = self.searched[name]
        if isinstance(options, Range):
            value = wanted.get(name)
            return value if options.holds(value) else options.middle
        return wanted[name] if name in wanted and wanted[name] in options else options[0]

    def holds(self, name: str, value: Any) -> bool:
        """Whether a setting may have a value."""
        if name in self.fixed:
            return self.fixed[name] == value
        options = self.searched[name]
        return options.holds(value) if isinstance(options, Range) else value in options

    def untried(self, tried: list[dict[str, Any]], generator: Any) -> dict[str, Any] | None:
        """Settings that none of those tried are a part of, drawn at random; `None`: there are none.

        Args:
            tried: The settings of each trial, those that it read.
            generator: A NumPy generator.
        """
        listed = [_listed(each) for each in self.searched.values()]
        options = [each for each in listed if each is not None]
        count = math.prod(map(len, options))
        if len(options) < len(listed) or count > _ENUMERATED:
            return self.draw(generator)
        found = [
            settings
            for values in itertools.product(*options)
            if (settings := dict(zip(self.searched, values, strict=True)))
            and not any(each.items() <= settings.items() for each in tried)
        ]
        return found[int(generator.integers(len(found)))] if found else None

    def draw(self, generator: Any) -> dict[str, Any]:
        """Settings at random."""
        return {name: _drawn(each, generator) for name, each in self.searched.items()}

    def without(self, names: set[str]) -> dict[str, Any]:
        """What `Space` would be given for the settings that are not named."""
        return {name: each for name, each in self.to_dict().items() if name not in names}

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes, and `Space` too."""
        found: dict[str, Any] = dict(self.fixed)
        for name, options in self.searched.items():
            if isinstance(options, Range):
                found[name] = {"low": options.low, "high": options.high, "log": options.log}
                if options.step is not None:
                    found[name]["step"] = options.step
            else:
                found[name] = list(options)
        return found


def _listed(options: Range | tuple) -> tuple | None:
    """All values of a setting, or `None`: too many."""
    if not isinstance(options, Range):
        return options
    step = options.step or (1 if options.whole else None)
    if step is None or (options.high - options.low) / step > _ENUMERATED:
        return None
    steps = int((options.high - options.low) / step + 1e-9)
    values = [options.low + step * number for number in range(steps + 1)]
    return tuple(int(each) if options.whole else each for each in values)


def _drawn(options: Range | tuple, generator: Any) -> Any:
    listed = _listed(options)
    if listed is not None:
        return listed[int(generator.integers(len(listed)))]
    low, high = options[0], options[1]  # of a range
    value = float(generator.uniform(low, high))
    return round(value) if isinstance(low, int) else value


def _range(name: str, given: dict, is_continuous: bool) -> Range:
    what = f"space[{name!r}]"
    unknown = set(given) - _KEYS
    if unknown or not {"low", "high"} <= set(given):
        raise invalid(
            what, "a range {'low': number, 'high': number}, with 'log': True or 'step'", repr(given)
        )
    low, high, step = given["low"], given["high"], given.get("step")
    log = validation.boolean(f"{what}['log']", given.get("log", False))
    for key, value in (("low", low), ("high", high), ("step", step)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is None and key == "step":
            continue
        if not is_number or not math.isfinite(value or 0):
            raise invalid(f"{what}[{key!r}]", "a finite number", repr(value))
    if not low < high:
        raise ValueError(
            f"{what} must be a range with low < high. Received: low={low}, high={high}. For a "
            f"single value write {name!r}: {low}."
        )
    if log and low <= 0:
        raise ValueError(
            f"{what} is logarithmic, so `low` must be above 0. Received: low={low}. Pass a small "
            "number above 0, or leave out 'log'."
        )
    if step is not None and (log or not 0 < step <= high - low):
        raise ValueError(
            f"{what}: `step` must be above 0 and at most high - low, and goes with no 'log'. "
            f"Received: step={step}, log={log}."
        )
    numbers = [low, high] if step is None else [low, high, step]
    whole = not is_continuous and all(isinstance(each, int) for each in numbers)
    if whole:
        return Range(low, high, log, step, True)
    return Range(float(low), float(high), log, None if step is None else float(step), False)


def _choices(name: str, given: Any) -> tuple:
    if not given:
        raise ValueError(f"space[{name!r}] is empty. List what it may be, or leave it out.")
    found = tuple(_simple(name, each) for each in given)
    if len({(type(each), each) for each in found}) < len(found):
        raise ValueError(f"space[{name!r}] lists a choice twice: {list(found)}.")
    return found


def _simple(name: str, value: Any) -> Any:
    # What the files of a search can hold, whatever reads them.
    if value is not None and not isinstance(value, _SIMPLE):
        raise invalid(
            f"space[{name!r}]",
            "numbers, texts, booleans or None; name anything else with a text, and let your "
            "function make it of that",
            repr(value),
        )
    return value


def _check_bounds(name: str, space: Space, is_above_0: bool) -> None:
    """Raises where a setting that `tune` reads may be what it cannot be."""
    options = space.searched.get(name, (space.fixed.get(name),))
    values = [options.low, options.high] if isinstance(options, Range) else list(options)
    most = 1.0 if space.shrinks and name in SHRINKING else math.inf
    for value in values:
        if value is None and DEFAULTS.get(name, 0) is None:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = is_number and math.isfinite(value) and 0 <= value <= most
        if not fits or (is_above_0 and value == 0):
            bounds = "above 0" if is_above_0 else "at least 0"
            limit = " and at most 1" if most == 1 else ""
            raise invalid(f"space[{name!r}]", f"numbers {bounds}{limit}", repr(value))


class Settings(Mapping[str, Any]):
    """The settings of one trial: `settings["temperature"]`.

    A setting is chosen when it is first read, so that one that only some choices need is searched
    where it is read.

    Args:
        space: The `Space`.
        defaults: Values of the settings that the space does not hold.
        choose: A function from the name of a setting and its options to its value.

    Attributes:
        chosen: `{name: value}` of what was read and is searched.
        read: The names of all that was read.

    Example:

    ```python
    import keras
    import keras_kd as kd

    def make_student(settings: kd.tuning.Settings):  # for kd.tune(..., space={"units": [8, 16]})
        hidden = keras.layers.Dense(settings["units"], "relu")
        return keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
    ```
    """

    def __init__(
        self, space: Space, defaults: Mapping[str, Any], choose: Callable[[str, Any], Any]
    ) -> None:
        self._space, self._defaults, self._choose = space, defaults, choose
        self.chosen: dict[str, Any] = {}
        self.read: set[str] = set()

    @classmethod
    def of(cls, space: Space, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> "Settings":
        """The settings with these values; others begin where `Space.start` says."""

        def choose(name: str, options: Any) -> Any:
            return values[name] if name in values else space.start(name, defaults)

        return cls(space, defaults, choose)

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        if name in self._space.fixed:
            return self._space.fixed[name]
        if name in self.chosen:
            return self.chosen[name]
        if name in self._space.searched:
            self.chosen[name] = self._choose(name, self._space.searched[name])
            return self.chosen[name]
        if name in self._defaults:
            return self._defaults[name]
        raise KeyError(unknown(name, list(self)))

    @property
    def searched(self) -> list[str]:
        """The names of the settings that the space holds, fixed ones too."""
        return self._space.names

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._space.names, *self._defaults]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Settings({self.chosen | self._space.fixed}, of {list(self)})"


def unknown(name: str, known: list[str]) -> str:
    """What to say about a setting that nobody knows."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; close to it: {close}" if close else ""
    return f"there is no setting {name!r}{hint}. Add it to `space`. Known: {known}"
