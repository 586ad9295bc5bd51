"""Checks of the arguments of `cache_teacher` and `load_cache`, before any work."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_kd._utils import batches, storage, validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import contents
from keras_kd.teachers.protocol import TeacherDescription


def folder(path: Any) -> storage.Place:
    """The folder of a cache: of this machine, as `pathlib.Path`, or in a store.

    Raises:
        ImportError: It is in a store, and what reaches it is not installed.
        ValueError: It is not a path.
    """
    return storage.place(path, "path", "the folder of a cache, as a path or an address")


def new_folder(path: Any) -> storage.Place:
    """The folder to which a cache is to be written; see `folder`.

    Raises:
        ValueError: See `folder`; or it is a file, or cannot be written.
    """
    found = folder(path)
    if storage.is_remote(found):
        return found  # the plan is the first object to be written, and says what is refused
    if found.exists() and not found.is_dir():
        raise invalid("path", "a folder, or a path where nothing is yet", f"{str(found)!r}, a file")
    above = next(each for each in (found, *found.absolute().parents) if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise invalid("path", f"a folder that can be written; {str(above)!r} cannot", repr(path))
    return found


def views(dataset: Any) -> Callable[[int], Any]:
    """The function from the number of a view to its dataset."""
    if isinstance(dataset, tf.data.Dataset):
        return lambda view: dataset
    if not callable(dataset):
        shape = getattr(dataset, "shape", None)
        kind = type(dataset).__name__
        raise invalid(
            "dataset",
            "a batched tf.data.Dataset, such as tf.data.Dataset.from_tensor_slices((x, y))"
            ".batch(32), or a function from the number of a view to one",
            f"{dataset!r} of type {kind}" if shape is None else f"{kind} of shape {tuple(shape)}",
        )
    return dataset


def batched(dataset: Any, view: int) -> tf.data.Dataset:
    """The dataset of a view, which is a batched `tf.data.Dataset`."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`dataset` must be a batched tf.data.Dataset, or a function from the number of a view "
            f"to one. Received: for view {view} {dataset!r} of type {type(dataset).__name__}"
        )
    return batches.batched("dataset", dataset)


def datasets_of_views(dataset: Any, epochs: int) -> list[tf.data.Dataset]:
    """The datasets of all views: batched, finite and of one element type.

    Raises:
        ValueError: They are not.
    """
    view_of = views(dataset)
    found = [batched(view_of(view), view) for view in range(epochs)]
    for view, each in enumerate(found):
        if batches.never_ends(each):
            raise ValueError(
                f"The dataset of view {view} is endless, and so would be its cache. Leave "
                "`repeat()` out, and repeat what load_cache returns; or take(n) its first n "
                "batches."
            )
        if not are_compatible(found[0].element_spec, each.element_spec):
            raise ValueError(
                "All views must have elements of one kind. Received: view 0 of "
                f"{found[0].element_spec}, view {view} of {each.element_spec}"
            )
    return found


def source(value: Any) -> Callable[[int, int], Any]:
    """A job's source: a function from the numbers of a view and a shard to its dataset."""
    expected = (
        "a function from the numbers of a view and a shard to a batched tf.data.Dataset of that "
        "part alone, or one of keras_kd.cache.sources"
    )
    if isinstance(value, tf.data.Dataset) or not callable(value):
        raise invalid("source", expected, f"{value!r} of type {type(value).__name__}")
    try:
        inspect.signature(value).bind(0, 0)
    except TypeError as error:
        found = f"{value!r}, which cannot be called so: {error}"
        raise invalid("source", expected, found) from None
    return value


def batches_of_shard(source: Callable[[int, int], Any], view: int, shard: int) -> tf.data.Dataset:
    """What a source returns for a shard: a finite, batched dataset.

    Raises:
        ValueError: It is none.
    """
    where = f"source({view}, {shard})"
    found = source(view, shard)
    if not isinstance(found, tf.data.Dataset):
        raise ValueError(
            f"{where} must return a batched tf.data.Dataset of the batches of shard {shard} of "
            f"view {view}. Received: {found!r} of type {type(found).__name__}"
        )
    found = batches.batched(where, found)
    if batches.never_ends(found):
        raise ValueError(f"{where} is endless: it must end with its shard. Leave `repeat()` out.")
    return found


def are_compatible(one: Any, other: Any) -> bool:
    """Whether the elements of two datasets, by their `element_spec`s, are of one kind."""
    try:
        tf.nest.assert_same_structure(one, other)
    except (TypeError, ValueError):
        return False
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    return all(a.is_compatible_with(b) or b.is_compatible_with(a) for a, b in pairs)


def check_is_batched(teacher: TeacherDescription, element: Any) -> None:
    """Raises if a dataset's elements look like single samples of the teacher's inputs.

    Args:
        teacher: Describes the teacher.
        element: The specification of the inputs.
    """
    wanted = teacher.input_specs or {}
    given = tf.nest.flatten(element)
    if len(wanted) != len(given) or len(given) != 1:
        return
    (spec,) = wanted.values()
    shape = getattr(given[0], "shape", None)
    rank = None if shape is None else shape.rank
    if rank is not None and spec.shape is not None and rank == len(spec.shape) - 1:
        raise invalid(
            "dataset",
            f"a batched dataset: call dataset.batch(batch_size) first; the teacher takes inputs of "
            f"shape {tuple(spec.shape)}",
            f"inputs of shape {shape}",
        )


def check_dtype(value: Any, top_k: int | None) -> None:
    """Raises unless outputs, or the largest `top_k` logits, can be stored in this type."""
    if not (value is None or isinstance(value, str)) or value not in contents.DTYPES:
        raise invalid("dtype", f"one of {contents.DTYPES}", repr(value))
    if value == contents.COMPACT and top_k is None:
        raise ValueError(
            "`dtype='compact'` stores the largest logits in few bytes: pass `top_k` too, such as "
            "top_k=50. All outputs are stored in 'float16', 'bfloat16' or 'float32'. Received: "
            "top_k=None"
        )


def process(value: Any) -> tuple[int, int]:
    """`(index, count)` of a process among those that write one cache."""
    expected = "(index, count), such as (0, 4) for the first of four processes"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise invalid("process", expected, repr(value))
    index, count = value
    count = validation.integer("process[1]", count, 1)
    index = validation.integer("process[0]", index, 0)
    if index >= count:
        raise invalid("process", f"{expected}, with index below count", repr(value))
    return index, count


def check_writing_key(value: Any) -> None:
    """Raises unless `cache_teacher` can take this `key`."""
    if value is not None and not callable(value):
        raise invalid(
            "key",
            "a function from an element to a key for each sample, such as lambda inputs, labels: "
            "inputs['id'], or None (load_cache finds samples by their inputs without one, by "
            "key='inputs')",
            repr(value),
        )


def check_reading_key(value: Any, check_inputs: bool) -> None:
    """Raises unless `load_cache` can take this `key` with this `check_inputs`."""
    by_inputs = isinstance(value, str) and value == "inputs"
    if value is not None and not callable(value) and not by_inputs:
        raise invalid(
            "key",
            "None, 'inputs', or a function from an element to a key for each sample, such as "
            "lambda inputs, labels: inputs['id']",
            repr(value),
        )
    if not check_inputs and not callable(value):
        raise ValueError(
            "check_inputs=False needs a `key` that the data has: without it nothing would tell "
            "which sample is which."
        )
