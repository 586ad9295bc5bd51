"""Wrong calls of caches raise before any work, and the remedies that are named work."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.cache import caches
from tests.contract.wrong_calls_of_caches import (
    READING,
    WRITING,
    X,
    data,
    load,
    softmax,
    teacher,
    two_heads,
    write,
)


@pytest.mark.parametrize("name", WRITING)
def test_wrong_calls_raise_before_a_file_is_written(name, tmp_path, monkeypatch):
    call, message = WRITING[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call(tmp_path / "cache")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "cache")


@pytest.mark.parametrize("name", READING)
def test_wrong_calls_raise_and_the_cache_stays(name, path):
    before = caches.contents(path)
    call, message = READING[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call(path)
    assert caches.contents(path) == before


def test_each_has_a_message_of_its_own():
    for table in (WRITING, READING):
        assert len(table) >= 30
    kinds = {message for _, message in (*WRITING.values(), *READING.values())}
    assert len(kinds) >= 45


def rows_of(joined):
    return sum(len(tf.nest.flatten(each)[0]) for each in joined)


def test_a_store_that_nothing_installed_reaches_is_named():
    with pytest.raises(ImportError, match=r"'gs://bucket/cache'. needs|'gs://bucket/cache' needs"):
        write("gs://bucket/cache")


def test_a_cache_is_written_here_and_copied_to_a_store(tmp_path):
    here = write(tmp_path / "here")
    store, there = tmp_path / "store", tmp_path / "there"
    for source, to in ((here, store), (store, there)):  # as any tool would
        for file in source.rglob("*"):
            if file.is_file():
                (to / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to / file.relative_to(source))
    for key in (None, "inputs"):
        assert rows_of(load(there, key=key)) == len(X)
    assert kd.teachers.Cached(there)


REMEDIES = {
    "the first of several processes": lambda path: load(write(path, process=(0, 1))),
    "a key that is a function": lambda path: load(
        write(path, key=lambda x, y: x[:, 0]), key=lambda x, y: x[:, 0]
    ),
    "rows by their inputs": lambda path: load(write(path), key="inputs"),
    "a dataset of arrays": lambda path: kd.load_cache(
        write(path), tf.data.Dataset.from_tensor_slices((X, np.zeros(len(X)))).batch(8)
    ),
    "dataset.batch": lambda path: load(
        write(path, given=data().unbatch().batch(8)), data().unbatch().batch(8)
    ),
    "repeat what load_cache returns": lambda path: load(write(path)).repeat(2).take(3),
    "take its first batches": lambda path: load(
        write(path, given=data().repeat().take(3)), data().repeat().take(3)
    ),
    "no softmax": lambda path: load(write(path, top_k=3)),
    "from_logits=False": lambda path: load(write(path, softmax(), top_k=3, from_logits=False)),
    "all of two outputs": lambda path: load(write(path, two_heads())),
    "a function that flattens": lambda path: load(write(path, lambda x: {"a": x, "b": x})),
    "dtype='bfloat16'": lambda path: load(write(path, lambda x: x * 1e30, dtype="bfloat16")),
    "dtype='float32'": lambda path: load(write(path, lambda x: x * 1e30, dtype="float32")),
    "a fingerprint": lambda path: load(write(path, fingerprint="one"), teacher="one"),
    "the teacher": lambda path: load(write(path), teacher=teacher()),
    "an empty folder": lambda path: path.mkdir() or load(write(path)),
    "a number of a view": lambda path: load(
        write(path, given=lambda view: data(), epochs=2), lambda view: data(), epoch=1
    ),
    "verbose=True": lambda path: load(write(path, verbose=True)),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_works(name, tmp_path):
    assert rows_of(REMEDIES[name](tmp_path / "cache")) == len(X)
