"""Wrong calls of caches, and what the error must say.

Each call is given a folder: for `WRITING` one that does not exist and must not be made, for
`READING` one with a whole cache (of `teacher()`, `data()`, no keys, one view, all logits).
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests.cache import caches
from tests.contract.calls import argument

X, Y = caches.arrays(24)


def teacher():
    return caches.model(1)


def data():
    return caches.dataset(X, Y)


def write(path, model=None, given=None, **options):
    """A small cache; what is wrong is given."""
    return kd.cache_teacher(
        teacher() if model is None else model,
        data() if given is None else given,
        path,
        **{"verbose": 0, **options},
    )


def softmax():
    return keras.Sequential([keras.Input((caches.FEATURES,)), keras.layers.Dense(7, "softmax")])


def two_heads():
    inputs = keras.Input((caches.FEATURES,))
    return keras.Model(inputs, [keras.layers.Dense(7)(inputs), keras.layers.Dense(7)(inputs)])


def written(name, expected, wrong, **others):
    """Rows of one argument of `cache_teacher`: each of the wrong values is refused."""
    return {
        f"{name}={named(value)}": (
            lambda path, value=value: write(path, **{**others, name: value}),
            argument(name, expected),
        )
        for value in wrong
    }


def named(value):
    return f"a {type(value).__name__}" if isinstance(value, np.ndarray) else repr(value)


def at(address):
    return lambda path: write(address)


WRITING = {
    **{
        f"path={address!r}": (at(address), argument("path", ".*an address has two slashes"))
        for address in ("gs:/bucket/cache", pathlib.Path("gs://bucket/cache"))
    },
    **{
        f"path={named(value)}": (at(value), argument("path", "the folder of a cache, as a path"))
        for value in (None, "", 5, b"cache", "a\0b", ["cache"])
    },
    **written("dtype", "one of", ["int8", "float64", 16, "half", ["float16"]]),
    **written("top_k", "an integer, at least 1, or None", [0, -1, 2.5, "50", True]),
    **written("epochs", "an integer, at least 1", [0, None, 1.5, "2"]),
    **written("batches_per_shard", "an integer, at least 1, or None", [0, "8", 0.5]),
    **written("key", "a function from an element to a key.*None", ["id", "inputs", 0, ["id"]]),
    **written("process", r"\(index, count\), such as", [3, None, (0,), (0, 1, 2), "01"]),
    **written("process", r"\(index, count\).*with index below count", [(2, 2), (5, 3)]),
    **written("from_logits", "True or False", ["yes", None, 1]),
    **written("fingerprint", "a text, or None", [3, "", b"x"]),
    **written("verbose", r"0 \(silent\), 1 or 'auto'", ["loud", 3, None, -1, 0.5]),
    "dtype: compact, without top_k": (
        lambda path: write(path, dtype="compact"),
        "`dtype='compact'` .*pass `top_k` too",
    ),
    "process: a count of 0": (
        lambda path: write(path, process=(0, 0)),
        argument(r"process\[1\]", "an integer, at least 1"),
    ),
    "process: a negative index": (
        lambda path: write(path, process=(-1, 2)),
        argument(r"process\[0\]", "an integer, at least 0"),
    ),
    "process: an index that is a text": (
        lambda path: write(path, process=("0", 2)),
        argument(r"process\[0\]", "an integer"),
    ),
    "taps that are one text": (lambda path: write(path, taps="h"), "`taps`"),
    "taps that are numbers": (lambda path: write(path, taps=[3]), "taps"),
    "a layer that is not there": (
        lambda path: write(path, taps=["missing"]),
        "has no layer 'missing'",
    ),
    "arrays": (
        lambda path: write(path, given=X),
        argument("dataset", "a batched tf.data.Dataset", r"ndarray of shape \(24, 5\)"),
    ),
    "a pair of arrays": (
        lambda path: write(path, given=(X, Y)),
        argument("dataset", "a batched tf.data.Dataset.*from_tensor_slices"),
    ),
    "no data": (lambda path: kd.cache_teacher(teacher(), None, path), argument("dataset", "a bat")),
    "a function of a view that gives arrays": (
        lambda path: write(path, given=lambda view: X),
        "or a function from the number of a view to one. Received: for view 0",
    ),
    "single rows with labels": (
        lambda path: write(path, given=data().unbatch()),
        argument("dataset", r"a batched dataset: call dataset.batch\(batch_size\) first"),
    ),
    "single rows without labels": (
        lambda path: write(path, given=data().unbatch().map(lambda x, y: x)),
        argument("dataset", r"a batched dataset: call dataset.batch\(batch_size\).*\(None, 5\)"),
    ),
    "endless data": (
        lambda path: write(path, given=data().repeat()),
        r"view 0 is endless.*Leave `repeat\(\)` out, and repeat what load_cache returns",
    ),
    "an endless view": (
        lambda path: write(path, given=lambda view: data().repeat(), epochs=3),
        "view 0 is endless",
    ),
    "no batches": (lambda path: write(path, given=data().take(0)), "The dataset.* is empty"),
    "views of two kinds": (
        lambda path: write(
            path, given=lambda view: data().map(lambda x, y: x) if view else data(), epochs=2
        ),
        "All views must have elements of one kind. Received: view 0 of",
    ),
    "no teacher": (
        lambda path: kd.cache_teacher(None, data(), path, verbose=0),
        "(?i)teacher",
    ),
    "teacher and data swapped": (
        lambda path: kd.cache_teacher(data(), teacher(), path, verbose=0),
        "(?i)teacher",
    ),
    "a teacher that needs labels": (
        lambda path: write(path, kd.teachers.VirtualTeacher()),
        "VirtualTeacher cannot be cached: it reads the student's outputs or the labels",
    ),
    "probabilities in place of logits": (
        lambda path: write(path, softmax(), top_k=3),
        r"ends in softmax, and top_k keeps logits.*from_logits=False",
    ),
    "the largest of two outputs": (
        lambda path: write(path, two_heads(), top_k=3),
        "`top_k` keeps the largest logits of one output",
    ),
    "more than all classes": (
        lambda path: write(path, top_k=8),
        r"cannot exceed the number of classes. Received: top_k=8.*\(None, 7\)",
    ),
    "outputs within outputs": (
        lambda path: write(path, lambda x: {"a": [x, x]}),
        "a deeper structure.*Wrap it in a function that flattens it",
    ),
    "an output without rows": (
        lambda path: write(path, lambda x: tf.reduce_sum(x)),
        "one entry for each sample of the batch",
    ),
    "an output with other rows": (
        lambda path: write(path, lambda x: tf.concat([x, x], 0)),
        "one entry for each sample of the batch, in their first dimension",
    ),
    "NaN": (
        lambda path: write(path, lambda x: x * float("nan")),
        "batch 0 of view 0 hold NaN. Look at the inputs of that batch",
    ),
    "numbers too large": (
        lambda path: write(path, lambda x: x * 1e30),
        "numbers too large for dtype='float16'. Pass dtype='bfloat16' or 'float32'",
    ),
}


def load(path, given=None, **options):
    return kd.load_cache(path, data() if given is None else given, **options)


def loaded(name, expected, wrong):
    """Rows of one argument of `load_cache`."""
    return {
        f"{name}={named(value)}": (
            lambda path, value=value: load(path, **{name: value}),
            argument(name, expected),
        )
        for value in wrong
    }


READING = {
    **{
        f"{made.__name__} of {address!r}": (
            lambda path, made=made, address=address: made(address),
            argument("path", expected),
        )
        for made in (load, kd.teachers.Cached)
        for address, expected in {
            "gs:/bucket/cache": ".*an address has two slashes",
            None: "the folder of a cache, as a path",
            5: "the folder of a cache, as a path",
        }.items()
    },
    "a folder that is not there": (
        lambda path: load(path / "missing"),
        "manifest.json is missing. Is this the folder that keras_kd.cache_teacher wrote",
    ),
    "arrays": (
        lambda path: load(path, X),
        argument("dataset", "a batched tf.data.Dataset.*", r"ndarray of shape \(24, 5\)"),
    ),
    "a list": (lambda path: load(path, [X]), argument("dataset", "a batched tf.data.Dataset")),
    "a function that gives arrays": (
        lambda path: load(path, lambda view: X),
        "Received: for view 0",
    ),
    "single rows": (
        lambda path: load(path, data().unbatch()),
        argument("dataset", r"a batched dataset: call dataset.batch\(batch_size\) first"),
    ),
    "endless data": (
        lambda path: load(path, data().repeat()),
        "infinitely many batches.*and repeat it afterwards",
    ),
    "other batches": (lambda path: load(path, data().take(2)), "has 2 batches; the teacher saw 3"),
    **loaded("key", "None, 'inputs', or a function", ["id", 0, ["inputs"], np.arange(3)]),
    **loaded("epoch", "an integer, at least 0, or None", [-1, "0", 0.5, True]),
    **loaded("verify", "True or False", ["no", None, 1]),
    "a view that there is none of": (
        lambda path: load(path, epoch=1),
        "The cache has the views 0 to 0. Received: epoch=1",
    ),
    "a key of a cache without keys": (
        lambda path: load(path, key=lambda x, y: y),
        r"written without keys. Pass key='inputs'.*cache_teacher\(..., key=...\)",
    ),
    "inputs that are not compared": (
        lambda path: load(path, check_inputs=False),
        "check_inputs=False needs a `key` that the data has",
    ),
    "check_inputs that is a text": (
        lambda path: load(path, check_inputs="no"),
        argument("check_inputs", "True or False"),
    ),
    "another teacher": (
        lambda path: load(path, teacher=caches.model(2)),
        "The cache is of another teacher",
    ),
    "another fingerprint": (lambda path: load(path, teacher="one"), "is of another teacher"),
    "no teacher at all": (lambda path: load(path, teacher=5), "(?i)teacher"),
    "a path of a cache to write": (
        lambda path: write(path, top_k=2),
        "holds a cache of another kind. top_k: None there, 2 now. Pass another folder",
    ),
    "a file in place of a folder": (
        lambda path: write(path / "manifest.json"),
        argument("path", "a folder, or a path where nothing is yet", ".*a file"),
    ),
    "a folder below a file": (
        lambda path: write(path / "manifest.json" / "cache"),
        argument("path", "a folder that can be written"),
    ),
    "a folder of other files": (
        lambda path: write(path / "view-000"),
        "view-000 holds other files.*and no cache. Pass an empty or a new folder",
    ),
}
