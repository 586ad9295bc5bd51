"""A folder of pseudo-labels on disk: shards of JSON lines, and what was dropped.

```
plan.json          how the labels are made, from the first moment on
shard-00000.jsonl  a line for each label that is kept: index, prompt, text, reference
shard-00000.json   how many prompts it is of, what was dropped, checksum, digest of the prompts
manifest.json      all of that, once every prompt has been answered
locks/             empty files
```

Every file is written under another name, synced and then renamed. Nothing in them depends on time,
process or path: a folder that was resumed equals one that was written in one go.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import CacheError
from keras_kd.teachers.cache import format as cache_format

VERSION = 1
PLAN, MANIFEST = cache_format.PLAN, cache_format.MANIFEST


def shard_name(number: int) -> str:
    """The name of a shard, without its ending."""
    return f"shard-{number:05d}"


def read(path: pathlib.Path) -> dict:
    """A file of JSON with its digest, which `cache_format.write_json` wrote.

    Raises:
        CacheError: It is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        expected = value.pop("digest", None)
        is_sound = cache_format.digest(value) == expected
    except FileNotFoundError:
        raise CacheError(f"{path} is missing. {_hint(path)}") from None
    except (ValueError, AttributeError):
        is_sound = False
    if not is_sound:
        raise CacheError(
            f"{path} is damaged: it is not what was written. Remove it and run "
            "keras_kd.language.label again with the same arguments."
        )
    return value


def _hint(path: pathlib.Path) -> str:
    if (path.parent / PLAN).exists():
        return (
            "The labels are not finished: run keras_kd.language.label again with the same "
            "arguments, and it continues where it stopped."
        )
    return "Is this a folder that keras_kd.language.label wrote?"


def encode(record: dict[str, Any]) -> bytes:
    """A label as a line of JSON."""
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    # Half a character, as of bytes that a tokenizer cut, cannot be written.
    return text.encode("utf-8", "replace") + b"\n"


# Prompts.


def digest_of(items: Iterable[tuple[Any, str | None]]) -> str:
    """The SHA-256 of prompts and references."""
    found = hashlib.sha256()
    for prompt, reference in items:
        for each in (prompt, reference):
            for leaf in keras.tree.flatten(each):
                found.update(_bytes(leaf))
    return found.hexdigest()


def _bytes(value: Any) -> bytes:
    if value is None:
        return b"none "
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"s%d " % len(data) + data
    array = np.ascontiguousarray(value)
    if array.dtype.kind == "O":  # its bytes are addresses
        items = [as_text(each) for each in array.reshape(-1).tolist()]
        if not all(isinstance(each, str) for each in items):
            raise invalid("prompts", "texts, arrays, or structures of them", repr(value))
        return f"O{array.shape}".encode() + b"".join(map(_bytes, items))
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def read_prompts(prompts: Any) -> Iterator[tuple[Any, str | None]]:
    """`(prompt, reference)` of all prompts; the reference is `None` where there is none.

    Args:
        prompts: As `keras_kd.language.label` takes them.
    """
    for number, each in enumerate(_elements(prompts)):
        is_pair = isinstance(each, tuple)
        if is_pair and len(each) != 2:
            raise invalid(
                f"prompts[{number}]", "a prompt, or a pair (prompt, reference)", repr(each)
            )
        prompt, reference = each if is_pair else (each, None)
        reference = None if reference is None else as_text(reference)
        if reference is not None and not isinstance(reference, str):
            raise invalid(f"prompts[{number}]", "a reference that is a string", repr(reference))
        yield as_text(prompt), reference


def _elements(prompts: Any) -> Iterable:
    if isinstance(prompts, tf.data.Dataset):
        return prompts.as_numpy_iterator()
    return prompts() if callable(prompts) else prompts


