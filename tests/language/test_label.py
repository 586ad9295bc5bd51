"""`label` with functions: texts, filters, resuming after kill -9, damage, bad input."""

import concurrent.futures
import json
import os
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import fresh_process

PROMPTS = [f"prompt {number}" for number in range(21)]


def shout(prompts):
    return [each.upper() for each in prompts]


def contents(folder):
    """`{name: bytes}` of what a folder holds."""
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(folder).iterdir()) if p.is_file()}


def texts(folder):
    return [each["text"].numpy().decode() for each in kd.language.load_labels(folder)]


def label(folder, prompts=PROMPTS, teacher=shout, **options):
    options = {"batch_size": 2, "prompts_per_shard": 4, "verbose": 0, **options}
    return kd.language.label(teacher, prompts, folder, **options)


def test_a_list(tmp_path):
    found = label(tmp_path / "labels")
    assert (found.prompts, found.kept, found.dropped) == (21, 21, {})
    assert os.fspath(found) == os.fspath(tmp_path / "labels")
    assert texts(found) == [each.upper() for each in PROMPTS]
    names = set(contents(found))
    assert names == {"plan.json", "manifest.json"} | {
        f"shard-0000{i}.{end}" for i in range(6) for end in ("json", "jsonl")
    }
    lines = (tmp_path / "labels" / "shard-00001.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[2]) == {"index": 6, "prompt": "prompt 6", "text": "PROMPT 6"}
    data = kd.language.load_labels(found)
    assert int(data.cardinality()) == 21
    assert set(data.element_spec) == {"index", "prompt", "text"}


def test_batches_of_a_function(tmp_path):
    sizes = []

    def teacher(prompts):
        sizes.append(len(prompts))
        return shout(prompts)

    label(tmp_path / "labels", teacher=teacher, batch_size=2)
    assert sizes == [2] * 10 + [1]


def as_dataset(pairs):
    prompts, references = zip(*pairs, strict=True)
    return tf.data.Dataset.from_tensor_slices((list(prompts), list(references)))


@pytest.mark.parametrize("form", [list, lambda x: lambda: iter(x), as_dataset])
def test_filters_count_what_they_drop(form, tmp_path):
    pairs = [(each, each.upper() if i % 3 else "ä ö") for i, each in enumerate(PROMPTS)]
    seen = []

    def same(prompt, text, reference):
        seen.append((prompt, text, reference))
        return text == reference

    def short(prompt, text, reference):
        return len(text) == 8  # 0 to 9

    found = label(tmp_path / "labels", form(pairs), keep={"same": same, "short": short})
    assert seen == [(prompt, prompt.upper(), reference) for prompt, reference in pairs]
    assert (found.prompts, found.kept) == (21, 6)
    assert found.dropped == {"same": 7, "short": 8}
    rows = list(kd.language.load_labels(found).as_numpy_iterator())
    assert [int(row["index"]) for row in rows] == [1, 2, 4, 5, 7, 8]
    assert [row["reference"].decode() for row in rows] == [
        pairs[int(row["index"])][1] for row in rows
    ]


def test_one_filter_and_its_name(tmp_path):
    found = label(tmp_path / "one", keep=lambda prompt, text, reference: text.endswith("1"))
    assert (found.kept, found.dropped) == (2, {"keep": 19})
    pairs = [("a", "A"), ("b", "something else")]
    found = label(tmp_path / "two", pairs, keep=kd.language.WordErrorFilter(0.1))
    assert (found.kept, found.dropped) == (1, {"WordErrorFilter": 1})
    found = label(tmp_path / "none", keep=lambda prompt, text, reference: False)
    assert found.kept == 0
    assert texts(found) == []


def test_prompts_other_than_texts_are_joined(tmp_path):
    sounds = [np.full(3 + i, i, "float32") for i in range(7)]
    pairs = [(sound, f"{i}") for i, sound in enumerate(sounds)]

    def hear(prompts):
        return [f"{int(each[0])}" if each[0] != 4 else "?" for each in prompts]

    found = label(
        tmp_path / "labels", pairs, hear, keep=lambda prompt, text, reference: text == reference
    )
    assert set(kd.language.load_labels(found).element_spec) == {"index", "text", "reference"}
    joined = kd.language.load_labels(found, prompts=pairs)
    rows = list(joined.as_numpy_iterator())
    assert [int(text) for _, text in rows] == [0, 1, 2, 3, 5, 6]
    for sound, text in rows:
        np.testing.assert_array_equal(sound, sounds[int(text)])
    assert int(joined.cardinality()) == 6
    other = [(sound + 1, text) for sound, text in pairs]
    # TensorFlow wraps what a generator raises.
    with pytest.raises(tf.errors.OpError, match="are not those that .* has labels of: shard-00000"):
        list(kd.language.load_labels(found, prompts=other))
    data = tf.data.Dataset.from_generator(
        lambda: pairs, output_signature=(tf.TensorSpec([None]), tf.TensorSpec([], tf.string))
    )
    assert len(list(kd.language.load_labels(found, prompts=data))) == 6


def test_texts_of_any_script_and_lines(tmp_path):
    odd = ["ä\u2028b", "line\nline\r", "🙂", "", "half \ud83d"]
    found = label(
        tmp_path / "labels",
        ["x"] * 5,
        lambda prompts: odd[: len(prompts)],
        batch_size=5,
        prompts_per_shard=5,
    )
    assert texts(found) == [*odd[:4], "half ?"]


# Resuming.


class StopError(Exception):
    """Ends a run."""


def stopping_after(calls):
    left = [calls]

    def teacher(prompts):
        if not left[0]:
            raise StopError
        left[0] -= 1
        return shout(prompts)

    return teacher


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 10])
def test_a_run_that_ended_continues(calls, tmp_path):
    whole = contents(label(tmp_path / "whole"))
    with pytest.raises(StopError):
        label(tmp_path / "parts", teacher=stopping_after(calls))
    with pytest.raises(kd.CacheError, match="not finished: run keras_kd.language.label again"):
        kd.language.load_labels(tmp_path / "parts")
    sizes = []

    def teacher(prompts):
        sizes.append(len(prompts))
        return shout(prompts)

    label(tmp_path / "parts", teacher=teacher)
    assert sum(sizes) == 21 - calls // 2 * 4  # whole shards are not written again
    assert contents(tmp_path / "parts") == whole
    label(tmp_path / "parts", teacher=stopping_after(0))  # nothing is left to do
    assert contents(tmp_path / "parts") == whole


