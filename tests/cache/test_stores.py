"""Caches in a store of objects, on a real S3 server; it fails now and then."""

import concurrent.futures
import hashlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd._utils import storage
from keras_kd.teachers.cache import plans
from tests import extras, fresh_process, stores
from tests.cache import caches
from tests.cache.test_job import Source, planned

upath = extras.require("upath")
extras.require("s3fs")


@pytest.fixture(scope="module")
def server():
    with stores.s3_server() as port:
        yield port


@pytest.fixture
def store(server, request):
    """A folder of its own in the store."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return upath.UPath(f"s3://bucket/{name}", **stores.options_of(server))


def objects(folder):
    """Every object below a folder, by its path within it."""
    fs, root = folder.fs, folder.path
    return {name.removeprefix(f"{root}/"): fs.cat_file(name) for name in sorted(fs.find(root))}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return caches.written(tmp_path_factory.mktemp("local") / "cache", taps=["h"])


@pytest.fixture(scope="module")
def local_job(tmp_path_factory):
    return planned(tmp_path_factory.mktemp("local") / "job").write_all(verbose=0)


def whole(folder):
    """The files of a local cache, without the index that reading by key has made."""
    found = caches.contents(folder)
    return {name: data for name, data in found.items() if not name.startswith("by-key")}


def assert_equal(found, expected):
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)


# Without faults.


def test_a_cache_in_a_store_is_the_local_one(store, local):
    path = caches.written(store / "cache", taps=["h"])
    assert objects(path) == whole(local)
    there = caches.read(kd.load_cache(path, caches.dataset()))
    assert_equal(there, caches.read(kd.load_cache(local, caches.dataset())))
    caches.written(store / "cache", taps=["h"])  # complete already
    assert objects(path) == whole(local)


def test_an_address_is_enough(store, server, local, monkeypatch):
    """Endpoint and credentials by the environment, as in a container."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    address = str(store / "cache")
    assert address.startswith("s3://bucket/")
    path = caches.written(address, taps=["h"])
    assert str(path) == address
    teacher = kd.teachers.Cached(address)
    assert teacher.get_config()["path"] == address
    joined = kd.load_cache(address, caches.dataset(), teacher=caches.model(1))
    assert_equal(caches.read(joined), caches.read(kd.load_cache(local, caches.dataset())))


def test_a_job_in_a_store_is_the_local_one(store, local_job):
    job = planned(store / "cache")
    job.write((0, 2))
    assert job.pending() == [(0, 0), (0, 1)]
    with pytest.raises(kd.CacheError, match="2 of 3 shards of s3://.* are missing"):
        job.finish()
    job.write_all(verbose=0)
    assert job.pending() == []
    assert objects(store / "cache") == caches.contents(local_job)
    path = job.finish()
    parts = [caches.read(kd.load_cache(path, Source(), process=(i, 2)))[0] for i in range(2)]
    x = caches.arrays()[0]
    assert_equal(parts, [np.concatenate([x[:24], x[48:]]), x[24:48]])


def test_a_student_learns_the_same_from_a_store(store, local):
    path = caches.written(store / "cache", taps=["h"])
    students = []
    for place in (path, local):
        teacher = kd.teachers.Cached(place)
        data = kd.load_cache(place, caches.dataset())
        students.append(caches.trained(teacher, data, student=caches.model(2))[1])
    assert_equal(*(student.get_weights() for student in students))


def test_samples_are_found_by_their_inputs(store, local, tmp_path):
    path = caches.written(store / "cache", taps=["h"])
    shuffled = caches.dataset().unbatch().shuffle(71, seed=1).batch(8)
    found = kd.load_cache(path, shuffled, key="inputs", copies=tmp_path / "copies")
    inputs, outputs, taps = caches.read(found)
    every = kd.load_cache(local, caches.dataset(inputs, np.zeros(71)), key="inputs")
    assert_equal((inputs, outputs, taps), caches.read(every))
    assert list((tmp_path / "copies").glob("by-key-*"))


def test_copies_are_kept_and_found_again(store, tmp_path):
    path = caches.written(store / "cache", taps=["h"])
    copies = tmp_path / "copies"
    first = caches.read(kd.load_cache(path, caches.dataset(), copies=copies))
    files = sorted(copies.glob("*.tfrecord"))
    assert len(files) == 5
    for shard in path.fs.glob(f"{path.path}/view-000/*.tfrecord"):
        path.fs.rm_file(shard)  # all is read from the copies
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].unlink()
    with pytest.raises(Exception, match=r"shard-0000[12].tfrecord is missing"):
        caches.read(kd.load_cache(path, caches.dataset(), copies=copies))
    assert not files[1].exists() or files[1].stat().st_size  # never a part under its name
    caches.written(store / "other", taps=["h"])
    again = kd.load_cache(store / "other", caches.dataset(), copies=copies)
    assert_equal(caches.read(again), first)


