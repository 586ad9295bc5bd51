"""Spaces: what they hold, where settings begin, and what is refused."""

import pytest

from keras_kd.tuning.space import DEFAULTS, Range, Settings, Space

RANGE = {"low": 1.0, "high": 16.0, "log": True}


def test_ranges_choices_and_fixed_values():
    given = {"temperature": RANGE, "units": {"low": 4, "high": 12, "step": 4}, "x": ["a", None]}
    space = Space({**given, "alpha": 0.1})
    assert space.searched["temperature"] == Range(1.0, 16.0, True, None, False)
    assert space.searched["units"] == Range(4, 12, False, 4, True)
    assert space.searched["x"] == ("a", None)
    assert space.fixed == {"alpha": 0.1}
    assert Space(space.to_dict()).searched == space.searched
    assert space.without({"x", "alpha"}).keys() == {"temperature", "units"}


@pytest.mark.parametrize("name", ["temperature", "alpha", "learning_rate", "hint_weight"])
def test_known_settings_are_continuous_though_written_with_whole_numbers(name):
    assert not Space({name: {"low": 1, "high": 3}, "beta": 1}).searched[name].whole
    assert Space({"layers": {"low": 1, "high": 3}}).searched["layers"].whole


def test_start_is_what_is_wanted_or_the_middle():
    space = Space({"temperature": RANGE, "units": {"low": 4, "high": 12, "step": 4}, "x": ["a", 2]})
    assert space.start("temperature", DEFAULTS) == 4.0
    assert space.start("temperature", {"temperature": 40.0}) == pytest.approx(4.0)  # sqrt(1 * 16)
    assert space.start("units", {}) == 8
    assert space.start("units", {"units": 6}) == 8  # 6 is none of its steps
    assert [space.start("x", {"x": 2}), space.start("x", {})] == [2, "a"]


def test_settings_are_chosen_where_they_are_read_and_once():
    asked = []

    def choose(name, options):
        asked.append(name)
        return options.low

    space = Space({"temperature": RANGE, "units": {"low": 4, "high": 12}, "alpha": 0.3})
    settings = Settings(space, DEFAULTS, choose)
    assert settings["temperature"] == settings["temperature"] == 1.0
    assert settings["alpha"] == 0.3
    assert settings["beta"] is None
    assert asked == ["temperature"]
    assert settings.chosen == {"temperature": 1.0}
    assert settings.read == {"temperature", "alpha", "beta"}
    assert settings.get("temprature") is None
    with pytest.raises(KeyError, match="no setting 'unit'; close to it: \\['units', 'hint'\\]"):
        settings["unit"]


REFUSED = {
    "no dict": (None, "a dict of settings by name"),
    "empty": ({}, "a dict of settings by name"),
    "no names": ({1: [1, 2]}, "names of settings"),
    "all fixed": ({"alpha": 0.5}, "fixes all of its settings"),
    "no choices": ({"x": []}, r"space\['x'\] is empty"),
    "twice": ({"x": [1, 2, 1]}, "lists a choice twice"),
    "objects": ({"x": [object()]}, "name anything else with a text"),
    "keys": ({"x": {"low": 1, "hi": 2}}, "a range {'low': number"),
    "one end": ({"x": {"low": 1}}, "a range {'low': number"),
    "order": ({"x": {"low": 2, "high": 1}}, "low < high"),
    "same": ({"x": {"low": 2, "high": 2}}, "For a single value write 'x': 2"),
    "log of 0": ({"x": {"low": 0, "high": 1, "log": True}}, "logarithmic, so `low` must be"),
    "log and step": ({"x": {"low": 1, "high": 9, "log": True, "step": 1}}, "goes with no 'log'"),
    "long step": ({"x": {"low": 1, "high": 2, "step": 3}}, "at most high - low"),
    "infinite": ({"x": {"low": 1, "high": float("inf")}}, "a finite number"),
    "text": ({"x": {"low": "1", "high": 2}}, "a finite number"),
    "log": ({"x": {"low": 1, "high": 2, "log": "yes"}}, "log"),
    "temperature": ({"temperature": {"low": 0, "high": 4}}, "numbers above 0"),
    "alpha": ({"alpha": [-0.1, 0.5]}, "numbers at least 0"),
    "no temperature": ({"temperature": [None, 1.0]}, "numbers above 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    given, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        Space(given)


def test_width_and_depth_are_shares_where_students_are_shrunk():
    assert Space({"width": {"low": 4, "high": 8}}).searched["width"].whole
    with pytest.raises(ValueError, match="numbers above 0 and at most 1"):
        Space({"width": [0.5, 1.5]}, shrinks=True)
