"""Caches of format version 1, which had no digests in their files of JSON, are still read.

`tests/golden/cache_version_1` was written by keras_kd before version 2: ten rows in batches of
four, of `caches.model(1)`.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

import keras_kd as kd
from keras_kd.ops import sparse_logits
from tests.cache import caches

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "cache_version_1"
ROWS, BATCH = 10, 4
OPTIONS = {"plain": {"taps": ["h"]}, "top_k": {"top_k": 3}}


def data():
    x, y = caches.arrays(ROWS)
    return caches.dataset(x, y, BATCH)


@pytest.fixture(params=OPTIONS)
def kind(request):
    return request.param


@pytest.fixture
def path(tmp_path, kind):
    return shutil.copytree(GOLDEN / kind, tmp_path / kind)


@pytest.mark.parametrize("key", [None, "inputs"])
def test_they_are_read(path, kind, key):
    x, outputs, taps = caches.read(kd.load_cache(path, data(), key=key))
    exact = caches.model(1)(x).numpy()
    if kind == "plain":
        np.testing.assert_allclose(outputs, exact, rtol=1e-5, atol=1e-6)
        assert taps["h"].shape == (ROWS, 6)
        return
    again = sparse_logits.keep_largest(
        exact, 3
    )  # levels and slopes too: they are computed otherwise now
    for name, value in vars(again).items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_they_teach(path):
    history, _ = caches.trained(kd.teachers.Cached(path), kd.load_cache(path, data()))
    living, _ = caches.trained(caches.model(1), data())
    np.testing.assert_allclose(history["loss"], living["loss"], rtol=0.2)


def test_the_call_that_wrote_them_finds_them_whole(path, kind):
    before = caches.contents(path)
    caches.written(path, data=data(), **OPTIONS[kind])
    assert caches.contents(path) == before


def test_an_unfinished_one_is_written_again(path, kind):
    (path / "manifest.json").unlink()
    with pytest.raises(kd.CacheError, match="an earlier keras_kd began.*Remove the folder and wr"):
        caches.written(path, data=data(), **OPTIONS[kind])
    shutil.rmtree(path)
    caches.written(path, data=data(), **OPTIONS[kind])
    assert len(caches.read(kd.load_cache(path, data()))[0]) == ROWS


def test_the_first_caches_had_fewer_fields(path):
    value = json.loads((path / "manifest.json").read_text())
    for name in ("last_activations", "output_names", "classes"):
        del value[name]
    (path / "manifest.json").write_text(json.dumps(value))
    assert kd.teachers.Cached(path).output_names is None


@pytest.mark.parametrize(
    ("name", "to"), [("views", 7), ("shards", []), ("digest", "0"), ("version", True), ("taps", {})]
)
def test_they_are_checked_too(path, name, to):
    value = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**value, name: to}))
    with pytest.raises(kd.CacheError, match=name):
        kd.load_cache(path, data())
