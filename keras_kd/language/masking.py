"""Masked language modeling: which tokens are hidden from a model, and its labels for them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# The class that losses on tokens leave out (`ignore_class=`).
IGNORE_CLASS = -100
# KerasHub's names of the inputs of a model of text.
IDS, MASK, POSITIONS = "token_ids", "padding_mask", "mask_positions"


def mask_tokens(
    ids: Any,
    padding_mask: Any = None,
    rate: float = 0.15,
    *,
    mask_id: int,
    vocabulary_size: int,
    seed: Any,
    special_ids: Sequence[int] = (),
    positions: int | None = None,
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> Any:
    """Hides tokens for masked language modeling, as BERT does.

    Of each row `max(1, round(rate * n))` of its `n` tokens are chosen, with the same probability
    each; padding and `special_ids` are not. Of the chosen ones a share of `mask_share` becomes
    `mask_id`, a share of `random_share` another token of the vocabulary (not a special one, and not
    `mask_id`), the others stay; all of them are to be predicted. The choice depends on `seed`
    alone: nothing is counted, and the same call gives the same (inside of XLA other draws).

    Args:
        ids: Token ids, integers `[batch, length]`: a NumPy array or a tensor, also in
            `tf.data.Dataset.map` and in a graph. Or a `tf.data.Dataset` of batches: of ids; of
            dicts with `"token_ids"` and, where there is padding, `"padding_mask"`; or of tuples
            that begin with either, whose other parts (labels, weights) are replaced.
        padding_mask: `[batch, length]`, 0 or `False` at padding; `None`: there is none. Of a
            dataset it is part of the elements.
        rate: The share of the tokens that are chosen, above 0 and at most 1.
        mask_id: The id of the mask token.
        vocabulary_size: How many ids there are.
        seed: An integer of at least 0, or two of them (integers or scalar tensors), such as
            `(seed, step)` in a `map` of one's own. Of a dataset one integer: each batch and each
            iteration gets masks of its own, which are the same in each run of the program.
        special_ids: Ids that are never chosen, such as `[CLS]` and `[SEP]`.
        positions: `None`: labels at all positions. An integer: as `MaskedLM` of KerasHub wants it,
            at most so many chosen tokens of each row with their positions.
        mask_share: The share of the chosen tokens that become `mask_id`.
        random_share: The share of the chosen tokens that become other tokens.

    Returns:
        Arrays for arrays, tensors for tensors. With `positions=None`: `(ids, labels)`, both
        `[batch, length]`; `labels` is the true id of a chosen token and else -100, for
        `ignore_class=-100` of losses. With `positions=k`: `(x, labels, weights)`: `x` is a dict of
        `token_ids`, `padding_mask` (where there is one) and `mask_positions` `[batch, k]`, in
        order; `labels` and `weights` are `[batch, k]`, 0 where a row has fewer. Of a dataset: a
        dataset of these tuples; where its inputs are dicts, `x` is the dict with other `token_ids`.

    Raises:
        ValueError: An argument is wrong, or ids, masks and `vocabulary_size` do not fit.
        tf.errors.InvalidArgumentError: In a graph or a dataset: an id is not in the vocabulary.

    Example:

    ```python
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    ids = np.array([[2, 10, 11, 12, 3, 0], [2, 13, 3, 0, 0, 0]])
    options = {"mask_id": 4, "vocabulary_size": 20, "special_ids": [2, 3], "seed": 0}
    inputs, labels = kd.language.mask_tokens(ids, ids != 0, **options)
    assert np.array_equal(np.where(labels == -100, 0, 1).sum(axis=1), [1, 1])

    data = tf.data.Dataset.from_tensors({"token_ids": ids, "padding_mask": ids != 0})
    for x, y, weights in kd.language.mask_tokens(data, positions=2, **options):
        assert x["mask_positions"].shape == y.shape == weights.shape == (2, 2)
    ```

    Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
    """
    rule = _Rule(rate, mask_id, vocabulary_size, special_ids, positions, (mask_share, random_share))
    if isinstance(ids, tf.data.Dataset):
        if padding_mask is not None:
            raise invalid(
                "padding_mask",
                "None: of a dataset it is part of its elements, {'token_ids', 'padding_mask'}",
                validation.briefly(padding_mask),
            )
        return _masked_dataset(ids, rule, validation.integer("seed", seed, 0))
    numbers = _seeds(seed)
    is_array = not (tf.is_tensor(ids) or tf.is_tensor(padding_mask))
    mask = None if padding_mask is None else _matrix("padding_mask", padding_mask)
    given = _ids(ids, mask)
    if is_array:
        _check_range(given.numpy(), vocabulary_size)
    found = rule(given, mask, numbers)
    if positions is not None:
        x, *rest = found
        found = ({IDS: x[IDS], **({} if mask is None else {MASK: padding_mask}), **x}, *rest)
    if not is_array:
        return found
    return tf.nest.map_structure(lambda x: x.numpy() if tf.is_tensor(x) else np.asarray(x), found)


class _Rule:
    """The masking of a batch, in TensorFlow operations."""

    def __init__(
        self,
        rate: float,
        mask_id: int,
        vocabulary_size: int,
        special_ids: Sequence[int],
        positions: int | None,
        shares: tuple[float, float],
    ) -> None:
        self._rate = validation.fraction("rate", validation.positive("rate", rate))
        self.size = validation.integer("vocabulary_size", vocabulary_size, 1)
        self._mask_id = _of_vocabulary("mask_id", mask_id, self.size)
        self._special = [_of_vocabulary("special_ids", x, self.size) for x in _list(special_ids)]
        self._count = validation.integer("positions", positions, 1, optional=True)
        self._share = validation.fraction("mask_share", shares[0])
        self._changed = self._share + validation.fraction("random_share", shares[1])
        if self._changed > 1 + 1e-9:
            raise invalid(
                "random_share", f"at most {1 - self._share:g}, what mask_share leaves", shares[1]
            )
        others = np.setdiff1d(np.arange(self.size), [*self._special, self._mask_id])
        if not len(others):
            raise ValueError(
                f"All {self.size} ids of the vocabulary are special: none is left to be chosen."
            )
        self._others = others.astype("int64")

    def __call__(self, ids: Any, mask: Any, seed: Any) -> Any:
        # Unsigned and small integers cannot hold the label of no token.
        ids = ids if ids.dtype in (tf.int32, tf.int64) else tf.cast(ids, tf.int32)
        may = tf.ones_like(ids, tf.bool) if mask is None else tf.cast(mask, tf.bool)
        for each in self._special:
            may &= ids != each
        draws = [self._uniform(ids, seed, number) for number in range(3)]
        chosen = self._choose(may, draws[0])
        kind = draws[1]
        places = tf.cast(draws[2] * len(self._others), tf.int32)
        other = tf.gather(tf.constant(self._others), tf.minimum(places, len(self._others) - 1))
        new = tf.where(kind < self._changed, tf.cast(other, ids.dtype), ids)
        new = tf.where(kind < self._share, tf.cast(self._mask_id, ids.dtype), new)
        new = tf.where(chosen, new, ids)
        if self._count is None:
            return new, tf.where(chosen, ids, tf.cast(IGNORE_CLASS, ids.dtype))
        return self._at_positions(new, ids, chosen)

    @staticmethod
    def _uniform(ids: Any, seed: Any, number: int) -> Any:
        # The same numbers on a CPU and a GPU; XLA's are others.
        seed = tf.random.fold_in(seed, number, alg="philox")
        return tf.random.stateless_uniform(tf.shape(ids), seed, alg="philox")

    def _choose(self, may: Any, scores: Any) -> Any:
        """Bool `[batch, length]`: as many of each row as the rate says, by random scores."""
        number = tf.reduce_sum(tf.cast(may, tf.float32), axis=-1, keepdims=True)
        wanted = tf.minimum(tf.maximum(tf.round(self._rate * number), 1.0), number)
        if self._count is not None:
            wanted = tf.minimum(wanted, float(self._count))
        order = tf.argsort(tf.where(may, scores, 2.0), axis=-1, stable=True)
        rank = tf.argsort(order, axis=-1, stable=True)
        return tf.cast(rank, tf.float32) < wanted

    def _at_positions(self, new: Any, ids: Any, chosen: Any) -> Any:
        length = tf.shape(ids)[1]
        # The chosen positions first, in order; rows may be shorter than the number of positions.
        order = tf.argsort(tf.cast(~chosen, tf.int32), axis=-1, stable=True)
        missing = tf.maximum(self._count - length, 0)
        order = tf.pad(order[:, : self._count], [[0, 0], [0, missing]])
        number = tf.reduce_sum(tf.cast(chosen, tf.int32), axis=-1, keepdims=True)
        counts = tf.range(self._count)[None] < number
        places = tf.ensure_shape(tf.where(counts, order, 0), [ids.shape[0], self._count])
        labels = tf.where(counts, tf.gather(ids, places, batch_dims=1), tf.zeros_like(ids[:, :1]))
        x = {IDS: new, POSITIONS: places}
        return x, labels, tf.cast(counts, tf.float32)


def _list(value: Any) -> list:
    listed = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(listed, (list, tuple)):
        raise invalid("special_ids", "a list of ids", repr(value))
    return list(listed)


def _of_vocabulary(name: str, value: Any, size: int) -> int:
    if validation.integer(name, value, 0) >= size:
        raise invalid(name, f"an id below vocabulary_size, {size}", value)
    return int(value)


def _seeds(seed: Any) -> Any:
    """A seed of TensorFlow's stateless operations, `[2]`."""
    pair = seed if isinstance(seed, (tuple, list)) else (seed, 0)
    if tf.is_tensor(seed) and seed.shape == (2,):
        pair = (seed[0], seed[1])
    if len(pair) != 2:
        raise invalid("seed", "an integer, or two of them", repr(seed))
    numbers = [x if tf.is_tensor(x) else validation.integer("seed", x, 0) for x in pair]
    return tf.stack([tf.cast(x, tf.int64) for x in numbers])


