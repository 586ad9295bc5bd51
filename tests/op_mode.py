"""One way to run an op: an implementation (native, tensorflow) in an execution mode.

Every call takes and gives NumPy arrays, so that a test reads the same for all ways in.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_kd import ops


@dataclasses.dataclass(frozen=True)
class OpMode:
    """Runs the ops with `kernel` in `mode`; `*dynamic` knows no dimension before the call."""

    kernel: str
    mode: str

    def soft(
        self,
        student,
        teacher,
        temperature=1.0,
        divergence="forward_kl",
        mixing_weight=0.5,
        sample_weight=None,
        upstream=None,
    ):
        """Loss per row, and the student's gradient of `sum(upstream * loss)`."""
        tensors = {
            "student": student,
            "teacher": teacher,
            "temperature": temperature,
            "upstream": _ones_per_row(student) if upstream is None else upstream,
        }
        if sample_weight is not None:
            tensors["sample_weight"] = sample_weight
        options = (("divergence", divergence), ("mixing_weight", mixing_weight))
        return self._run(_soft, tensors, options)

    def sparse(
        self,
        student,
        teacher,
        indices,
        tail,
        temperature=1.0,
        divergence="forward_kl",
        mixing_weight=0.5,
        sample_weight=None,
        upstream=None,
    ):
        """Loss per row, and the student's gradient of `sum(upstream * loss)`."""
        tensors = {
            "student": student,
            "teacher": teacher,
            "indices": indices,
            "tail": tail,
            "temperature": temperature,
            "upstream": _ones_per_row(student) if upstream is None else upstream,
        }
        if sample_weight is not None:
            tensors["sample_weight"] = sample_weight
        options = (("divergence", divergence), ("mixing_weight", mixing_weight))
        return self._run(_sparse, tensors, options)

    def hard_and_soft(
        self,
        student,
        teacher,
        labels,
        temperature=1.0,
        divergence="forward_kl",
        ignore_label=None,
        sample_weight=None,
        hard_upstream=None,
        soft_upstream=None,
    ):
        """Hard and soft loss per row, and the gradient for their two upstream gradients."""
        ones = _ones_per_row(student)
        tensors = {
            "student": student,
            "teacher": teacher,
            "labels": labels,
            "temperature": temperature,
            "hard_upstream": ones if hard_upstream is None else hard_upstream,
            "soft_upstream": ones if soft_upstream is None else soft_upstream,
        }
        if sample_weight is not None:
            tensors["sample_weight"] = sample_weight
        options = (("divergence", divergence), ("ignore_label", ignore_label))
        return self._run(_hard_and_soft, tensors, options)

    def combined(
        self,
        student,
        teacher,
        labels,
        hard_weight,
        soft_weight,
        temperature=1.0,
        divergence="forward_kl",
        mixing_weight=0.5,
        upstream=None,
    ):
        """Total, hard and soft loss per row, and the gradient of `sum(upstream * total)`."""
        tensors = {
            "student": student,
            "teacher": teacher,
            "labels": labels,
            "hard_weight": hard_weight,
            "soft_weight": soft_weight,
            "temperature": temperature,
            "upstream": _ones_per_row(student) if upstream is None else upstream,
        }
        options = (("divergence", divergence), ("mixing_weight", mixing_weight))
        return self._run(_combined, tensors, options)

    def _run(self, function, tensors, options):
        if self.mode == "eager":
            # Python numbers stay Python numbers: the temperature a user writes.
            tensors = {
                name: value if isinstance(value, float) else tf.constant(value)
                for name, value in tensors.items()
            }
            with ops.use_kernel(self.kernel):
                results = function(tensors, **dict(options))
        else:
            tensors = {name: _tensor(value) for name, value in tensors.items()}
            signature = tuple((name, x.dtype, x.shape.rank) for name, x in tensors.items())
            graph = _graph_function(self.kernel, self.mode, function, options, signature)
            with ops.use_kernel(self.kernel):
                results = graph(tensors)
        return tuple(result.numpy() for result in results)


@functools.cache
def _graph_function(kernel, mode, function, options, signature):
    """One `tf.function` per way in and set of options; it traces or compiles once per shape."""
    del kernel  # Part of the key: the kernel is chosen when the function is traced.
    input_signature = None
    if mode.endswith("dynamic"):
        specs = {name: tf.TensorSpec([None] * rank, dtype) for name, dtype, rank in signature}
        input_signature = [specs]
    return tf.function(
        functools.partial(function, **dict(options)),
        input_signature=input_signature,
        jit_compile=mode.startswith("xla"),
    )


def _soft(tensors, divergence, mixing_weight):
    with tf.GradientTape() as tape:
        tape.watch(tensors["student"])
        loss = ops.soft_target_loss(
            tensors["student"],
            tensors["teacher"],
            tensors["temperature"],
            divergence,
            mixing_weight=mixing_weight,
            sample_weight=tensors.get("sample_weight"),
        )
    return loss, tape.gradient(loss, tensors["student"], tensors["upstream"])


def _sparse(tensors, **options):
    with tf.GradientTape() as tape:
        tape.watch(tensors["student"])
        loss = ops.sparse_soft_target_loss(
            tensors["student"],
            tensors["teacher"],
            tensors["indices"],
            tensors["tail"],
            tensors["temperature"],
            sample_weight=tensors.get("sample_weight"),
            **options,
        )
    return loss, tape.gradient(loss, tensors["student"], tensors["upstream"])


def _hard_and_soft(tensors, **options):
    with tf.GradientTape() as tape:
        tape.watch(tensors["student"])
        losses = ops.hard_and_soft_loss(
            tensors["student"],
            tensors["teacher"],
            tensors["labels"],
            tensors["temperature"],
            sample_weight=tensors.get("sample_weight"),
            **options,
        )
    upstream = [tensors["hard_upstream"], tensors["soft_upstream"]]
    return (*losses, tape.gradient(losses, tensors["student"], upstream))


def _combined(tensors, **options):
    with tf.GradientTape() as tape:
        tape.watch(tensors["student"])
        total, hard, soft = ops.combined_loss(
            tensors["student"],
            tensors["teacher"],
            tensors["labels"],
            tensors["hard_weight"],
            tensors["soft_weight"],
            tensors["temperature"],
            **options,
        )
    return total, hard, soft, tape.gradient(total, tensors["student"], tensors["upstream"])


def _ones_per_row(logits):
    return np.ones(logits.shape[:-1], np.float32)


def _tensor(value):
    return tf.constant(value, tf.float32) if isinstance(value, float) else tf.constant(value)