KILLED = """
import os, signal, sys
import keras_kd as kd
from keras_kd._utils import files
from tests.language.test_label import label, shout

folder, at = sys.argv[1], int(sys.argv[2])
replaced, sync = 0, files.sync

def counted(path):  # before each rename and after it
    global replaced
    replaced += 1
    if replaced == at:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

files.sync = counted
label(folder)
"""


@pytest.mark.parametrize("at", [3, 5, 27])
def test_killed_at_any_file(at, tmp_path):
    """Before a shard has its name, its note has, and the manifest has: two calls for each file."""
    whole = contents(label(tmp_path / "whole"))
    process = fresh_process.start(["-c", KILLED, tmp_path / "killed", str(at)])
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    label(tmp_path / "killed")
    assert contents(tmp_path / "killed") == whole


def test_a_damaged_shard_is_found_and_written_again(tmp_path):
    whole = contents(label(tmp_path / "labels"))
    shard = tmp_path / "labels" / "shard-00002.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b"PROMPT", b"PROMPF"))
    with pytest.raises(kd.CacheError, match="shard-00002.jsonl is damaged"):
        kd.language.load_labels(tmp_path / "labels")
    shard.unlink()
    with pytest.raises(kd.CacheError, match="shard-00002.jsonl is missing"):
        kd.language.load_labels(tmp_path / "labels")
    label(tmp_path / "labels")
    assert contents(tmp_path / "labels") == whole
    note = shard.with_suffix(".json")
    note.write_bytes(note.read_bytes().replace(b'"kept": 4', b'"kept": 3'))
    with pytest.raises(kd.CacheError, match="shard-00002.json is damaged: it is not what was"):
        label(tmp_path / "labels")
    note.unlink()
    label(tmp_path / "labels")
    assert contents(tmp_path / "labels") == whole


