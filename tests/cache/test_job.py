"""A cache as a job: shards written one by one, by whoever, in any order, once or more often."""

import pickle
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.teachers.cache import job as job_room
from keras_kd.teachers.cache import job_worker, planning
from tests import extras
from tests.cache import caches

# 71 rows in shards of 24, 24 and 23, of batches of 8.
SHARD, SHARDS = 24, 3


class Source:
    """Parts of the arrays, and how often each was read."""

    def __init__(self, rows=SHARD, order=None):
        self.rows, self.order, self.reads = rows, order, []

    def __call__(self, view, shard):
        self.reads.append((view, shard))
        x, y = (each[shard * self.rows : (shard + 1) * self.rows] for each in caches.arrays())
        if self.order is not None:
            order = np.random.default_rng(self.order(len(self.reads))).permutation(len(x))
            x, y = x[order], y[order]
        return caches.dataset(x + view, y)


def ragged(view, shard):
    """Shards of 10, 41 and 20 rows: most of them end in a batch that is not full."""
    x, y = (np.split(each, [10, 51])[shard] for each in caches.arrays())
    return caches.dataset(x + view, y)


def planned(path, source=None, **options):
    options = {"teacher": caches.model(1), "dtype": "float32", "shards": SHARDS, **options}
    return kd.cache.plan(source=source or Source(), path=path, taps=["h"], **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed cache, written in one go."""
    return planned(tmp_path_factory.mktemp("reference") / "cache").write_all(verbose=0)


def assert_equal(found, expected):
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)


# What is written.


def test_any_order_and_any_number_of_tries_give_the_same_bytes(tmp_path, reference):
    job = planned(tmp_path / "cache")
    first = job.write(job.shards[2])
    assert (first.rows, first.was_there) == (23, False)
    again = job.write((0, 2))
    assert (again.rows, again.bytes, again.was_there) == (23, first.bytes, True)
    assert job.pending() == [(0, 0), (0, 1)]
    for shard in reversed(job.pending()):
        job.write(shard)
    assert job.pending() == []
    assert job.finish() == job.finish() == tmp_path / "cache"
    assert caches.contents(tmp_path / "cache") == caches.contents(reference)


def test_outputs_are_those_of_cache_teacher(tmp_path, reference):
    whole = kd.load_cache(
        caches.written(tmp_path / "whole", taps=["h"]), caches.dataset(), verify=True
    )
    assert_equal(caches.read(kd.load_cache(reference, Source())), caches.read(whole))


def test_a_shard_reads_its_part_of_the_data_once(tmp_path):
    source = Source()
    job = planned(tmp_path / "cache", source)
    source.reads.clear()
    job.write_all(verbose=0)
    assert source.reads == [(0, 0), (0, 1), (0, 2)]
    job.write_all(verbose=0)
    assert len(source.reads) == 3


def test_a_pickled_job_writes_the_same_in_another_process(tmp_path, reference):
    job = planned(tmp_path / "cache")
    copy = pickle.loads(extras.require("cloudpickle").dumps(job))
    copy.token = "another process"  # the teacher of this one is not used
    for shard in copy.pending():
        copy.write(shard)
    copy.finish()
    assert caches.contents(tmp_path / "cache") == caches.contents(reference)


def test_a_teacher_of_a_file_is_loaded_once_in_a_process(tmp_path, reference, monkeypatch):
    file, loads = tmp_path / "teacher.keras", []
    caches.model(1).save(file)
    load = keras.saving.load_model
    monkeypatch.setattr(
        keras.saving, "load_model", lambda *args, **kw: loads.append(args) or load(*args, **kw)
    )
    job = planned(tmp_path / "cache", teacher=file)
    job.write_all(verbose=0)
    assert len(loads) == 1
    assert caches.contents(tmp_path / "cache") == caches.contents(reference)


def test_a_process_keeps_few_teachers(tmp_path, reference):
    jobs = [planned(tmp_path / str(i)) for i in range(6)]
    for job in jobs:  # the first ones have to load theirs again
        job.write_all(verbose=0)
    assert len(job_room._WORKERS) == 4
    assert caches.contents(tmp_path / "0") == caches.contents(reference)


def test_a_function_that_loads_the_teacher(tmp_path, reference):
    job = planned(tmp_path / "cache", teacher=None, load_teacher=lambda: caches.model(1))
    job.write_all(verbose=0)
    assert caches.contents(tmp_path / "cache") == caches.contents(reference)


@pytest.mark.parametrize("options", [{"top_k": 3, "taps": None}, {"dtype": "bfloat16"}])
def test_other_settings(tmp_path, options):
    job = kd.cache.plan(
        teacher=caches.model(1),
        source=Source(),
        path=tmp_path / "job",
        shards=SHARDS,
        **{"dtype": "float32", **options},
    )
    job.write_all(verbose=0)
    whole = kd.cache_teacher(
        caches.model(1),
        caches.dataset(),
        tmp_path / "whole",
        batches_per_shard=3,
        verbose=0,
        **{"dtype": "float32", **options},
    )
    for number in range(SHARDS):
        name = f"view-000/shard-{number:05d}.tfrecord"
        assert (tmp_path / "job" / name).read_bytes() == (whole / name).read_bytes()


# How it is read.


def test_the_whole_dataset_may_have_other_batches(reference):
    joined = kd.load_cache(reference, caches.dataset(batch=5))
    inputs, outputs, _ = caches.read(joined)
    np.testing.assert_array_equal(inputs, caches.arrays()[0])
    expected = caches.model(1).predict(caches.arrays()[0], verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)
    assert int(joined.cardinality()) == 15


def test_shards_may_end_in_batches_that_are_not_full(tmp_path):
    path = planned(tmp_path / "cache", ragged).write_all(verbose=0)
    by_source = kd.load_cache(path, ragged)
    assert int(by_source.cardinality()) == sum(1 for _ in by_source) == 2 + 6 + 3
    for data in (caches.dataset(), caches.dataset(batch=9)):  # cut otherwise
        joined = kd.load_cache(path, data)
        assert_equal(caches.read(by_source), caches.read(joined))


def test_processes_read_their_own_shards(reference):
    sources = [Source(), Source()]
    parts = [kd.load_cache(reference, source, process=(i, 2)) for i, source in enumerate(sources)]
    assert [int(part.cardinality()) for part in parts] == [6, 3]
    first, second = (caches.read(part)[0] for part in parts)
    x = caches.arrays()[0]
    np.testing.assert_array_equal(first, np.concatenate([x[:24], x[48:]]))
    np.testing.assert_array_equal(second, x[24:48])
    assert {shard for _, shard in sources[0].reads} == {0, 2}
    assert {shard for _, shard in sources[1].reads} == {1}


def test_processes_verify_their_own_shards(tmp_path, reference):
    """Many readers of parts do not each read all of a cache."""
    path = shutil.copytree(reference, tmp_path / "cache")
    damaged = path / "view-000" / "shard-00001.tfrecord"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    kd.load_cache(path, Source(), process=(0, 2))
    for options in ({"process": (1, 2)}, {"process": (0, 2), "key": "inputs"}, {}):
        with pytest.raises(kd.CacheError, match="shard-00001.tfrecord is damaged"):
            kd.load_cache(path, Source(), **options)
    kd.load_cache(path, Source(), process=(1, 2), verify=False)  # its size is right
    damaged.unlink()
    kd.load_cache(path, Source(), process=(0, 2), verify=False)


def test_views_follow_one_another(tmp_path):
    job = planned(tmp_path / "cache", epochs=2)
    assert job.shards == [(v, n) for v in range(2) for n in range(SHARDS)]
    path = job.write_all(verbose=0)
    inputs = caches.read(kd.load_cache(path, job.source))[0]
    x = caches.arrays()[0]
    np.testing.assert_array_equal(inputs, np.concatenate([x, x + 1]))
    np.testing.assert_array_equal(caches.read(kd.load_cache(path, Source(), epoch=1))[0], x + 1)


def test_samples_are_found_by_their_inputs(reference):
    shuffled = caches.dataset().unbatch().shuffle(71, seed=1).batch(8)
    inputs, outputs, _ = caches.read(kd.load_cache(reference, shuffled, key="inputs"))
    expected = caches.model(1).predict(inputs, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


def test_a_student_learns_the_same_from_a_job_as_from_one_cache(tmp_path, reference):
    whole = caches.written(tmp_path / "whole", taps=["h"])
    _, one = caches.trained(
        kd.teachers.Cached(reference), kd.load_cache(reference, Source()), student=caches.model(2)
    )
    _, other = caches.trained(
        kd.teachers.Cached(whole), kd.load_cache(whole, caches.dataset()), student=caches.model(2)
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_of_every_kind_of_input_passes_a_source(tmp_path):
    def source(view, shard):
        x, y = (each[shard * SHARD : (shard + 1) * SHARD] for each in caches.arrays())
        return caches.dataset({"a": x[:, :2], "b": x[:, 2:]}, y)

    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    teacher = keras.Model(
        {"a": a, "b": b}, keras.layers.Dense(3)(keras.layers.Concatenate()([a, b]))
    )
    job = kd.cache.plan(teacher=teacher, source=source, path=tmp_path / "cache", shards=SHARDS)
    joined = kd.load_cache(job.write_all(verbose=0), source)
    assert sum(len(element[1]) for element in joined) == caches.ROWS


# What is refused.


def test_a_source_that_is_shuffled_is_found_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="other inputs when it was read again"):
        planned(tmp_path / "cache", Source(order=lambda read: read))
    assert not (tmp_path / "cache").exists()


def test_a_source_with_another_order_on_a_second_try_is_found(tmp_path):
    source = Source(order=lambda read: 0)
    job = planned(tmp_path / "cache", source)
    job.write((0, 0))
    job.check((0, 0))
    source.order = lambda read: 1
    with pytest.raises(kd.CacheError, match="inputs of shard view-000/shard-00000 differ"):
        job.check((0, 0))
    with pytest.raises(kd.CacheError, match="has not been written"):
        job.check((0, 1))


def test_two_at_once_with_different_inputs_are_found(tmp_path):
    """The slower one of two that write a shard compares its inputs with what is there."""
    source = Source()
    job = planned(tmp_path / "cache", source)

    def slower(view, shard):
        data = source(view, shard)
        if (view, shard) == (0, 1):
            kd.cache.plan(
                teacher=caches.model(1),
                source=source,
                path=tmp_path / "cache",
                shards=SHARDS,
                taps=["h"],
                dtype="float32",
            ).write((0, 1))
            x, y = next(data.unbatch().batch(100).as_numpy_iterator())
            return caches.dataset(x[::-1], y[::-1])
        return data

    other = planned(tmp_path / "cache", slower)
    with pytest.raises(kd.CacheError, match="inputs of shard view-000/shard-00001 differ"):
        other.write((0, 1))
    assert job.write((0, 1)).was_there


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (25, r"source\(0, 0\) must have 24 samples .* It has 25 or more"),
        (20, r"source\(0, 0\) must have 24 samples .* It has 20 of them"),
        (0, r"source\(0, 1\) has no samples|source\(0, 0\) has no batches"),
    ],
)
def test_a_shard_of_the_wrong_size_is_not_published(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        planned(tmp_path / "cache", Source(rows), rows_per_shard=SHARD).write((0, 0))
    assert not list(tmp_path.rglob("*.tfrecord"))


def test_an_empty_shard_is_named(tmp_path):
    job = planned(tmp_path / "cache", Source(40))  # the third has nothing
    with pytest.raises(ValueError, match=r"source\(0, 2\) has no samples"):
        job.write((0, 2))
    job.write((0, 0))
    with pytest.raises(kd.CacheError, match="2 of 3 shards .* are missing .*shard-00001"):
        job.finish()
    with pytest.raises(kd.CacheError, match="not finished"):
        kd.load_cache(tmp_path / "cache", job.source)


def test_another_teacher_in_a_worker_is_refused(tmp_path):
    file = tmp_path / "teacher.keras"
    caches.model(1).save(file)
    job = planned(tmp_path / "cache", teacher=file)
    job.token = str(tmp_path)
    caches.model(2).save(file)
    with pytest.raises(kd.CacheError, match="another teacher than the plan"):
        job.write((0, 0))
    assert job.pending() == job.shards


def test_other_versions_in_a_worker_are_refused(tmp_path, monkeypatch):
    job = planned(tmp_path / "cache")
    job.token = str(tmp_path)
    others = {**job_worker.computing_versions(), "tensorflow": "2.3.0"}
    with monkeypatch.context() as patch:
        patch.setattr(job_room, "computing_versions", lambda: others)
        with pytest.raises(kd.CacheError, match=rf"tensorflow {tf.__version__} there, 2.3.0 here"):
            job.write((0, 0))
    job.write((0, 0))
    with monkeypatch.context() as patch:
        # A task that makes the plan itself.
        patch.setattr(planning, "computing_versions", lambda: others)
        with pytest.raises(kd.CacheError, match=r"another kind\. computed_with: .*2\.3\.0"):
            planned(tmp_path / "cache")
        job.write_all(verbose=0)
        assert planned(tmp_path / "cache").pending() == []  # what is finished is whole


class Described(Source):
    """A source that says what it is."""

    shards = SHARDS

    def __init__(self, size):
        super().__init__()
        self.size = size

    def describe(self):
        return {"size": self.size}


def test_other_data_in_a_worker_is_refused(tmp_path):
    source = Described(71)
    job = planned(tmp_path / "cache", source, shards=None)
    job.token, source.size = str(tmp_path), 72
    with pytest.raises(kd.CacheError, match="other data than the plan"):
        job.write((0, 0))
    source.size = 71
    job.write((0, 0))
    with pytest.raises(kd.CacheError, match=r"another kind\. source: "):
        planned(tmp_path / "cache", Described(73), shards=None)


def test_two_jobs_on_one_path_are_refused(tmp_path):
    planned(tmp_path / "cache").write((0, 0))
    with pytest.raises(kd.CacheError, match=r"another kind\. teacher: "):
        planned(tmp_path / "cache", teacher=caches.model(2))
    with pytest.raises(
        kd.CacheError, match=r"another kind\. dtype: 'float32' there, 'float16' now"
    ):
        planned(tmp_path / "cache", dtype="float16")
    with pytest.raises(kd.CacheError, match=r"another kind\. parts: \[3\] there, \[4\] now"):
        planned(tmp_path / "cache", shards=4)
    with pytest.raises(kd.CacheError, match="parts"):
        caches.written(tmp_path / "cache", taps=["h"])


def test_a_job_that_lost_its_folder_to_another_does_not_publish(tmp_path):
    first = planned(tmp_path / "cache")
    planned(tmp_path / "cache", dtype="float16")  # no shard was there yet
    with pytest.raises(kd.CacheError, match="became a cache of another kind"):
        first.write((0, 0))
    assert not list(tmp_path.rglob("*.tfrecord"))


def test_processes_need_a_job(tmp_path):
    path = caches.written(tmp_path / "cache")
    with pytest.raises(ValueError, match="only a cache that a job wrote"):
        kd.load_cache(path, caches.dataset(), process=(0, 2))
    with pytest.raises(ValueError, match="`copies`. Expected None"):
        kd.load_cache(path, caches.dataset(), copies=tmp_path / "copies")


def test_more_processes_than_shards_are_refused(reference):
    with pytest.raises(ValueError, match=r"process=\(3, 4\) none of them"):
        kd.load_cache(reference, Source(), process=(3, 4))


WRONG = {
    "no teacher": ({"teacher": None}, "either `teacher` .* or `load_teacher`"),
    "two teachers": ({"load_teacher": caches.model}, "either `teacher` .* or `load_teacher`"),
    "no file": ({"teacher": "none.keras"}, "`teacher`"),
    "no function": ({"teacher": None, "load_teacher": 3}, "`load_teacher`. Expected a function"),
    "a dataset": ({"source": caches.dataset()}, "`source`. Expected a function from the numbers"),
    "one argument": ({"source": lambda view: None}, "which cannot be called so"),
    "no dataset": ({"source": lambda view, shard: 3}, r"source\(0, 0\) must return a batched"),
    "endless": (
        {"source": lambda view, shard: caches.dataset().repeat()},
        r"source\(0, 0\) is endless",
    ),
    "not batched": (
        {"source": lambda view, shard: caches.dataset().unbatch()},
        "single samples",
    ),
    "no shards": ({"shards": None}, "`shards` must say how many"),
    "shards": ({"shards": 0}, "`shards`"),
    "rows": ({"rows_per_shard": 0}, "`rows_per_shard`"),
    "other shards": ({"source": Described(1), "shards": 5}, "`shards`. Expected 3"),
    "dtype": ({"dtype": "int8"}, "`dtype`"),
    "key": ({"key": 3}, "`key`"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arguments_are_named_before_any_work(tmp_path, kind):
    options, message = WRONG[kind]
    with pytest.raises(ValueError, match=message):
        planned(tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_a_shard_that_is_none_of_the_job(tmp_path):
    job = planned(tmp_path / "cache")
    wrong = [(0, 3), (1, 0), (0, -1), (-1, 0), (0,), (0, 0, 0), (0, 0.5), (0, None), 2, "0", None]
    for shard in wrong:
        with pytest.raises(ValueError, match=r"`shard`. Expected one of job\.shards"):
            job.write(shard)
    assert job.write(np.array([0, 2]).tolist()).shard == job.write((np.int64(0), 2)).shard == (0, 2)


def test_unsound_outputs_are_named(tmp_path):
    def source(view, shard):
        x, y = caches.arrays()
        return caches.dataset(np.full_like(x, np.nan), y)

    with pytest.raises(ValueError, match="batch 0 of shard 0 of view 0 hold NaN"):
        planned(tmp_path / "cache", source)
