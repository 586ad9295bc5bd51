"""`JobWorker`: what a process needs to write shards of a job, made once."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_kd import version
from keras_kd.teachers.cache import arguments, contents, plans, schema
from keras_kd.teachers.cache.teacher_run import TeacherRun


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a process needs to write a shard; it travels with the job."""

    source: Callable[[int, int], Any]
    teacher: Any
    load_teacher: Callable[[], Any] | None
    taps: Sequence | None
    dtype: str | None
    top_k: int | None
    key: Callable | None
    from_logits: bool
    fingerprint: str | None

    def loaded_teacher(self) -> Any:
        if self.load_teacher is not None:
            return self.load_teacher()
        if isinstance(self.teacher, str):
            return keras.saving.load_model(self.teacher, compile=False)
        return self.teacher


class JobWorker:
    """The teacher of a job in this process, loaded and traced once."""

    def __init__(self, settings: Settings) -> None:
        self._recorder = contents.record(
            settings.loaded_teacher(),
            settings.taps,
            settings.dtype,
            settings.top_k,
            settings.from_logits,
        )
        self._fingerprint = settings.fingerprint
        self.outputs = TeacherRun(self._recorder, settings.key)
        self.element_spec = arguments.batches_of_shard(settings.source, 0, 0).element_spec
        self.outputs.trace(self.element_spec)

    def fields(self) -> dict:
        """The fields of a plan that follow from the teacher."""
        return plans.of_outputs(self._recorder, self.outputs.specs, self._fingerprint)

    def check_first_batch(self, source: Callable[[int, int], Any]) -> None:
        """Raises unless it is there, is the same twice, and its outputs can be stored."""
        element, again = (
            next(iter(arguments.batches_of_shard(source, 0, 0)), None) for _ in range(2)
        )
        if element is None or again is None:
            raise ValueError("source(0, 0) has no batches: each shard has at least one sample.")
        one, other = (self.outputs.marks(each)[schema.FINGERPRINTS] for each in (element, again))
        if one.shape != other.shape or not bool(tf.reduce_all(one == other)):
            raise ValueError(
                "source(0, 0) gave other inputs when it was read again: it is shuffled, or "
                "augmented without a fixed seed. A shard that is tried again, or read in training, "
                "must have the same batches in the same order: remove `shuffle`, and seed "
                "augmentation by the numbers of the view and the shard."
            )
        self.outputs.components(element, "batch 0 of shard 0 of view 0")


def computing_versions() -> dict[str, str]:
    """The versions of what computes a teacher's outputs here; Python's does not count."""
    return {name: found for name, found in version.installed().items() if name != "python"}


def digest_of(source: Any) -> str | None:
    """What tells a source from others, where it describes itself."""
    describe = getattr(source, "describe", None)
    if describe is None:
        return None
    return hashlib.sha256(json.dumps(describe(), sort_keys=True).encode()).hexdigest()
