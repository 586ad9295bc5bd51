"""Every argument of every loss counts: it changes a step, and is saved, or is refused."""

import functools
import pathlib
import tempfile

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.contract import entries, worlds
from tests.contract.loss_arguments import TABLE, UNTYPED, UNTYPED_BY_CLASS
from tests.seeds import seed_weights

# They are tried at once: what each of them does is seen by itself.
TOGETHER = {"name": "named", "weight": 3.0, "trainable": False}
BY_KERAS = ("name", "trainable", "dtype", "autocast")
# Tried by themselves: models that end in a linear layer are refused; a mask counts for all losses.
ALONE = ("from_logits", "teacher_from_logits", "mask_input")


def subject(name):
    return TABLE[name].make or getattr(kd.losses, name)


def cases(kind):
    for name, loss in TABLE.items():
        for argument, entry in loss.arguments.items():
            found, reason = entries.resolved(entry)
            if isinstance(found, kind):
                marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
                yield pytest.param(name, argument, id=f"{name}-{argument}", marks=marks)


def made(name, also=None, /, **changes):
    seed_weights(3)
    return subject(name)(**{**TABLE[name].base, **(also or {}), **changes})


@functools.cache
def run(name):
    """A step of a distiller that has the loss once for each argument that counts."""
    variants, bases = {"base": made(name, name="base"), "named": made(name, **TOGETHER)}, {}
    for argument, entry in TABLE[name].arguments.items():
        if not isinstance(entry, entries.Counts) or argument in (*TOGETHER, *ALONE):
            continue
        called = f"with_{argument}"
        variants[called] = made(name, entry.also, **{"name": called, argument: entry.value})
        bases[called] = "base"
        if entries.base_of(entry):
            bases[called] = f"without_{argument}"
            variants[bases[called]] = made(name, entries.base_of(entry), name=bases[called])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "distiller.keras"
        return worlds.step(TABLE[name].world, path, list(variants.values())), bases


def plain(config):
    return {key: value for key, value in config.items() if key != "name"}


def test_every_loss_has_an_entry():
    # A distiller takes one TokenKD, and nothing else that reads outputs: see tests/language.
    assert sorted([*TABLE, "TokenKD"]) == sorted(kd.losses.__all__)


@pytest.mark.parametrize("name", TABLE)
def test_every_argument_has_an_entry(name):
    known = TABLE[name].arguments
    assert not entries.missing(subject(name), known), "no entry"
    assert not entries.ended(subject(name), known), "entries of arguments that no longer exist"


@pytest.mark.parametrize("name", TABLE)
def test_an_unknown_argument_is_an_error(name):
    with pytest.raises((TypeError, ValueError), match="unheard_of"):
        made(name, unheard_of=1)


@pytest.mark.parametrize(("name", "argument"), list(cases(entries.Refused)))
def test_it_is_refused(name, argument):
    entry, _ = entries.resolved(TABLE[name].arguments[argument])
    with pytest.raises((TypeError, ValueError), match=entry.message):
        made(name, entry.also, **{argument: entry.value})


class Nonsense:
    """Of no type that an argument has."""

    def __repr__(self):
        return "Nonsense()"


def of_no_type():
    for name in TABLE:
        for argument in entries.of(subject(name)):
            entry, reason = entries.resolved(TABLE[name].arguments.get(argument))
            if isinstance(entry, entries.Refused) and reason is None:
                continue
            waits = argument in UNTYPED_BY_CLASS.get(name, UNTYPED)
            marks = [pytest.mark.xfail(reason="waiting", strict=True)] if waits else []
            yield pytest.param(name, argument, id=f"{name}-{argument}", marks=marks)


@pytest.mark.parametrize(("name", "argument"), list(of_no_type()))
def test_a_value_of_no_type_is_refused(name, argument):
    message = rf"argument `{argument}`.* Expected .* Received: {argument}=.*Nonsense"
    message = argument if argument in BY_KERAS else message
    with pytest.raises((TypeError, ValueError), match=message):
        made(name, **{argument: Nonsense()})


@pytest.mark.parametrize(("name", "argument"), list(cases(entries.Counts)))
def test_it_counts(name, argument):
    entry, _ = entries.resolved(TABLE[name].arguments[argument])
    changed = made(name, entry.also, **{argument: entry.value})
    config = changed.get_config()
    if argument != "name":
        assert plain(config) != plain(made(name, entries.base_of(entry)).get_config()), (
            "not in get_config"
        )
    assert type(changed).from_config(config).get_config() == config
    if argument == "mask_input" or (argument == "output" and entries.base_of(entry)):
        _in_distillers_of_their_own(name, argument, entry)
        return
    if argument in ALONE:
        _probed(name, argument, entry)
        return
    done, bases = run(name)
    called = "named" if argument in TOGETHER else f"with_{argument}"
    if argument == "weight":
        _weights_count(done)
    elif argument == "trainable":
        assert not done.again.losses_by_name[called].trainable_variables
    elif entry.probe is not None:
        _probed(name, argument, entry)
    elif argument != "name":
        assert differ(done.logs[called], done.logs[bases[called]]), "it changes nothing"
    np.testing.assert_allclose(done.logs_again[called], done.logs[called], rtol=1e-5)
    before, after = done.distiller.losses_by_name[called], done.again.losses_by_name[called]
    assert after.get_config() == before.get_config()


def _probed(name, argument, entry):
    keras.utils.set_random_seed(4)
    one = entry.probe(made(name, entries.base_of(entry)))
    keras.utils.set_random_seed(4)
    other = entry.probe(made(name, entry.also, **{argument: entry.value}))
    assert differ(one, other)


def _in_distillers_of_their_own(name, argument, entry):
    """Steps of two distillers, with sample weights that are others for each output."""
    logs = []
    for options in (entries.base_of(entry), {**(entry.also or {}), argument: entry.value}):
        loss = made(name, options, name="it")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "distiller.keras"
            done = worlds.step(TABLE[name].world, path, [loss], weighted=True)
        np.testing.assert_allclose(done.logs_again["it"], done.logs["it"], rtol=1e-5)
        logs.append(done.logs["it"])
    assert differ(*logs)


def _weights_count(done):
    losses = done.distiller.losses_by_name
    assert losses["named"].weight == 3.0
    total = sum(loss.weight * done.logs[each] for each, loss in losses.items())
    expected = 0.5 * done.logs["hard_loss"] + 0.5 * total
    np.testing.assert_allclose(done.logs["loss"], expected, rtol=1e-5)


def differ(one, other):
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return any(not np.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in pairs)