def test_other_arguments_in_the_same_folder(tmp_path):
    label(tmp_path / "labels")
    with pytest.raises(kd.CacheError, match="labels of another kind. batch_size: 2 there, 4 now"):
        label(tmp_path / "labels", batch_size=4)
    with pytest.raises(kd.CacheError, match=r"keep: \[\] there, \['keep'\] now"):
        label(tmp_path / "labels", keep=lambda prompt, text, reference: True)
    with pytest.raises(kd.CacheError, match="teacher: None there, 'v2' now"):
        label(tmp_path / "labels", fingerprint="v2")
    with pytest.raises(kd.CacheError, match="prompts or references of shard-00001 differ"):
        label(tmp_path / "labels", [*PROMPTS[:6], "other", *PROMPTS[7:]])
    with pytest.raises(kd.CacheError, match="prompts or references of shard-00000 differ"):
        label(tmp_path / "labels", [(each, "reference") for each in PROMPTS])
    with pytest.raises(kd.CacheError, match="prompts or references of shard-00005 differ"):
        label(tmp_path / "labels", PROMPTS[:20])
    with pytest.raises(kd.CacheError, match="prompts or references of shard-00005 differ"):
        label(tmp_path / "labels", [*PROMPTS, "one more"])


def test_a_run_without_a_shard_leaves_the_folder_free(tmp_path):
    with pytest.raises(StopError):
        label(tmp_path / "labels", teacher=stopping_after(0))
    assert label(tmp_path / "labels", batch_size=4).kept == 21


def test_progress(tmp_path, capsys):
    label(tmp_path / "labels", verbose=2, keep=lambda prompt, text, reference: len(text) == 8)
    assert "kept 10 of 21 labels, keep dropped 11." in capsys.readouterr().out
    label(tmp_path / "labels", verbose=2, keep=lambda prompt, text, reference: len(text) == 8)
    assert "21 were answered before." in capsys.readouterr().out


# Bad input.


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"teacher": "gpt"}, "`teacher`. Expected a model of KerasHub with `generate`"),
        ({"teacher": dict}, "`teacher`. Expected a model of KerasHub"),
        ({"sampler": "greedy"}, "`sampler`. Expected None for a function"),
        ({"max_length": 9}, "`max_length`. Expected None for a function"),
        ({"prompts": "one"}, "`prompts`. Expected a list of prompts or of pairs"),
        ({"prompts": lambda x: x}, "`prompts`. Expected a function without arguments"),
        ({"prompts": []}, "`prompts`. Expected at least one prompt"),
        ({"prompts": [("a", "b", "c")]}, r"`prompts\[0\]`. Expected a prompt, or a pair"),
        ({"prompts": [("a", 3)]}, r"`prompts\[0\]`. Expected a reference that is a string"),
        (
            {"prompts": tf.data.Dataset.from_tensor_slices(["a"]).repeat()},
            "`prompts`. Expected prompts that end",
        ),
        ({"prompts": [object()]}, "`prompts`. Expected texts, arrays, or structures"),
        ({"keep": "short"}, r"`keep\['str'\]`. Expected a function of"),
        ({"keep": lambda text: True}, r"`keep\['keep'\]`. Expected a function of"),
        ({"keep": {1: lambda *a: True}}, "`keep`. Expected a function, or a dict"),
        ({"keep": lambda *a: "yes"}, r"`keep\['keep'\]\(...\)`. Expected True or False"),
        ({"batch_size": 0}, "`batch_size`. Expected an integer, at least 1"),
        ({"prompts_per_shard": 3}, "`prompts_per_shard`. Expected a multiple of batch_size, 2"),
        ({"seed": -1}, "`seed`. Expected an integer, at least 0"),
        ({"verbose": 3}, "`verbose`"),
        ({"teacher": lambda prompts: ["a"]}, "must return a list with a string for each of 2"),
        ({"teacher": lambda prompts: "ab"}, "must return a list with a string for each of 2"),
        ({"teacher": lambda prompts: [1, 2]}, "must return a list with a string for each of 2"),
    ],
)
def test_bad_input(options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        label(tmp_path / "labels", **options)
    assert not list((tmp_path / "labels").glob("shard-*.json"))


def test_bad_folders(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`path`. Expected the path of a folder"):
        label(tmp_path / "file")
    with pytest.raises(kd.CacheError, match=r"holds other files than labels.*\['file'\]"):
        label(tmp_path)
    with pytest.raises(kd.CacheError, match="Is this a folder that keras_kd.language.label wrote"):
        kd.language.load_labels(tmp_path)
    with pytest.raises(ValueError, match="addresses of buckets"):
        label("gs://bucket/labels")


def test_threads_take_turns(tmp_path):
    whole = contents(label(tmp_path / "whole"))
    answered = []

    def teacher(prompts):
        answered.extend(prompts)
        return shout(prompts)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(label, tmp_path / "shared", teacher=teacher) for _ in range(3)]
        assert {run.result().kept for run in runs} == {21}
    assert sorted(answered) == sorted(PROMPTS)  # once each
    assert contents(tmp_path / "shared") == whole
