"""`ContrastiveRepresentation`: tell each sample's features from those of others (CRD)."""

from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.losses import relations

OBJECTIVES = ("infonce", "nce")


@keras.saving.register_keras_serializable(package="keras_kd")
class ContrastiveRepresentation(relations.RelationalLoss):
    """Tells the teacher's features of the same input from those of other inputs.

    Both models' features (of images their means over the positions) go through a trained dense
    layer each to `width` numbers and are scaled to length 1: `t_j` and `s_i`, and `g_ij = s_i .
    t_j / temperature`. The other inputs are the `n` other rows of the batch and, if `memory_size`
    is above 0, the last so many rows of earlier batches, as they were embedded then.

    `"infonce"`: `l_i = -log(exp(g_ii) / sum_j exp(g_ij))`. `"nce"`, as in the paper: `l_i = -log
    h_ii - sum_{j != i} log(1 - h_ij)` with `h = exp(g) / (exp(g) + N / dataset_size)` and `N`
    others. Neither is 0 where both features are equal.

    The memory is a queue of embeddings, not (as the authors' bank) an entry for each input, so
    data needs no indices. It is filled in training steps only, each replica its own, and saved
    with the distiller.

    Args:
        teacher_layer: See `DistillationLoss`; `None`: the model's output.
        student_layer: The same for the student.
        width: Numbers of an embedding.
        temperature: A positive number, by which similarities are divided.
        memory_size: Rows remembered.
        objective: `"infonce"` or `"nce"`.
        dataset_size: Rows of the training data, for `"nce"`.
        **kwargs: `weight`, `output` and `name`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, width]` or `[batch, height,
    width, channels]`. Returns `[batch]`, float32.

    Raises:
        ValueError: An argument is wrong, or the features are of another rank.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.ContrastiveRepresentation("pooled", "pooled", width=16, memory_size=32)
    teacher = np.random.normal(size=(8, 64)).astype("float32")
    student = np.random.normal(size=(8, 10)).astype("float32")
    assert loss(teacher, student).shape == (8,)
    ```

    Reference: Tian, Krishnan, Isola, "Contrastive Representation Distillation",
    https://arxiv.org/abs/1910.10699
    """

    def __init__(
        self,
        teacher_layer: Any = None,
        student_layer: Any = None,
        width: int = 128,
        temperature: float = 0.07,
        memory_size: int = 0,
        objective: str = "infonce",
        dataset_size: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_layer=teacher_layer, student_layer=student_layer, **kwargs)
        validation.one_of("objective", objective, OBJECTIVES)
        if objective == "nce" and dataset_size is None:
            raise ValueError(
                "ContrastiveRepresentation(objective='nce') needs `dataset_size`, the number of "
                "rows of the training data."
            )
        if objective != "nce" and dataset_size is not None:
            raise invalid(
                "dataset_size", f"None: objective={objective!r} does not look at it", dataset_size
            )
        self.width = validation.integer("width", width, 1)
        self.memory_size = validation.integer("memory_size", memory_size, 0)
        self.dataset_size = validation.integer("dataset_size", dataset_size, 1, optional=True)
        self.similarity_temperature = validation.positive("temperature", temperature)
        self.objective = objective
        if memory_size:
            self.min_batch_size = 1
        self.teacher_head = keras.layers.Dense(width, name="teacher_head", dtype="float32")
        self.student_head = keras.layers.Dense(width, name="student_head", dtype="float32")

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        super().build(teacher_outputs_shape, student_outputs_shape)
        self.teacher_head.build((None, teacher_outputs_shape[-1]))
        self.student_head.build((None, student_outputs_shape[-1]))
        # Not Keras' variables: replicas that fill their own inside of a step cannot have those.
        local = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        with tf.init_scope():
            memory = tf.zeros((self.memory_size, self.width))
            self.memory = tf.Variable(memory, **local)
            self.remembered = tf.Variable(0, dtype=tf.int32, **local)

    def call(self, teacher_outputs: Any, student_outputs: Any, training: bool | None = None) -> Any:
        teacher = _unit(self.teacher_head(_means(teacher_outputs)))
        student = _unit(self.student_head(_means(student_outputs)))
        similarities = keras.ops.matmul(student, keras.ops.transpose(teacher))
        own = 1.0 - relations.distinct(student)
        known = keras.ops.ones_like(own)
        if self.memory_size:
            # Copies, because the memory changes before gradients are taken.
            memory, filled = tf.identity(self.memory), tf.identity(self.remembered)
            past = keras.ops.matmul(student, keras.ops.transpose(memory))
            similarities = keras.ops.concatenate([similarities, past], axis=1)
            own = keras.ops.concatenate([own, keras.ops.zeros_like(past)], axis=1)
            is_filled = tf.cast(tf.range(self.memory_size) < filled, "float32")
            filled = keras.ops.zeros_like(past) + is_filled
            known = keras.ops.concatenate([known, filled], axis=1)
            if training:
                self._remember(tf.stop_gradient(teacher), memory)
        return self._contrast(similarities / self.similarity_temperature, own, known)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "temperature": self.similarity_temperature,
            "memory_size": self.memory_size,
            "objective": self.objective,
            "dataset_size": self.dataset_size,
        }

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if not self.built:
            return
        store["memory"], store["remembered"] = self.memory.numpy(), self.remembered.numpy()

    def load_own_variables(self, store: Any) -> None:
        if self.built:
            self.memory.assign(store["memory"][...])
            self.remembered.assign(store["remembered"][...])
        own = {key: store[key] for key in store.keys() if key not in ("memory", "remembered")}  # noqa: SIM118
        super().load_own_variables(own)

    def _contrast(self, g, own, known):
        """The loss of each row; `own` is 1 for its own teacher, `known` where there is any."""
        positive = keras.ops.sum(g * own, axis=1)
        if self.objective == "infonce":
            return keras.ops.logsumexp(keras.ops.where(known > 0, g, -1e30), axis=1) - positive
        others = known - own
        count = keras.ops.maximum(keras.ops.sum(others, axis=1), 1.0)
        offset = keras.ops.log(count / self.dataset_size)
        softplus = keras.ops.softplus
        negatives = softplus(g - keras.ops.expand_dims(offset, 1)) * others
        return softplus(offset - positive) + keras.ops.sum(negatives, axis=1)

    def _remember(self, teacher, memory):
        rows = tf.shape(teacher)[0]
        newest = tf.concat([teacher, memory], axis=0)[: self.memory_size]
        newest = tf.ensure_shape(newest, (self.memory_size, self.width))
        self.memory.assign(newest)
        self.remembered.assign(tf.minimum(self.remembered + rows, self.memory_size))


def _means(features):
    return features if len(features.shape) == 2 else keras.ops.mean(features, axis=(1, 2))


def _unit(embedding):
    return relations.divided(embedding, relations.norms(embedding))
