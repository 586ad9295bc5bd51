"""Places of layers in a student that was saved: Keras gives some another name when it is loaded."""

import collections
import re

from keras_kd.ops import arguments
from keras_kd.quantization import sites
from keras_kd.taps import paths

_COUNTED = re.compile(r"_\d+(?=/|$)")


def of(student):
    """The paths of a student's layers, in their order."""
    return [path for path, _, _ in paths.walk(student)]


def now_at(student, before, roundings=(), operands=()):
    """`{path of a layer when the student was saved: its path now}` of those that differ.

    Args:
        student: The student.
        before: `of` the student when it was saved, or `None` where that is not known.
        roundings: Configurations of roundings, which name layers.
        operands: Places of operands, likewise.

    Raises:
        ValueError: They name a layer that the student does not have.
    """
    now, named = of(student), _named(roundings, operands)
    if before is not None and len(before) == len(now):
        found = {old: new for old, new in zip(before, now, strict=True) if old != new}
    else:
        found = _by_stem([path for path in named if path not in now], now, named)
    for path in named:
        if path not in now and path not in found:
            what = "operands" if any(path == each for each, _ in operands) else "roundings"
            raise arguments.invalid(
                what, f"layers of {student.name!r}, such as {now[:5]}", repr(path)
            )
    return found


def _named(roundings, operands):
    sites_of_layers = [x["site"] for x in roundings if x["site"]["kind"] != sites.INPUT]
    named = [x["layer"] for x in sites_of_layers] + [path for path, _ in operands if path]
    return list(dict.fromkeys(named))


def _by_stem(missing, now, named):
    """As `now_at` of a student that was saved without its paths: names but for their counters."""
    free = collections.defaultdict(list)
    for path in now:
        if path not in named:
            free[_COUNTED.sub("", path)].append(path)
    old = collections.defaultdict(list)
    for path in missing:
        old[_COUNTED.sub("", path)].append(path)
    return {
        path: there
        for stem, each in old.items()
        if len(each) == len(free[stem])
        for path, there in zip(sorted(each, key=_counters), free[stem], strict=True)
    }


def _counters(path):
    return [int(number) for number in re.findall(r"\d+", path)]


def moved(rounding, now):
    """A rounding whose layer may have another path now."""
    site = dict(rounding["site"])
    if site["kind"] != sites.INPUT:
        site["layer"] = now.get(site["layer"], site["layer"])
    return {**rounding, "site": site}