def test_few_copies_are_kept_where_there_is_little_room(store, tmp_path):
    job = planned(store / "cache", Source(4), shards=18)
    path, copies = job.write_all(verbose=0), tmp_path / "copies"
    size = storage.size(path / "view-000" / "shard-00000.tfrecord")
    joined = kd.load_cache(path, Source(4), copies=copies, copies_mb=2.5e-6 * size)
    one, other = caches.read(joined), caches.read(joined)  # two epochs
    assert_equal(one, other)
    np.testing.assert_array_equal(one[0], caches.arrays()[0])
    assert 1 <= len(list(copies.glob("*.tfrecord"))) <= 3  # the last one has fewer samples


def test_an_object_that_was_changed_is_named(store):
    path = caches.written(store / "cache", taps=["h"])
    name = f"{path.path}/view-000/shard-00001.tfrecord"
    good = path.fs.cat_file(name)
    path.fs.pipe_file(name, good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(Exception, match=r"shard-00001.tfrecord is not what was written"):
        caches.read(kd.load_cache(path, caches.dataset()))
    path.fs.pipe_file(name, good[:-5])
    with pytest.raises(Exception, match=r"shard-00001.tfrecord has \d+ bytes, and had"):
        caches.read(kd.load_cache(path, caches.dataset()))
    path.fs.rm_file(name)
    with pytest.raises(Exception, match=r"shard-00001.tfrecord is missing"):
        caches.read(kd.load_cache(path, caches.dataset()))


def test_a_program_that_fails_over_a_shard_ends():
    """The threads that fetched the next ones do not hold it up."""
    program = (
        "import keras_kd as kd\n"
        "from tests.cache import caches\n"
        "from tests.cache.test_job import Source, planned\n"
        "job = planned('memory://ends/cache', Source(4), shards=18)\n"
        "path = job.write_all(verbose=0)\n"
        "path.fs.rm_file(f'{path.path}/view-000/shard-00001.tfrecord')\n"
        "data = kd.load_cache(path, job.source)\n"
        "caches.trained(kd.teachers.Cached(path), data, student=caches.model(2))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=fresh_process.environment(),
        cwd=fresh_process.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "shard-00001.tfrecord is missing" in ended.stderr


def test_no_cache_and_half_a_cache_are_named(store):
    with pytest.raises(kd.CacheError, match=r"s3://.*manifest.json is missing.*Is this the folder"):
        kd.load_cache(store / "none", caches.dataset())
    planned(store / "cache").write((0, 0))
    with pytest.raises(kd.CacheError, match="The cache is not finished"):
        kd.teachers.Cached(store / "cache")
    (store / "other" / "notes.txt").write_text("mine")
    with pytest.raises(kd.CacheError, match=r"holds other files \('notes.txt'\)"):
        caches.written(store / "other")
    with pytest.raises(kd.CacheError, match=r"another kind\. teacher"):
        planned(store / "cache", teacher=caches.model(2))


def test_two_jobs_at_one_moment_do_not_mix(store, monkeypatch):
    """A store has no locks: the first plan stays, also where nothing has been written for it."""
    first = planned(store / "cache")
    with pytest.raises(kd.CacheError, match=r"another kind\. dtype: 'float32' there"):
        planned(store / "cache", dtype="float16")
    # Both look before either has written.
    with monkeypatch.context() as patch:
        patch.setattr(plans, "is_begun", lambda folder, plan: False)
        with pytest.raises(kd.CacheError, match="another job writes to the same path"):
            planned(store / "cache", dtype="float16")
    first.write_all(verbose=0)


def test_several_write_the_same_shards_at_once(store, local_job):
    jobs = [planned(store / "cache") for _ in range(2)]

    def write(job):
        return [job.write(shard) for shard in job.shards]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(write, jobs))
    assert all(each.rows in (24, 23) for result in results for each in result)
    jobs[1].finish()
    assert objects(store / "cache") == caches.contents(local_job)


# With faults.

# Looks at the store all the time: what has a note must be whole, and so must be the cache.
_READER = """
import hashlib, json, sys, time
import upath
options, address = json.loads(sys.argv[1]), sys.argv[2]
folder = upath.UPath(address, **options)
fs, root, looks, seen = folder.fs, folder.path, 0, set()
print("ready", flush=True)
while "manifest.json" not in seen:
    names = [name.removeprefix(root + "/") for name in fs.find(root)]
    for name in names:
        if not name.endswith(".json"):
            continue
        value = json.loads(fs.cat_file(f"{root}/{name}"))
        digest = value.pop("digest")
        text = json.dumps(value, sort_keys=True).encode()
        assert hashlib.sha256(text).hexdigest() == digest, name
        if name.startswith("view-"):
            data = fs.cat_file(f"{root}/{name[:-5]}.tfrecord")
            assert hashlib.sha256(data).hexdigest() == value["sha256"], name
        if name == "manifest.json":
            for shard in value["shards"][0]:
                data = fs.cat_file(f"{root}/{shard['name']}.tfrecord")
                assert hashlib.sha256(data).hexdigest() == shard["sha256"], shard
        seen.add(name)
    looks += 1
print(json.dumps([looks, len(seen)]), flush=True)
"""


def test_a_store_that_fails_now_and_then(server, store, local_job, tmp_path, request):
    """One request in twenty; what is written, read and trained equals the local one to the bit."""
    script = tmp_path / "reader.py"
    script.write_text(_READER)
    options = json.dumps(stores.options_of(server))
    reader = fresh_process.start([script, options, str(store / "cache")])
    request.addfinalizer(reader.kill)
    assert reader.stdout.readline() == "ready\n"
    with stores.FaultyProxy(server, share=0.05, seed=3, silence=2.0) as proxy:
        spoilt = upath.UPath(str(store / "cache"), **stores.options_of(proxy.port, timeout=1))
        path = planned(spoilt).write_all(verbose=0)
        students = []
        while proxy.requests < 150:  # until each fault has come
            data = kd.load_cache(path, Source())
            teacher = kd.teachers.Cached(path)
            students.append(caches.trained(teacher, data, student=caches.model(2))[1])
            planned(spoilt).finish()
        counts = dict(proxy.spoilt)
    assert all(counts.values()), counts
    (printed,) = fresh_process.finish([reader])
    looks, seen = json.loads(printed)
    assert looks > 1
    assert seen == 5  # plan, three notes, manifest
    assert objects(store / "cache") == caches.contents(local_job)
    data = kd.load_cache(local_job, Source())
    _, expected = caches.trained(kd.teachers.Cached(local_job), data, student=caches.model(2))
    for student in students:
        assert_equal(student.get_weights(), expected.get_weights())


def test_a_store_that_is_gone_is_named(server, store, monkeypatch):
    monkeypatch.setattr(extras.require("s3fs").S3FileSystem, "retries", 1)
    with stores.FaultyProxy(server, share=1.0, seed=1, silence=0.2) as proxy:
        options = stores.options_of(proxy.port, timeout=0.1)
        options["config_kwargs"]["retries"] = {"max_attempts": 0}
        gone = upath.UPath(str(store / "cache"), **options)
        with pytest.raises(
            OSError, match=r"s3://.*plan.json: the store failed 3 times, at last by"
        ):
            storage.read(gone / "plan.json")
        assert proxy.requests >= 3


# Addresses.


def test_memory_is_a_store_too(local):
    path = caches.written("memory://caches/one", taps=["h"])
    assert objects(path) == whole(local)
    read = caches.read(kd.load_cache("memory://caches/one", caches.dataset()))
    assert_equal(read, caches.read(kd.load_cache(local, caches.dataset())))


def test_a_file_address_is_a_folder_of_this_machine(tmp_path, local):
    path = caches.written(f"file://{tmp_path}/cache", taps=["h"])
    assert path == tmp_path / "cache"
    assert caches.contents(path) == whole(local)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("nonsense://bucket/cache", ValueError, "scheme fsspec knows"),
        ("s3:/bucket/cache", ValueError, "two slashes"),
        ("", ValueError, "`path`"),
        (3, ValueError, "`path`"),
    ],
)
def test_addresses_that_are_none(address, error, message):
    with pytest.raises(error, match=message):
        caches.written(address)
    with pytest.raises(error, match=message):
        kd.load_cache(address, caches.dataset())
    with pytest.raises(error, match=message):
        planned(address)


def test_what_reaches_a_store_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(ImportError, match=r"keras-kd\[cloud\]"):
        caches.written("s3://bucket/cache")


def test_digests_of_objects_do_not_depend_on_the_store(store, local):
    path = caches.written(store / "cache", taps=["h"])
    manifest = json.loads((path / "manifest.json").read_bytes())
    for shard in manifest["shards"][0]:
        data = (path / f"{shard['name']}.tfrecord").read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
        assert data == (local / f"{shard['name']}.tfrecord").read_bytes()
