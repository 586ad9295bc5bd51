"""Long work is seen, in a terminal and in a log; silence is silent; no figure depends on it."""

import contextlib
import io
import logging
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd._utils import progress
from tests.contract import fits


class Clock:
    """Time that passes only where a test says so."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def each_takes(seconds, clock, items):
    for item in items:
        yield item
        clock.now += seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(clock, verbose, total=None, count=5, seconds=20.0):
    bar = progress.Bar("work", total, "batch", verbose)
    bar.begin()
    for done in range(1, count + 1):
        clock.now += seconds
        bar.update(done)
    bar.end()


def test_a_log_has_a_line_now_and_then(clock, capsys):
    work(clock, 1, total=5)
    assert capsys.readouterr().out.splitlines() == [
        "work: 2/5 - 40s - 20s/batch - 1:00 left",
        "work: 4/5 - 1:20 - 20s/batch - 20s left",
        "work: 5/5 - 1:40 - 20s/batch",
    ]


def test_a_log_is_not_flooded(clock, capsys):
    work(clock, 1, total=10_000, count=10_000, seconds=0.006)
    assert capsys.readouterr().out.splitlines() == [
        "work: 5000/10000 - 30s - 6ms/batch - 30s left",
        "work: 10000/10000 - 1:00 - 6ms/batch",
    ]


@pytest.mark.parametrize("verbose", [1, 2])
def test_a_length_that_is_not_known(verbose, clock, capsys):
    work(clock, verbose, seconds=4000.0, count=2)
    *before, last = capsys.readouterr().out.splitlines()
    assert before == ["work: 1/unknown - 1:06:40 - 1:06:40/batch"] * (verbose == 1) + before[1:]
    assert last == "work: 2/2 - 2:13:20 - 1:06:40/batch"


def test_two_is_one_line(clock, capsys):
    work(clock, 2, total=5)
    assert capsys.readouterr().out == "work: 5/5 - 1:40 - 20s/batch\n"


def test_zero_is_silent(clock, capsys):
    work(clock, 0, total=5)
    assert list(progress.iterate([3, 4], "work", verbose=0)) == [3, 4]
    steps = progress.Steps("call", 2, 0)
    steps.begin("a")
    steps.skip("b")
    steps.say("c")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("total", [5, None])
def test_a_terminal_has_the_bar_of_keras(total):
    with contextlib.redirect_stdout(Terminal()) as terminal:
        assert list(progress.iterate(range(5), "work", total)) == list(range(5))
    label, bar, end = terminal.getvalue().split("\n")
    assert (label, end) == ("work", "")
    assert "\r" in bar
    assert "5/5" in bar.split("\r")[-1]
    assert "/batch" in bar


@pytest.fixture
def shown(monkeypatch):
    """What a notebook shows: a list of the states of each of its outputs."""
    outputs = []

    class Handle:
        def __init__(self, states):
            self._states = states

        def update(self, bundle, raw):
            assert raw
            self._states.append(bundle["text/plain"])

    def display(bundle, raw, display_id):
        assert raw
        assert display_id
        outputs.append([])
        handle = Handle(outputs[-1])
        handle.update(bundle, raw)
        return handle

    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    return outputs


class OutStream(io.StringIO):
    """Stands for what ipykernel makes of `sys.stdout`."""


OutStream.__module__ = "ipykernel.iostream"


def test_a_notebook_has_one_line_that_is_replaced(clock, shown):
    with contextlib.redirect_stdout(OutStream()) as stream:
        work(clock, 1, total=10_000, count=10_000, seconds=0.006)
    assert stream.getvalue() == ""
    (states,) = shown
    assert states[0] == "work"
    assert states[1] == "work: 84/10000 - 0s - 6ms/batch - 59s left"
    assert states[-1] == "work: 10000/10000 - 1:00 - 6ms/batch"
    assert len(states) <= 2 + 60 / progress.SECONDS_BETWEEN_UPDATES


@pytest.mark.parametrize("verbose", [0, 2])
def test_other_values_of_verbose_are_the_same_in_a_notebook(verbose, clock, shown):
    with contextlib.redirect_stdout(OutStream()) as stream:
        work(clock, verbose, total=5)
    assert shown == []
    assert stream.getvalue() == ("work: 5/5 - 1:40 - 20s/batch\n" if verbose else "")


def test_output_of_a_notebook_that_goes_elsewhere_is_a_log(clock, shown, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", types.SimpleNamespace())  # others import it too
    work(clock, 1, total=5)
    assert shown == []
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_no_work_prints_nothing(capsys):
    assert list(progress.iterate([], "work", verbose=2)) == []
    assert capsys.readouterr().out == ""


def test_a_log_of_keras_is_written_where_keras_writes(clock, caplog):
    keras.config.disable_interactive_logging()
    log, out = caplog.at_level(logging.INFO, logger="absl"), Terminal()
    try:
        with log, contextlib.redirect_stdout(out):
            work(clock, 1, total=1, count=1)
    finally:
        keras.config.enable_interactive_logging()
    assert caplog.messages == ["work: 1/1 - 20s - 20s/batch"]
    assert out.getvalue() == ""


def test_names_that_the_terminal_cannot_show():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with contextlib.redirect_stdout(stream):
        progress.print_line("measure: schüler")
    assert raw.getvalue() == b"measure: sch\\xfcler\n"


def test_steps_say_which_and_how_long(clock, capsys):
    steps = progress.Steps("call", 4, 1, are_alike=True)
    steps.skip("one is there")
    steps.begin("two")
    clock.now += 90
    steps.begin("three")
    clock.now += 90
    steps.begin("four")
    steps.say("done")
    assert capsys.readouterr().out.splitlines() == [
        "call 1/4: one is there",
        "call 2/4: two - 0s so far",
        "call 3/4: three - 1:30 so far - about 3:00 left",
        "call 4/4: four - 3:00 so far - about 1:30 left",
        "call: done",
    ]


@pytest.mark.parametrize("verbose", [True, False, 0, 1, 2, np.int64(1), np.bool_(True), "auto"])
def test_what_verbose_may_be(verbose):
    assert progress.check_verbose(verbose) == (1 if verbose == "auto" else int(verbose))


# The calls.


def batches():
    """Labeled rows in batches of 3; only a pass shows how many there are."""
    x, y = fits.data()
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(3).filter(lambda *_: True)


def diagnosed(verbose, data=None):
    data = fits.data() if data is None else data
    return kd.diagnose(fits.network(1), fits.network(2), data, data, verbose=verbose).to_json()


def measured(verbose, data=None):
    data, options = fits.data() if data is None else data, {"latency": False, "verbose": verbose}
    options["name"] = "student"
    return kd.measure(fits.network(1), data, teacher=fits.network(2), **options).to_dict()


def reported(verbose, data=None):
    student, baseline, data = fits.network(1), fits.network(2), data or fits.data()
    options = {"latency": False, "verbose": verbose}
    found = kd.report(fits.network(3), student, baseline, data=data, **options).to_dict()
    return {key: found[key] for key in ("rows", "verdict", "difference", "classes", "notes")}


LEARNING = {
    "optimizer": "sgd",
    "loss": keras.losses.CategoricalCrossentropy(from_logits=True),
    "metrics": ["accuracy"],
    "run_eagerly": True,
}


def chained(verbose, students=1, **options):
    data = fits.data()
    models = [fits.network(seed) for seed in range(1 + students)]
    keras.utils.set_random_seed(4)
    options = {"compile": LEARNING, "validation_data": data, "verbose": verbose, **options}
    rows = kd.distill_chain(models, data, **options).rows
    return [{k: v for k, v in row.items() if k not in ("model", "teacher")} for row in rows]


def born_again(verbose, **options):
    keras.utils.set_random_seed(4)
    made = kd.BornAgain(fits.network(1), generations=2, **options)
    made.compile(**LEARNING)
    return made.fit(*fits.data(), validation_data=fits.data(), verbose=verbose).rows


CALLS = {
    "diagnose": (diagnosed, "diagnose: validation_data: 1/1 - "),
    "measure": (measured, "measure: student: 1/1 - "),
    "report": (reported, "report 3/3: measuring distilled - "),
    "distill_chain": (chained, "comparing the models: 1/1 - "),
    "BornAgain": (born_again, "BornAgain 2/2: generation 1 learns from generation 0 - "),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_seen_or_silent_and_changes_nothing(name, capsys):
    call, line = CALLS[name]
    silent = call(0)
    assert capsys.readouterr() == ("", "")
    for verbose in (1, 2):
        assert call(verbose) == silent
        printed, errors = capsys.readouterr()
        assert line in printed
        assert not errors


@pytest.mark.parametrize(("call", "label"), [(diagnosed, "diagnose: data"), (measured, "student")])
def test_a_dataset_whose_length_only_a_pass_shows(call, label, capsys):
    call("auto", batches())
    assert f"{label}: 3/3 - " in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["loud", -1, 3, None, 0.5, [1]])
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_verbose_raises_before_any_work(name, wrong, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a model was trained or measured")

    monkeypatch.setattr(keras.Model, "fit", never)
    monkeypatch.setattr(progress, "iterate", never)
    expected = r"`verbose`.* Expected 0 \(silent\), 1 or 'auto' .*Received: verbose="
    with pytest.raises(ValueError, match=expected):
        CALLS[name][0](wrong)


def passes(call):
    """How many batches a call draws out of its data."""
    drawn = []

    def counted(x, y):
        drawn.append(len(x))
        return x, y

    x, y = fits.data()
    specs = tuple(tf.TensorSpec(each.shape, each.dtype) for each in (x, y))
    data = tf.data.Dataset.from_generator(lambda: iter([counted(x, y)]), output_signature=specs)
    call(data)
    return len(drawn)


@pytest.mark.parametrize("name", ["diagnose", "measure", "report"])
def test_no_pass_over_the_data_more(name, capsys):
    call, _ = CALLS[name]
    assert passes(lambda data: call(1, data)) == passes(lambda data: call(0, data))


def test_loaded_models_are_shown(tmp_path, capsys):
    for call, first, second in (
        (born_again, "BornAgain 1/2: generation 0", "BornAgain 2/2: generation 1"),
        (chained, "distill_chain 1/2: ", "distill_chain 2/2: "),
    ):
        folder = tmp_path / call.__name__
        options = {"students": 2} if call is chained else {}
        options["directory"] = folder
        whole = call(2, **options)
        lines = capsys.readouterr().out.splitlines()
        assert not [line for line in lines if "not trained again" in line]
        (folder / ("model_1.json" if call is born_again else "model_2.json")).unlink()
        assert call(2, **options) == whole
        lines = capsys.readouterr().out.splitlines()
        (loaded,) = [line for line in lines if line.startswith(first)]
        assert loaded.endswith("is in the directory, it is not trained again")
        (trained,) = [line for line in lines if line.startswith(second)]
        assert "learns from" in trained


def test_fit_rules_what_a_chain_prints(capsys):
    chained("auto", fit={"verbose": 0})
    assert capsys.readouterr().out == ""
    chained(1, fit={"verbose": 0})
    assert "Epoch" not in capsys.readouterr().out
    chained(0, fit={"verbose": 2})
    printed = capsys.readouterr().out
    assert "loss" in printed
    assert "distill_chain" not in printed


def test_long_timed_runs_are_shown(monkeypatch, capsys):
    from keras_kd.measurement import api

    for seconds, printed in ((0.3, "latency: 6/6 - "), (0.001, "")):
        times = iter(np.arange(1000) * seconds)
        clock = types.SimpleNamespace(perf_counter=lambda times=times: next(times))
        monkeypatch.setattr(api, "time", clock)
        found = api.measure_latency(lambda: None, 2, 4, progress.Bar("latency", 6, "run", 2))
        out = capsys.readouterr().out
        assert out.startswith(printed)
        assert bool(out) == bool(printed)
        assert found["median_us"] == pytest.approx(1e6 * seconds)


@pytest.mark.parametrize("name", ["diagnose", "measure", "report", "chain"])
def test_a_result_shows_itself_once(name, capsys):
    """As the last line of a cell, at the prompt, and in `print`."""
    data, model = fits.data(), fits.network(1)
    options = {"latency": False, "verbose": 0}
    if name == "chain":
        options = {"compile": LEARNING, "validation_data": data, "verbose": 0}
        found = kd.distill_chain([fits.network(2), model], data, **options)
    elif name == "diagnose":
        found = kd.diagnose(fits.network(2), model, data, verbose=0)
    else:
        made = kd.measure(model, data, **options)
        found = made if name == "measure" else kd.report(student=model, data=data, **options)
    print(found)
    assert capsys.readouterr().out == f"{found}\n"
    assert repr(found) == str(found)
    assert "object at 0x" not in str(found)
