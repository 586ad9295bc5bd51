"""`OnPolicy`: a share of the batches is sampled by student or teacher while `fit` runs."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.language import samplers
from keras_kd.training.sequences import SampledBatch


class OnPolicy(keras.callbacks.Callback):
    """Lets the student learn on sequences that it writes itself, or on the teacher's.

    In a share of the steps the completions of a batch are replaced before anything else happens:
    the prompts stay, a model samples what follows them with the weights of that moment, and both
    models run on the new sequences. So the student meets its own mistakes, which data never shows
    (generalized knowledge distillation). `TokenKD`'s `divergence` is GKD's: `"forward_kl"`,
    `"reverse_kl"` or `"jsd"`.

    Where the student writes, its tokens are no labels: the hard loss, `token_accuracy` and
    `perplexity` leave those steps out. Where the teacher writes, they are: `by="teacher"` with
    `generate=1.0` is sequence-level distillation, whose labels are the teacher's texts (to write
    them once and keep them, see `keras_kd.language.label`).

    The data: inputs as a dict of KerasHub, with one more entry that is 1 where a token belongs to
    the prompt, at the beginning of the row; labels, the next tokens. Sequences are as long as those
    of the batch. What is random depends on `seed` and the number of the step alone, so a `fit` that
    is killed and resumed ends as one that was not.

    Args:
        generate: The share of the steps, from 0 to 1.
        by: `"student"` or `"teacher"`: who writes. It must be a `CausalLM` or `Seq2SeqLM` of
            KerasHub, or have `generate_step` as they do.
        prompts: Name of the input that marks prompts.
        sampler: `"random"`, `"greedy"`, `"top_k"`, `"top_p"`, or a sampler of KerasHub.
        temperature: Of a sampler that is named; of the others it is their own.
        end_id: Id of the token, or ids, at which a completion ends; what follows does not count.
            `None`: completions go on to the end of the row.
        seed: An integer.

    Raises:
        ValueError: An argument is wrong; or, when `fit` begins: the distiller has no `TokenKD` with
            an `ignore_class`, who writes cannot generate, there are several replicas, or gradients
            are accumulated.

    Example:

    ```python
    import keras_kd as kd

    on_policy = kd.language.OnPolicy(generate=0.5, sampler="top_p", temperature=0.9, end_id=1)
    # distiller.fit(data, callbacks=[on_policy]), data of ({"token_ids": ..., "padding_mask": ...,
    # "prompt_mask": ...}, next_tokens)
    ```

    Reference: Agarwal et al., "On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes", https://arxiv.org/abs/2306.13649
    """

    def __init__(
        self,
        generate: float = 0.5,
        by: str = "student",
        prompts: str = "prompt_mask",
        sampler: Any = "random",
        temperature: float | None = None,
        end_id: int | Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(generate, (int, float)) or not 0 <= generate <= 1:
            raise invalid("generate", "a number from 0 to 1", repr(generate))
        self.generate = float(generate)
        self.by = validation.one_of("by", by, ("student", "teacher"))
        self.prompts = validation.text("prompts", prompts, "the name of an input")
        self.sampler = samplers.made(sampler, temperature)
        self.end_ids = None if end_id is None else _ids(end_id)
        self.seed = validation.integer("seed", seed, 0)
        self._writer: Any = None
        self._ignored = 0

    @contextlib.contextmanager
    def during_fit(self, distiller: Any) -> Iterator[None]:
        """While it is open the distiller's steps ask it for sequences; called by `fit`."""
        self._writer = self._checked_writer(distiller)
        distiller.set_sequences(self)
        try:
            yield
        finally:
            distiller.set_sequences(None)

    def _checked_writer(self, distiller: Any) -> Any:
        losses = [each for each in distiller.distillation_losses if hasattr(each, "ignore_class")]
        if not distiller.leaves_out_logits or losses[0].ignore_class is None:
            raise ValueError(
                "OnPolicy needs a keras_kd.losses.TokenKD with an `ignore_class`, by which prompts "
                "and what follows the end of a completion are left out. Received: "
                f"{[each.name for each in distiller.distillation_losses]}"
            )
        self._ignored = losses[0].ignore_class
        replicas = distiller.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                f"OnPolicy samples in one process, and the strategy has {replicas} replicas. Let "
                "the teacher write beforehand (keras_kd.language.label), or train in one replica."
            )
        if getattr(distiller.optimizer, "gradient_accumulation_steps", None):
            raise ValueError(
                "OnPolicy draws by the number of the optimizer's step, which stays the same while "
                "gradients are accumulated. Leave gradient_accumulation_steps out."
            )
        model = distiller.student if self.by == "student" else distiller.teacher
        model = getattr(model, "model", model)  # of a KerasTeacher
        if not callable(getattr(model, "generate_step", None)):
            raise ValueError(
                f"The {self.by} cannot write sequences: a {type(model).__name__} has no "
                "`generate_step`. Expected a CausalLM or Seq2SeqLM of KerasHub."
            )
        return model

    def replaced(self, x: Any, y: Any, sample_weight: Any, step: Any) -> SampledBatch:
        """The batch, or in its share of the steps one with new completions.

        Args:
            x: Inputs, a dict.
            y: The next tokens, integers `[batch, time]`, or `None`.
            sample_weight: Sample weights, or `None`.
            step: The number of the step, an integer scalar.
        """
        prefix, prompt = self._check(x, y)
        step = tf.cast(step, tf.int32)
        labels = y if len(y.shape) == 2 else tf.squeeze(y, -1)
        given = {name: x[name] for name in (f"{prefix}token_ids", f"{prefix}padding_mask")}
        drawn = tf.random.stateless_uniform((), [self.seed, step])
        is_sampled = drawn < self.generate

        def sampled() -> tuple:
            made = self._written(x, prefix, prompt, step)
            ids, valid = made[f"{prefix}token_ids"], made[f"{prefix}padding_mask"]
            ids = tf.cast(ids, given[f"{prefix}token_ids"].dtype)
            valid = tf.cast(valid, tf.bool)
            written = valid & ~prompt
            # The label of a position is the token after it.
            following = tf.roll(ids, -1, axis=1)
            counts = tf.concat([written[:, 1:], tf.zeros_like(written[:, :1])], axis=1)
            next_ids = tf.where(counts, tf.cast(following, labels.dtype), self._ignored)
            mask = tf.cast(valid, given[f"{prefix}padding_mask"].dtype)
            return ids, mask, next_ids

        def as_given() -> tuple:
            return *given.values(), labels

        ids, mask, labels = _cond(is_sampled, sampled, as_given)
        for value, like in zip((ids, mask), given.values(), strict=True):
            value.set_shape(like.shape)
        x = {**x, f"{prefix}token_ids": ids, f"{prefix}padding_mask": mask}
        own = tf.cast(is_sampled, tf.float32) if self.by == "student" else tf.zeros(())
        return SampledBatch(x, labels, sample_weight, 1.0 - own)

    def _check(self, x: Any, y: Any) -> tuple[str, tf.Tensor]:
        """The prefix of the names of the written tokens, and where prompts are."""
        names = sorted(x) if isinstance(x, dict) else "without names"
        prefix = "decoder_" if isinstance(x, dict) and "decoder_token_ids" in x else ""
        needed = [f"{prefix}token_ids", f"{prefix}padding_mask", self.prompts]
        missing = [name for name in needed if not isinstance(x, dict) or name not in x]
        if missing:
            raise ValueError(
                f"OnPolicy reads the inputs {needed}, and the batch has {names}. Missing: "
                f"{missing}. `prompts` names the input that is 1 where a token is of the prompt."
            )
        if y is None:
            raise ValueError("OnPolicy needs labels, the next tokens of each position.")
        prompt, ids = tf.cast(x[self.prompts], tf.bool), x[needed[0]]
        if not prompt.shape.is_compatible_with(ids.shape):
            raise ValueError(
                f"{self.prompts!r} has shape {tuple(prompt.shape)}, the tokens {tuple(ids.shape)}. "
                "Expected one value for each token."
            )
        return prefix, prompt

    def _written(self, x: dict, prefix: str, prompt: tf.Tensor, step: tf.Tensor) -> dict:
        """What `generate_step` of KerasHub makes of the prompts."""
        model = self._writer
        given = {
            name: x[name]
            for name in ("encoder_token_ids", "encoder_padding_mask", "encoder_features")
            if name in x
        }
        ids = tf.where(prompt, x[f"{prefix}token_ids"], 0)
        given.update({f"{prefix}token_ids": ids, f"{prefix}padding_mask": prompt})
        seeds = getattr(self.sampler, "seed_generator", None)
        if seeds is not None:
            state = tf.stack(
                [tf.cast(self.seed, tf.int64) * 1_000_003 + tf.cast(step, tf.int64), 0]
            )
            seeds.state.assign(tf.cast(tf.math.floormod(state, 2**31), seeds.state.dtype))
        with samplers.used(model, self.sampler):
            made = model.generate_step(given, stop_token_ids=self.end_ids)
        return tf.nest.map_structure(tf.stop_gradient, made)


def _ids(value: Any) -> list[int]:
    ids = [value] if validation.is_integer(value) else list(np.ravel(value))
    if not ids or not all(validation.is_integer(each) and each >= 0 for each in ids):
        raise invalid("end_id", "the id of a token, or several", repr(value))
    return [int(each) for each in ids]


def _cond(predicate: tf.Tensor, yes: Any, no: Any) -> Any:
    if tf.executing_eagerly():
        return yes() if predicate else no()
    return tf.cond(predicate, yes, no)
