"""Every argument counts: it changes what is computed, and is saved, or it is refused."""

import functools

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.contract import arguments, entries, fits, teacher_arguments
from tests.seeds import seed_weights

TABLES = {
    "callbacks": arguments.CALLBACKS,
    "data": arguments.DATA,
    "distillers": arguments.DISTILLERS,
    "schedules": arguments.SCHEDULES,
    "teachers": teacher_arguments.TABLE,
    "weighting": arguments.WEIGHTINGS,
}
ALL = {(room, name): entry for room, table in TABLES.items() for name, entry in table.items()}
BY_KERAS = ("name", "trainable", "dtype", "autocast", "activity_regularizer")


class Nonsense:
    """Of no type that an argument has."""

    def __repr__(self):
        return "Nonsense()"


def cases(kind):
    for (room, name), entry in ALL.items():
        for argument, each in entry.arguments.items():
            found, reason = entries.resolved(each)
            if isinstance(found, kind):
                marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
                yield pytest.param(
                    (room, name), argument, id=f"{room}.{name}-{argument}", marks=marks
                )


def of_no_type():
    for (room, name), entry in ALL.items():
        for argument in entries.of(entry.subject):
            known = entry.arguments.get(argument)
            if argument in entry.any_type or isinstance(
                entries.resolved(known)[0], entries.Refused
            ):
                continue
            marks = [pytest.mark.xfail(reason="waiting")] if argument in entry.waiting else []
            yield pytest.param((room, name), argument, id=f"{room}.{name}-{argument}", marks=marks)


def value_of(given):
    return given() if callable(given) and getattr(given, "__name__", "") == "<lambda>" else given


def made(which, also=None, /, **changes):
    entry = ALL[which]
    changes = {name: value_of(value) for name, value in changes.items()}
    seed_weights(3)
    make = arguments.chained if entry.subject is kd.distill_chain else entry.subject
    return make(**{**entry.given(), **(also or {}), **changes})


@functools.cache
def of_base(which, probe):
    return probe(made(which))


def differ(one, other):
    if isinstance(one, str):
        return one != other
    if isinstance(one, dict):
        return set(one) != set(other) or any(differ(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) != len(other) or any(differ(*pair) for pair in pairs)
    return np.shape(one) != np.shape(other) or not np.allclose(one, other, rtol=1e-4, atol=1e-6)


def plain(config):
    return {key: value for key, value in config.items() if key != "name"}


def alike(config, other):
    return keras.saving.serialize_keras_object(config) == keras.saving.serialize_keras_object(other)


@pytest.mark.parametrize("room", ["callbacks", "data", "schedules", "teachers", "weighting"])
def test_every_class_and_function_has_an_entry(room):
    elsewhere = teacher_arguments.ELSEWHERE if room == "teachers" else ()
    assert sorted([*TABLES[room], *elsewhere]) == sorted(getattr(kd, room).__all__)


@pytest.mark.parametrize("which", ALL, ids=".".join)
def test_every_argument_has_an_entry(which):
    entry = ALL[which]
    assert not entries.missing(entry.subject, entry.arguments), "no entry"
    assert not entries.ended(entry.subject, entry.arguments), (
        "entries of arguments that no longer exist"
    )


@pytest.mark.parametrize("which", ALL, ids=".".join)
def test_an_unknown_argument_is_an_error(which):
    with pytest.raises((TypeError, ValueError), match="unheard_of"):
        made(which, unheard_of=1)


@pytest.mark.parametrize(("which", "argument"), list(cases(entries.Refused)))
def test_it_is_refused(which, argument):
    entry, _ = entries.resolved(ALL[which].arguments[argument])
    with pytest.raises((TypeError, ValueError), match=entry.message):
        ALL[which].probe(made(which, entry.also, **{argument: entry.value}))


@pytest.mark.parametrize(("which", "argument"), list(of_no_type()))
def test_a_value_of_no_type_is_refused(which, argument):
    if argument in BY_KERAS:
        with pytest.raises((TypeError, ValueError), match=argument):
            made(which, **{argument: Nonsense()})
        return
    message = rf"`{argument}`.*(Expected|must be) .*Received: .*Nonsense"
    with pytest.raises(ValueError, match=message):
        made(which, **{argument: Nonsense()})


@pytest.mark.parametrize(("which", "argument"), list(cases(entries.Counts)))
def test_it_counts(which, argument):
    case, _ = entries.resolved(ALL[which].arguments[argument])
    probe = case.probe or ALL[which].probe
    changed = made(which, case.also, **{argument: case.value})
    is_saved = ALL[which].is_saved and case.kept
    if is_saved:
        config = changed.get_config()
        others = made(which, entries.base_of(case)).get_config()
        assert argument == "name" or not alike(plain(config), plain(others)), "not in get_config"
        again = type(changed).from_config(config)
        assert alike(again.get_config(), config)
        if getattr(changed, "weights", None):  # a file has them beside the configuration
            again.set_weights(changed.get_weights())
    after = probe(changed)
    base = entries.base_of(case)
    before = probe(made(which, base)) if base else of_base(which, probe)
    assert differ(before, after), "it changes nothing"
    if is_saved:
        assert not differ(probe(again), after), "its configuration loses it"


MODELS = ("model", "student", "members")  # a loaded model's configuration tells more
IN_A_DISTILLER = [
    which for which, entry in ALL.items() if entry.is_saved and which != ("teachers", "Cached")
]


@pytest.mark.parametrize("which", IN_A_DISTILLER, ids=".".join)
def test_all_arguments_together_survive_a_file(which, tmp_path):
    x, y = fits.data()
    room, _ = which
    changed = made_differently(which)
    needs_heads = which == ("teachers", "DeepestExit")
    student = fits.heads(2) if needs_heads else fits.network(2)
    y = {"a": y, "b": y} if needs_heads else y
    if room == "weighting":
        distiller = kd.Distiller(fits.network(1), student, weighting=changed)
    else:
        distiller = kd.Distiller(changed, student)
    arguments.compiled(distiller, rate=0.0)
    before = distiller.train_on_batch(x, y, return_dict=True)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    after = loaded.train_on_batch(x, y, return_dict=True)
    assert not differ(dict(before), dict(after))
    again = loaded.weighting if room == "weighting" else loaded.teacher
    configs = (each.get_config() for each in (again, changed))
    assert alike(*({key: v for key, v in each.items() if key not in MODELS} for each in configs))


def made_differently(which):
    """With every argument that counts, and needs no other, away from its default."""
    changes = {
        name: entry.value
        for name, entry in ALL[which].arguments.items()
        if isinstance(entry, entries.Counts) and not entry.also and name not in ("output", "copy")
    }
    also = {"output": None} if which[0] == "weighting" else {}
    if "student" in changes:
        changes |= {"student": lambda: fits.network(2), "preprocess": None}
    return made(which, also, **changes)
