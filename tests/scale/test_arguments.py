"""Arguments of `kd.scale.run` are checked before Ray is started."""

import sys
import threading

import pytest

import keras_kd as kd
from tests import extras

extras.require("ray")


def train(worker):
    return worker.index


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"function": lambda: 0}, "`function`. Expected a function of .worker."),
        ({"function": "train"}, "`function`. Expected a function of .worker."),
        ({"workers": 0}, "`workers`. Expected an integer, at least 1"),
        ({"workers": 2.0}, "`workers`"),
        ({"engine": "spark"}, "`engine`. Expected one of .'ray',."),
        ({"retries": -1}, "`retries`. Expected an integer, at least 0"),
        ({"timeout": 0}, "`timeout`"),
        ({"resources": {"GPU": 0}}, "GPU"),
        ({"resources": {}}, "`resources`. Expected a dict of names and amounts"),
        ({"resources": [1]}, "`resources`. Expected a dict of names and amounts"),
        ({"env": {"A": 1}}, "`env`. Expected a dict of texts"),
        ({"env": {"TF_CONFIG": "{}"}}, "`env`. Expected a dict without TF_CONFIG"),
        ({"address": ""}, "`address`"),
        ({"address": "ray://head:10001"}, "`address`.*submit the program as a job"),
        ({"address": "127.0.0.1:1"}, "`address`. Expected a Ray cluster that can be reached"),
        ({"verbose": 3}, "`verbose`"),
    ],
)
def test_wrong_arguments(given, message):
    arguments = {"function": train, "workers": 2, **given}
    with pytest.raises(ValueError, match=message):
        kd.scale.run(arguments.pop("function"), arguments.pop("workers"), **arguments)


def test_what_cannot_be_sent_is_named():
    lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be sent to the workers.*Build that in the"):
        kd.scale.run(lambda worker: lock, 2)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.cloudpickle", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-kd\[ray\]'"):
        kd.scale.run(train, 2)
