"""Whatever happens to a cache's files is noticed, and said."""

import json
import shutil

import pytest

import keras_kd as kd
from tests.cache import caches

SHARD = "view-000/shard-00001.tfrecord"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return caches.written(tmp_path_factory.mktemp("whole") / "cache", taps=["h"])


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "cache")


def edited(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(one, other):
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])


def manifest(path, change):
    value = json.loads((path / "manifest.json").read_text())
    change(value)
    (path / "manifest.json").write_text(json.dumps(value))


DAMAGE = {
    "shard missing": (lambda c: (c / SHARD).unlink(), "shard-00001.tfrecord is missing"),
    "shard empty": (lambda c: (c / SHARD).write_bytes(b""), "has 0 bytes, and had"),
    "shard cut by a byte": (
        lambda c: (c / SHARD).write_bytes((c / SHARD).read_bytes()[:-1]),
        "shard-00001.tfrecord is damaged: it has",
    ),
    "shard cut in half": (
        lambda c: (c / SHARD).write_bytes((c / SHARD).read_bytes()[:500]),
        "it has 500 bytes",
    ),
    "shard with more bytes": (
        lambda c: (c / SHARD).write_bytes((c / SHARD).read_bytes() + b"x"),
        "shard-00001.tfrecord is damaged",
    ),
    "first byte flipped": (lambda c: flip(c / SHARD, 0), "00001.*checksum differs"),
    "a byte in the middle flipped": (lambda c: flip(c / SHARD, 700), "00001.*checksum differs"),
    "last byte flipped": (lambda c: flip(c / SHARD, -1), "00001.*checksum differs"),
    "shards swapped": (
        lambda c: swap(c / SHARD, c / "view-000/shard-00002.tfrecord"),
        "00001.*checksum differs",
    ),
    "a shard of zeros": (
        lambda c: (c / SHARD).write_bytes(bytes((c / SHARD).stat().st_size)),
        "00001.*checksum differs",
    ),
    "manifest missing": (lambda c: (c / "manifest.json").unlink(), "The cache is not finished"),
    "manifest empty": (lambda c: (c / "manifest.json").write_text(""), "manifest.json is damaged"),
    "manifest cut": (
        lambda c: (c / "manifest.json").write_text((c / "manifest.json").read_text()[:-30]),
        "manifest.json is damaged",
    ),
    "manifest of other bytes": (
        lambda c: (c / "manifest.json").write_bytes(b"\xff\xfe\x00"),
        "manifest.json is damaged",
    ),
    "manifest of a later version": (
        lambda c: edited(c / "manifest.json", version=99),
        "format version 99; this keras_kd reads version 1",
    ),
    "manifest without shards": (
        lambda c: manifest(c, lambda m: m.pop("shards")),
        "lacks .'shards'",
    ),
    "manifest with a wrong size": (
        lambda c: manifest(c, lambda m: m["shards"][0][0].update(bytes=3)),
        "shard-00000.tfrecord is damaged",
    ),
    "manifest with a wrong checksum": (
        lambda c: manifest(c, lambda m: m["shards"][0][0].update(sha256="0" * 64)),
        "00000.*checksum differs",
    ),
    "no cache at all": (lambda c: shutil.rmtree(c), "manifest.json is missing. Is this the folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_and_named(copy, kind):
    damage, message = DAMAGE[kind]
    damage(copy)
    with pytest.raises(kd.CacheError, match=message):
        kd.load_cache(copy, caches.dataset())


@pytest.mark.parametrize("kind", ["shard missing", "shard cut by a byte", "manifest missing"])
def test_the_teacher_notices_what_sizes_tell(copy, kind):
    damage, message = DAMAGE[kind]
    damage(copy)
    with pytest.raises(kd.CacheError, match=message):
        kd.teachers.Cached(copy)


def test_another_dtype_in_the_manifest_is_noticed(copy):
    def change(value):
        value["components"]["outputs/0"]["dtype"] = "float16"

    manifest(copy, change)
    with pytest.raises(Exception, match="[Tt]ype"):
        caches.read(kd.load_cache(copy, caches.dataset(), verify=False))


def test_shards_that_changed_places_in_the_manifest_are_noticed(copy):
    def change(value):
        shards = value["shards"][0]
        shards[0], shards[1] = shards[1], shards[0]

    manifest(copy, change)
    with pytest.raises(Exception, match="batch 0, row 0 is the first"):
        caches.read(kd.load_cache(copy, caches.dataset()))


@pytest.mark.parametrize("how", ["load_cache", "Cached"])
def test_another_teacher_is_noticed(whole, how):
    load = {
        "load_cache": lambda teacher: kd.load_cache(whole, caches.dataset(), teacher=teacher),
        "Cached": lambda teacher: kd.teachers.Cached(whole, teacher=teacher),
    }[how]
    load(caches.model(1))
    load(caches.model(1, name="another_name"))
    other = caches.model(1)
    weights = other.get_weights()
    weights[0][0, 0] += 1e-6
    other.set_weights(weights)
    with pytest.raises(kd.CacheError, match="The cache is of another teacher"):
        load(other)


def test_a_damaged_shard_can_be_written_again_alone(copy):
    before = caches.contents(copy)
    for ending in ("tfrecord", "json"):
        (copy / f"view-000/shard-00001.{ending}").unlink()
    (copy / "manifest.json").unlink()
    asked = []
    teacher = caches.model(1)
    predict = teacher.call
    teacher.call = lambda *args, **kwargs: asked.append(1) or predict(*args, **kwargs)
    caches.written(copy, teacher=teacher, taps=["h"])
    assert caches.contents(copy) == before
