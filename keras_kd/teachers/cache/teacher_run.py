"""`TeacherRun`: runs a teacher on batches, for all that a cache stores of them."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_kd.teachers import host, protocol
from keras_kd.teachers.cache import arguments, contents, fingerprints, schema


class UnsoundError(ValueError):
    """The teacher's outputs cannot be stored."""


class TeacherRun:
    """Runs a teacher batch by batch: its outputs and taps, with marks that tell samples apart.

    Args:
        recorder: The `contents.OutputRecorder`.
        key: A function from an element to keys, or `None`.

    Attributes:
        specs: Those of a batch's components, by name; known after `trace`.
    """

    def __init__(self, recorder: contents.OutputRecorder, key: Callable | None) -> None:
        self._recorder, self._key = recorder, key
        self.dtype = recorder.dtype
        self.specs: dict[str, tf.TensorSpec] = {}
        self._components: Any = None

    def trace(self, element: Any) -> None:
        """Traces the teacher once for all batches; raises where inputs or outputs do not fit.

        Args:
            element: The `element_spec` of the dataset.
        """
        arguments.check_is_batched(self._recorder.teacher, protocol.inputs_of(element))
        traced = tf.function(self._record, autograph=False)
        self._components = traced.get_concrete_function(element)
        self.specs = self._components.structured_outputs[0]
        if any(spec.shape.rank in (None, 0) for spec in self.specs.values()):
            raise ValueError(
                "Teacher outputs, taps and keys must have one entry for each sample of the batch, "
                f"and a known rank. Received: { ({n: s.shape for n, s in self.specs.items()}) }"
            )

    def _record(self, element: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        stored, sound = self._recorder(protocol.inputs_of(element))
        return {**stored, **self.marks(element)}, sound

    def marks(self, element: Any) -> dict[str, tf.Tensor]:
        """What tells the samples of a batch apart; the teacher does not run."""
        marks = {schema.FINGERPRINTS: fingerprints.fingerprint_samples(protocol.inputs_of(element))}
        if self._key is not None:
            marks[schema.KEYS] = fingerprints.fingerprint_samples(
                self._key(*protocol.parts_of(element))
            )
        return marks

    def components(self, element: Any, where: str) -> dict[str, tf.Tensor]:
        """What is stored of a batch.

        Args:
            element: The batch.
            where: Which one it is, for messages.

        Raises:
            UnsoundError: The outputs hold NaN, or numbers too large for the type that stores them.
            ValueError: They do not have one entry for each sample.
        """
        with host.own_errors(self._recorder.source):
            components, sound = self._components(element)
        lengths = {name: value.shape[:1] for name, value in components.items()}
        if len({tuple(length) for length in lengths.values()}) > 1:
            raise ValueError(
                "Teacher outputs, taps and inputs must have one entry for each sample of the "
                f"batch, in their first dimension. Received: {lengths}. Batch the dataset."
            )
        self._check_sound(f"The teacher's outputs for {where} hold", sound)
        return components

    def _check_sound(self, what: str, sound: tf.Tensor) -> None:
        has_no_nan, fits = sound.numpy()
        if not has_no_nan:
            raise UnsoundError(f"{what} NaN. Look at the inputs of that batch.")
        if not fits:
            others = "'bfloat16' or 'float32'" if self.dtype == "float16" else "'float32' or None"
            raise UnsoundError(
                f"{what} numbers too large for dtype={self.dtype!r}. Pass dtype={others}."
            )
