"""Checks of what `cache_teacher` and `load_cache` are given, before any work."""

import os
import pathlib

import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import contents
from keras_kd.teachers.cache.format import CacheError


def folder(path):
    """The folder of a cache, as `pathlib.Path`.

    Raises:
        ValueError: It is no path, or an address of a store.
    """
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise invalid("path", "the folder of a cache, as a path", repr(path))
    if validation.is_address(given):
        raise invalid(
            "path",
            "a folder of this machine: caches are locked, renamed and mapped into memory there. "
            "Write the cache to a local folder and copy it to the store when it is finished; copy "
            "it to a local folder before it is loaded",
            repr(given),
        )
    return pathlib.Path(given)


def new_folder(path):
    """The folder that a cache is to be written to; as `folder`.

    Raises:
        ValueError: It is a file, or may not be written.
        CacheError: It holds files that are none of a cache.
    """
    found = folder(path)
    if found.exists() and not found.is_dir():
        raise invalid("path", "a folder, or a path where nothing is yet", f"{str(found)!r}, a file")
    above = next(each for each in (found, *found.absolute().parents) if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise invalid("path", f"a folder that can be written; {str(above)!r} cannot", repr(path))
    return found


def views(dataset):
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


def batched(dataset, view):
    """The dataset of a view, which is a batched `tf.data.Dataset`."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`dataset` must be a batched tf.data.Dataset, or a function from the number of a view "
            f"to one. Received: for view {view} {dataset!r} of type {type(dataset).__name__}"
        )
    return validation.batched("dataset", dataset)


def to_be_kept(dataset, epochs):
    """The datasets of all views: batched, alike, and with an end.

    Raises:
        ValueError: They are not.
    """
    view_of = views(dataset)
    found = [batched(view_of(view), view) for view in range(epochs)]
    for view, each in enumerate(found):
        if validation.never_ends(each):
            raise ValueError(
                f"The dataset of view {view} is endless, and so would be its cache. Leave "
                "`repeat()` out, and repeat what load_cache returns; or take(n) its first n "
                "batches."
            )
        if not _alike(found[0].element_spec, each.element_spec):
            raise ValueError(
                "All views must have elements of one kind. Received: view 0 of "
                f"{found[0].element_spec}, view {view} of {each.element_spec}"
            )
    return found


def _alike(one, other):
    try:
        tf.nest.assert_same_structure(one, other)
    except (TypeError, ValueError):
        return False
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    return all(a.is_compatible_with(b) or b.is_compatible_with(a) for a, b in pairs)


def check_rows(source, element):
    """Raises if a dataset's elements look like single rows of the teacher's inputs.

    Args:
        source: The `Teacher`.
        element: The specification of the inputs.
    """
    wanted = source.input_specs() or {}
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


def dtype(value):
    """The type in which outputs are kept."""
    if not (value is None or isinstance(value, str)) or value not in contents.DTYPES:
        raise invalid("dtype", f"one of {contents.DTYPES}", repr(value))
    return value


def process(value):
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


def key(value):
    """A function from an element of the dataset to a key for each row, or `None`."""
    if value is not None and not callable(value):
        raise invalid(
            "key",
            "a function from an element to a key for each row, such as lambda inputs, labels: "
            "inputs['id'], or None (load_cache finds rows by their inputs without one, by "
            "key='inputs')",
            repr(value),
        )
    return value


def verbose(value):
    """Whether progress is shown."""
    if isinstance(value, str) or value not in (0, 1):  # True and False are these too
        raise invalid("verbose", "0 or 1", repr(value))
    return bool(value)


def check_foreign(path):
    """Raises if a folder without a plan holds what no cache has."""
    others = [
        each.name
        for each in path.iterdir()
        if each.name != "locks" and not each.name.startswith("partial-")
    ]
    if others:
        raise CacheError(
            f"{path} holds other files ({sorted(others)[0]!r}), and no cache. Pass an empty or a "
            "new folder."
        )