def _matrix(name: str, value: Any) -> tf.Tensor:
    found = tf.convert_to_tensor(value)
    if found.shape.rank != 2:
        raise invalid(name, "an array or a tensor [batch, length]", f"shape {found.shape}")
    return found


def _ids(value: Any, mask: Any) -> tf.Tensor:
    found = _matrix("ids", value)
    if not found.dtype.is_integer:
        raise invalid("ids", "integers, the ids of tokens", f"{found.dtype.name}")
    if mask is not None and not mask.shape.is_compatible_with(found.shape):
        raise invalid(
            "padding_mask", f"the shape of the ids, {tuple(found.shape)}", f"shape {mask.shape}"
        )
    return found


def _check_range(ids: np.ndarray, size: int) -> None:
    if ids.size and not 0 <= ids.min() <= ids.max() < size:
        raise ValueError(
            f"`ids` range from {ids.min()} to {ids.max()}; the vocabulary has the ids 0 to "
            f"{size - 1}. Is `vocabulary_size` that of the tokenizer?"
        )


def _masked_dataset(dataset: tf.data.Dataset, rule: _Rule, seed: int) -> tf.data.Dataset:
    read = _reader(dataset.element_spec)

    def masked(element: Any, numbers: Any) -> Any:
        x, ids, mask = read(element)
        what, size = "An id is not in the vocabulary.", tf.cast(rule.size, tf.int64)
        numbered = tf.cast(ids, tf.int64)
        checks = [
            tf.debugging.assert_less(numbered, size, what),
            tf.debugging.assert_non_negative(numbered, what),
        ]
        with tf.control_dependencies(checks):
            found, *rest = rule(tf.identity(ids), mask, numbers)
        new = found if isinstance(found, dict) else {IDS: found}
        if not isinstance(x, dict):
            return (found, *rest)
        return ({**x, **new}, *rest)

    numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    pairs = tf.data.Dataset.zip((dataset, numbers))
    return pairs.map(masked, num_parallel_calls=tf.data.AUTOTUNE)


def _reader(spec: Any) -> Callable[[Any], tuple]:
    """A function from an element to `(inputs, ids, mask or None)`; raises if there are no ids."""
    is_tuple = isinstance(spec, tuple)
    x = spec[0] if is_tuple and spec else spec
    ids = x.get(IDS) if isinstance(x, dict) else x
    if not isinstance(ids, tf.TensorSpec) or ids.shape.rank != 2 or not ids.dtype.is_integer:
        raise invalid(
            "ids",
            "a dataset of batches of ids [batch, length], integers, or of dicts with 'token_ids'",
            f"a dataset of {spec}",
        )

    def read(element: Any) -> tuple:
        given = element[0] if is_tuple else element
        if not isinstance(given, dict):
            return given, given, None
        mask = given.get(MASK)
        return given, _ids(given[IDS], mask), mask

    return read