def as_text(value: Any) -> Any:
    """A string of Python where it is one of NumPy or TensorFlow; else the value."""
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "OSU":
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def check_prompts(name: str, prompts: Any) -> None:
    """Raises unless prompts can be read more than once, one by one."""
    expected = (
        "a list of prompts or of pairs (prompt, reference), a function that returns an iterator "
        "of them, or a tf.data.Dataset of single ones"
    )
    if isinstance(prompts, tf.data.Dataset):
        if int(prompts.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise invalid(name, "prompts that end: .take(number)", "an endless dataset")
    elif callable(prompts):
        validation.function(name, prompts, [])
    elif not isinstance(prompts, (list, np.ndarray)):
        raise invalid(name, expected, f"{prompts!r} of type {type(prompts).__name__}")


def count_prompts(prompts: Any) -> int | None:
    """How many prompts there are, or `None` where only reading them tells."""
    if isinstance(prompts, tf.data.Dataset):
        found = int(prompts.cardinality())
        return found if found >= 0 else None
    return None if callable(prompts) else len(prompts)


# Reading labels.


def load_labels(path: str | os.PathLike, prompts: Any = None) -> tf.data.Dataset:
    """The labels that `label` wrote, in the order of their prompts.

    Args:
        path: The folder, or what `label` returned.
        prompts: Prompts that are not texts, such as sounds, do not lie in the folder: pass the same
            ones as to `label`, to have them joined with their labels.

    Returns:
        A `tf.data.Dataset` of single labels. Without `prompts` dicts of scalars: `index` (int64, of
        the prompt), `text`, and, where there were, `prompt` and `reference` (strings). With
        `prompts` pairs `(prompt, text)` of those that were kept.

    Raises:
        CacheError: The folder is not finished or damaged, or, while it is read, these are other
            prompts.
        ValueError: An argument is wrong.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras_kd as kd

    shout = lambda prompts: [each.upper() for each in prompts]
    folder = pathlib.Path(tempfile.mkdtemp()) / "labels"
    kd.language.label(shout, ["one", "two"], folder, verbose=0)
    found = [each["text"].numpy().decode() for each in kd.language.load_labels(folder)]
    assert found == ["ONE", "TWO"]
    ```
    """
    folder = pathlib.Path(validation.path("path", path, "a folder that label wrote"))
    manifest = read(folder / MANIFEST)
    for shard in manifest["shards"]:
        _check_shard(folder, shard)
    if prompts is not None:
        check_prompts("prompts", prompts)
        return _joined(folder, manifest, prompts)
    names = ["text", *(x for x in ("prompt", "reference") if manifest[f"has_{x}s"])]
    signature = {"index": tf.TensorSpec([], tf.int64)} | {
        name: tf.TensorSpec([], tf.string) for name in names
    }

    def read_all() -> Iterator[dict]:
        for record in _records(folder, manifest["shards"]):
            # A prompt without a reference among others that have one.
            yield {name: record.get(name, "") for name in signature}

    found = tf.data.Dataset.from_generator(read_all, output_signature=signature)
    return found.apply(tf.data.experimental.assert_cardinality(manifest["kept"]))


def _check_shard(folder: pathlib.Path, shard: dict) -> None:
    path = folder / f"{shard['name']}.jsonl"
    if not path.is_file() or cache_format.sha256(path) != shard["sha256"]:
        what = "damaged: it is not what was written" if path.is_file() else "missing"
        raise CacheError(
            f"{path} is {what}. Remove it, its .json file and {MANIFEST}, and run "
            "keras_kd.language.label again with the same arguments: it writes that shard alone."
        )


def _records(folder: pathlib.Path, shards: list[dict]) -> Iterator[dict]:
    for shard in shards:
        with (folder / f"{shard['name']}.jsonl").open(encoding="utf-8", newline="\n") as file:
            yield from map(json.loads, file)


def _joined(folder: pathlib.Path, manifest: dict, prompts: Any) -> tf.data.Dataset:
    if isinstance(prompts, tf.data.Dataset):
        spec = prompts.element_spec
        spec = spec[0] if isinstance(spec, tuple) else spec
    else:
        spec = _spec_of(next(iter(read_prompts(prompts)), (None, None))[0])

    def read_pairs() -> Iterator[tuple]:
        items = read_prompts(prompts)
        for shard in manifest["shards"]:
            part = [item for _, item in zip(range(shard["prompts"]), items, strict=False)]
            if digest_of(part) != shard["inputs"]:
                raise CacheError(
                    f"The prompts are not those that {folder} has labels of: {shard['name']} was "
                    "written for others. Pass the same ones, in the same order."
                )
            for record in _records(folder, [shard]):
                yield part[record["index"] - shard["first"]][0], record["text"]

    signature = (spec, tf.TensorSpec([], tf.string))
    found = tf.data.Dataset.from_generator(read_pairs, output_signature=signature)
    return found.apply(tf.data.experimental.assert_cardinality(manifest["kept"]))


def _spec_of(prompt: Any) -> Any:
    def spec(leaf: Any) -> tf.TensorSpec:
        tensor = tf.convert_to_tensor(leaf)
        return tf.TensorSpec([None] * len(tensor.shape), tensor.dtype)

    return keras.tree.map_structure(spec, prompt)
