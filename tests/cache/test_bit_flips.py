"""No flipped bit in any file of a cache gives other teacher outputs, or another exception."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.cache import caches

# Most flips are noticed before a dataset is made, which is what takes time: so that few of them are
# in files that `load_cache` does not read, the others are large.
ROWS, BATCH = 400, 80


def data(view=0):
    x, y = caches.arrays(ROWS)
    return caches.dataset(x + np.float32(view), y, BATCH)


def key(inputs, labels):
    return tf.strings.as_string(inputs[:, 0])


# How each is written, how it is loaded, and how many bits are flipped.
KINDS = {
    "plain": ({"taps": ["h"]}, {}, 260),
    "float16": ({"dtype": "float16"}, {}, 220),
    "top_k": ({"top_k": 3, "dtype": "float16"}, {}, 260),
    "several views": ({"epochs": 2}, {}, 120),
    "by inputs": ({"dtype": "bfloat16"}, {"key": "inputs"}, 80),
    "by key": ({"top_k": 2, "key": key}, {"key": key}, 80),
}


def flips(path, count, rng):
    """Bits of files, as many in each as it has a share of the bytes, and one at least."""
    files = {file: size for file in sorted(path.rglob("*")) if (size := _size(file))}
    total = sum(files.values())
    for file, size in files.items():
        for _ in range(max(1, math.ceil(count * size / total))):
            yield file, int(rng.integers(size)), int(rng.integers(8))


def _size(file):
    return file.stat().st_size if file.is_file() else 0


def flip(file, at, bit):
    # As damage of a disk would: the same file, not another one of its name.
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0] ^ (1 << bit)
        opened.seek(at)
        opened.write(bytes([byte]))


def contents(path, options):
    _, outputs, taps = caches.read(kd.load_cache(path, _of(options), **options))
    return keras.tree.flatten((outputs, taps))


def contents_or_error(path, options):
    try:
        return contents(path, options)
    except (kd.CacheError, tf.errors.OpError) as error:
        return error


def _of(options):
    return data() if "key" in options else data


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_flip_raises_or_changes_nothing(tmp_path, kind):
    writing, options, count = KINDS[kind]
    views = data if "epochs" in writing else data()
    path = caches.written(tmp_path / "c", data=views, batches_per_shard=2, **writing)
    expected = contents(path, options)
    rng, tried, raised = np.random.default_rng(list(KINDS).index(kind)), set(), 0
    done = list(flips(path, count, rng))
    assert len(done) >= count  # more than 1,000 of all kinds
    for file, at, bit in done:
        before = file.read_bytes()
        flip(file, at, bit)
        found = contents_or_error(path, options)
        what = f"bit {bit} of byte {at} of {file}"
        tried.add(file)
        if isinstance(found, Exception):
            raised += 1
            assert file.name in str(found), what
        else:
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=what)
        file.write_bytes(before)
    assert tried == {file for file in path.rglob("*") if _size(file)}
    assert raised > 0.3 * len(done)


def test_sound_caches_load_again_after_all_that(tmp_path):
    """The flips above are undone by writing the file: that alone does no harm."""
    path = caches.written(tmp_path / "c", data=data())
    expected = contents(path, {"key": "inputs"})
    for file in sorted(path.rglob("*")):
        if _size(file):
            file.write_bytes(file.read_bytes())
    for one, other in zip(contents(path, {"key": "inputs"}), expected, strict=True):
        np.testing.assert_array_equal(one, other)
