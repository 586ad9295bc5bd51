"""The plan of a cache: made of a teacher's outputs, agreed on by all who write, and finished."""

import contextlib
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_kd._utils import files, locks, storage
from keras_kd.teachers.cache import contents, fingerprints, schema, shards
from keras_kd.teachers.cache import format as cache_format
from keras_kd.teachers.cache.format import CacheError

# Fields of a plan that follow from others.
_DERIVED = ("classes", "components", "last_activation", "last_activations", "output_names")


def of_outputs(
    recorder: contents.OutputRecorder, specs: dict[str, tf.TensorSpec], fingerprint: str | None
) -> dict:
    """The fields of a plan that name the teacher, and what is stored of it.

    Args:
        recorder: The recorder, which has been traced.
        specs: Those of a batch's components.
        fingerprint: A text that tells the teacher from others; `None`: its own.
    """
    source = recorder.source
    names = source.output_names  # known by now, also where the trace has built the model
    return {
        "teacher": fingerprint or fingerprints.fingerprint_teacher(source),
        "taps": [str(layer) for layer in recorder.teacher.layers],
        "top_k": recorder.top_k,
        "structure": recorder.structure,
        "components": schema.to_json(specs),
        "last_activation": source.last_activation() if recorder.top_k is None else None,
        "last_activations": {
            str(key): source.last_activation(key) for key in _output_keys(recorder.structure)
        },
        "output_names": None if names is None else list(names),
        "classes": recorder.classes,
        "dtype": recorder.dtype,
    }


def _output_keys(structure: Any) -> Iterable:
    """The names or numbers of several outputs."""
    if structure is None:
        return []
    return range(structure) if isinstance(structure, int) else structure


def check_no_other_files(folder: storage.Place) -> None:
    """Raises if a folder without a plan holds files that belong to no cache."""
    if storage.exists(folder / cache_format.PLAN):
        return
    names = storage.names(folder)
    # Looked for twice: another run may begin meanwhile, and writes the plan first.
    if storage.exists(folder / cache_format.PLAN):
        return
    others = [n for n in names if n != locks.FOLDER and not n.startswith("partial-")]
    if others:
        raise CacheError(
            f"{folder} holds other files ({min(others)!r}), and no cache. Pass an empty or a new "
            "folder."
        )


def make_folder(folder: storage.Place) -> None:
    """Makes the folder, so that it survives a power cut; a store has none to make."""
    if storage.is_remote(folder):
        return
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        files.sync(each.absolute().parent)


def is_begun(folder: storage.Place, plan: dict) -> bool:
    """Whether the folder holds a cache of this plan; one without a shard does not count.

    Raises:
        CacheError: It holds a cache of another plan.
    """
    if not storage.exists(folder / cache_format.PLAN):
        return False
    found = cache_format.read_plan(folder)
    is_finished = storage.exists(folder / cache_format.MANIFEST)
    differing = _differing(found, plan, is_finished)
    if not differing and (found["version"] == plan["version"] or is_finished):
        return True
    # A run that ended before its first shard, as by numbers too large, does not count. In a store
    # it does: without locks its plan could be replaced while it publishes that shard.
    is_empty = not is_finished and not _has_shards(folder, found["views"])
    if is_empty and not storage.is_remote(folder):
        return False
    if not differing:
        raise CacheError(
            f"{folder} holds a cache that an earlier keras_kd began, without checksums. "
            "Remove the folder and write the cache again."
        )
    # What follows from an argument or the teacher is named only where nothing else differs.
    named = [name for name in differing if name not in _DERIVED] or differing
    listed = "; ".join(f"{n}: {found.get(n)!r} there, {plan.get(n)!r} now" for n in named)
    raise CacheError(
        f"{folder} holds a cache of another kind. {listed}. Pass another folder, or remove "
        "this one."
    )


def _differing(found: dict, plan: dict, is_finished: bool) -> list[str]:
    """The fields in which two plans are not of one cache; format versions are compared separately.

    A finished cache is whole, whatever computed it; one that goes on needs the same versions.
    """
    names = sorted((found.keys() | plan.keys()) - {"version"})
    if is_finished and schema.COMPUTED_WITH in names:
        names.remove(schema.COMPUTED_WITH)
    if plan["batches_per_shard"] is None:  # shards may have any size
        names.remove("batches_per_shard")
    return [name for name in names if found.get(name) != plan.get(name)]


def _has_shards(folder: storage.Place, views: int) -> bool:
    return any(storage.names(folder / cache_format.view_name(v), ".json") for v in range(views))


def agree_on(folder: storage.Place, plan: dict) -> dict:
    """The plan on disk, made of `plan` where there is none that counts.

    Raises:
        CacheError: It is of another cache.
    """
    with locks.held(folder, cache_format.CACHE):
        if not is_begun(folder, plan):
            if plan["batches_per_shard"] is None and not schema.is_of_job(plan):
                raise CacheError(
                    f"{folder} became a cache of another kind meanwhile. Pass another folder."
                )
            with contextlib.suppress(FileExistsError):  # what another one wrote is read below
                cache_format.write_json(folder / cache_format.PLAN, plan, create_only=True)
        if not storage.is_remote(folder):
            # Leftovers of runs that were killed: these files are made while the lock is held.
            for name in (cache_format.PLAN, cache_format.MANIFEST):
                for leftover in folder.glob(f"partial-*{name}"):
                    leftover.unlink(missing_ok=True)
        agreed = cache_format.read_plan(folder)
    # A store has no locks: what another one wrote at the same moment is found here.
    if _differing(agreed, plan, storage.exists(folder / cache_format.MANIFEST)):
        raise CacheError(
            f"{folder} became a cache of another kind at this moment: another job writes to the "
            "same path. Pass another folder."
        )
    return agreed


def finish(
    folder: storage.Place, plan: dict, parts: list[int], batches: list[int] | None = None
) -> dict | None:
    """Writes the manifest and returns it, if all shards are there; else `None`.

    Args:
        folder: The cache.
        plan: Its plan.
        parts: How many shards each view has.
        batches: How many batches each view has, where that is known.
    """
    views = []
    with locks.held(folder, cache_format.CACHE):
        for view, count in enumerate(parts):
            names = [cache_format.shard_name(view, i) for i in range(count)]
            notes = list(storage.each_of(lambda name: shards.note_of(folder, name), names))
            if None in notes:
                return None  # shards of another process: the last one writes the manifest
            views.append([{"name": n, **note} for n, note in zip(names, notes, strict=True)])
        if batches is not None:
            _check_ends(folder, views, batches)
        manifest = {**plan, "shards": views}
        cache_format.write_json(folder / cache_format.MANIFEST, manifest)
    return manifest


def _check_ends(folder: storage.Place, views: list[list[dict]], counts: list[int]) -> None:
    for view, (found, batches) in enumerate(zip(views, counts, strict=True)):
        written = sum(shard["batches"] for shard in found)
        if written != batches:
            raise CacheError(
                f"View {view} of {folder} holds {written} batches; the dataset has {batches}. It "
                "has changed since the cache was begun: remove the folder and write the cache "
                "again."
            )
