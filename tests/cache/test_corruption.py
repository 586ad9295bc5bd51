"""Whatever happens to a cache's files is noticed, and said."""

import hashlib
import json
import shutil

import pytest
import tensorflow as tf

import keras_kd as kd
from tests.cache import caches

SHARD = "view-000/shard-00001.tfrecord"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return caches.written(tmp_path_factory.mktemp("whole") / "cache", taps=["h"])


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "cache")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(one, other):
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])


def sealed(path, value):
    """Writes a file as whoever knows the digest would."""
    text = json.dumps(value, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps({**value, "digest": digest}))


def manifest(path, change):
    value = json.loads((path / "manifest.json").read_text())
    del value["digest"]
    changed = change(value)
    sealed(path / "manifest.json", value if changed is None else changed)


def setting(*at, to):
    """A change of one field of the manifest."""

    def change(value):
        for name in at[:-1]:
            value = value[name]
        value[at[-1]] = to

    return lambda c: manifest(c, change)


SHARD_0 = ("shards", 0, 0)
# What a manifest with a right digest may still not say: it is checked before anything is used.
WRONG = {
    "a later version": (setting("version", to=99), "format version 99; .*reads version 4 and"),
    "a version that is a text": (setting("version", to="2"), "format version '2'"),
    "no shards": (
        lambda c: manifest(c, lambda m: m.pop("shards") and None),
        "`shards` is 'missing'",
    ),
    "a field more": (setting("more", to=1), "`more` is 1; expected no such field"),
    "more views than there are": (setting("views", to=7), "`views` is 7; expected 1"),
    "no views": (setting("views", to=0), "`views` is 0; expected an integer, at least 1"),
    "a number for a truth": (setting("has_keys", to=0), "`has_keys` is 0; expected true or false"),
    "keys that no record has": (
        setting("has_keys", to=True),
        "`components` is .*expected .*'keys'",
    ),
    "a teacher that is a list": (setting("teacher", to=[]), r"`teacher` is \[\]; expected a text"),
    "another type": (setting("dtype", to="int8"), "`dtype` is 'int8'; expected one of"),
    "taps twice": (setting("taps", to=["h", "h"]), "`taps` is .*distinct texts"),
    "taps that no record has": (setting("taps", to=[]), "`components` is"),
    "another structure": (setting("structure", to=2), "`components` is"),
    "names out of order": (setting("structure", to=["b", "a"]), "`structure` is"),
    "a top_k": (setting("top_k", to=3), "`components` is"),
    "a shape without rows": (
        setting("components", "outputs/0", "shape", to=[3, 7]),
        r"`components\['outputs/0'\].shape` is \[3, 7\]; expected null and then sizes",
    ),
    "a negative size": (
        setting("components", "outputs/0", "shape", to=[None, -7]),
        r"shape` is \[None, -7\]",
    ),
    "a type of nothing": (
        setting("components", "outputs/0", "dtype", to="float31"),
        "dtype` is 'float31'; expected the name of a type",
    ),
    "a type of handles": (setting("components", "outputs/0", "dtype", to="resource"), "dtype` is"),
    "fingerprints of another type": (
        setting("components", "fingerprints", "dtype", to="int32"),
        r"components\['fingerprints'\]` is",
    ),
    "a shard outside of the folder": (
        setting(*SHARD_0, "name", to="../outside/shard-00000"),
        r"`shards\[0\]\[0\].name` is '../outside/shard-00000'; expected 'view-000/shard-00000'",
    ),
    "a shard at an absolute path": (setting(*SHARD_0, "name", to="/etc/passwd"), "name` is '/etc"),
    "a shard that is a text": (
        setting("shards", 0, 0, to="view-000"),
        r"`shards\[0\]\[0\]` is 'view",
    ),
    "no shards of a view": (setting("shards", 0, to=[]), r"`shards\[0\]` is \[\]"),
    "shards that are not a list": (setting("shards", to={}), "`shards` is {}; expected a list"),
    "rows without number": (
        setting(*SHARD_0, "rows", to=10**12),
        "rows` is 1000000000000; .*at most",
    ),
    "rows below 0": (
        setting(*SHARD_0, "rows", to=-1),
        "rows` is -1; expected an integer, at least 0",
    ),
    "rows that are not an integer": (setting(*SHARD_0, "rows", to=16.0), "rows` is 16.0"),
    "bytes below 0": (setting(*SHARD_0, "bytes", to=-1), "bytes` is -1"),
    "batches without number": (setting(*SHARD_0, "batches", to=10**9), "batches` is 1000000000"),
    "a checksum that is none": (setting(*SHARD_0, "sha256", to="0" * 63), "sha256` is '000"),
    "a checksum of other letters": (setting(*SHARD_0, "inputs", to="X" * 64), "inputs` is 'XXX"),
    "shards that changed places": (
        lambda c: manifest(c, lambda m: m["shards"][0].insert(0, m["shards"][0].pop(1))),
        "name` is 'view-000/shard-00001'; expected 'view-000/shard-00000'",
    ),
}


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
    "manifest of another value": (
        lambda c: (c / "manifest.json").write_text(
            (c / "manifest.json").read_text().replace("linear", "softmax")
        ),
        "its digest differs",
    ),
    "manifest without a digest": (
        lambda c: (c / "manifest.json").write_text(
            (c / "manifest.json").read_text().replace('"digest"', '"digest1"')
        ),
        "its digest differs",
    ),
    **{
        f"manifest {text!r}": (
            lambda c, text=text: (c / "manifest.json").write_text(text),
            "manifest.json is damaged",
        )
        for text in ("[]", "null", '"x"', "5", "[" * 100_000, "1" * 5000)
    },
    "manifest with a wrong size": (setting(*SHARD_0, "bytes", to=300), "00000.tfrecord is damaged"),
    "manifest with a wrong checksum": (
        setting(*SHARD_0, "sha256", to="0" * 64),
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


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("how", ["load_cache", "Cached"])
def test_what_a_manifest_may_not_say_is_named(copy, kind, how):
    damage, message = WRONG[kind]
    damage(copy)
    with pytest.raises(kd.CacheError, match=message):
        kd.teachers.Cached(copy) if how == "Cached" else kd.load_cache(copy, caches.dataset())


def test_another_type_is_noticed_where_it_is_read(copy):
    setting("components", "outputs/0", "dtype", to="float16")(copy)
    with pytest.raises(tf.errors.InvalidArgumentError, match="[Tt]ype"):
        caches.read(kd.load_cache(copy, caches.dataset(), verify=False))


def test_the_remedy_for_a_damaged_manifest_works(copy):
    before = caches.contents(copy)
    flip(copy / "manifest.json", 40)
    with pytest.raises(kd.CacheError, match="remove it and run keras_kd.cache_teacher again"):
        kd.load_cache(copy, caches.dataset())
    (copy / "manifest.json").unlink()
    caches.written(copy, taps=["h"])
    assert caches.contents(copy) == before


def test_the_remedy_for_a_damaged_note_works(copy):
    before = caches.contents(copy)
    flip(copy / "view-000/shard-00001.json", 40)
    (copy / "manifest.json").unlink()
    with pytest.raises(kd.CacheError, match="00001.json is damaged.*that shard alone is written"):
        caches.written(copy, taps=["h"])
    (copy / "view-000/shard-00001.json").unlink()
    caches.written(copy, taps=["h"])
    assert caches.contents(copy) == before


@pytest.mark.parametrize("key", [None, "inputs"])
def test_a_damaged_record_names_its_file_where_shards_are_not_verified(copy, key):
    flip(copy / SHARD, 300)
    with pytest.raises(Exception, match="shard-00001.tfrecord is damaged or missing") as found:
        caches.read(kd.load_cache(copy, caches.dataset(), verify=False, key=key))
    assert isinstance(found.value, (kd.CacheError, tf.errors.OpError))


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
