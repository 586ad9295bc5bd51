"""Packing: documents of any length in rows of one length, with labels that stay inside of them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.language.masking import IDS, IGNORE_CLASS, MASK


def pack(
    sequences: Any,
    length: int,
    *,
    split: bool = True,
    end_id: int | None = None,
    pad_id: int = 0,
    ignore_class: int | None = IGNORE_CLASS,
    segments: bool = False,
    drop_remainder: bool = False,
) -> Any:
    """Packs documents of token ids into rows of one length, for training by the next token.

    Documents lie one behind the other in the order in which they come. The label of a token is the
    next token of its document, also where that one lies in the next row; the last token of a
    document has none, and so no label crosses from one document into another. A document of `n`
    tokens has `n - 1` labels, wherever it is cut.

    What a model sees is another matter: causal attention of KerasHub's models knows padding, and no
    documents: a document sees those before it in its row, at positions that count from the row's
    start. Many language models were trained so. Where it must not be, use a model of your own that
    takes `segments=True`: `attention_mask` makes its mask, and `positions` begin at 0 in each
    document.

    Args:
        sequences: Lists or arrays of token ids, one for each document; or a `tf.data.Dataset` of
            them, integers `[tokens]`. Empty documents are left out.
        length: Tokens of a row.
        split: Whether a document is cut where a row ends, and goes on in the next one (without
            sight of its beginning). `False`: a document that does not fit begins a new row, and the
            one before it is padded; none may be longer than a row.
        end_id: A token to add to each document, which is then the label of its last one.
        pad_id: The id at padding, which is only in the last row, or with `split=False` in any.
        ignore_class: The label where there is none. `None`: for losses without `ignore_class`, such
            as those that KerasHub compiles by default: the label is `pad_id` there, and sample
            weights are 0.
        segments: Whether the inputs have `segment_ids` and `positions` too.
        drop_remainder: Whether a last row that is not full is left out.

    Returns:
        `(x, y)`, or `(x, y, weights)` with `ignore_class=None`, as arrays `[rows, length]`; of a
        dataset, a dataset of such rows `[length]`: batch it. `x` is a dict: `token_ids`;
        `padding_mask` (1 at tokens, 0 at padding); with `segments` also `segment_ids` (1, 2, ... by
        row, 0 at padding) and `positions` (from 0 in each document of a row). All are int32,
        weights float32.

    Raises:
        ValueError: An argument is wrong; a document is no list of integers, or, with `split=False`,
            is longer than a row.
        tf.errors.InvalidArgumentError: While a dataset is read: a document is longer than a row.

    Example:

    ```python
    import keras_kd as kd

    x, y = kd.language.pack([[1, 2, 3], [4, 5], [6, 7, 8, 9]], length=4, segments=True)
    assert x["token_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 0, 0]]
    assert y.tolist() == [[2, 3, -100, 5], [-100, 7, 8, 9], [-100, -100, -100, -100]]
    assert x["segment_ids"].tolist() == [[1, 1, 1, 2], [1, 2, 2, 2], [1, 0, 0, 0]]
    assert x["positions"].tolist() == [[0, 1, 2, 0], [0, 0, 1, 2], [0, 0, 0, 0]]
    ```
    """
    packer = _Packer(
        length=validation.integer("length", length, 2),
        split=validation.boolean("split", split),
        end=validation.integer("end_id", end_id, 0, optional=True),
        pad=validation.integer("pad_id", pad_id, 0),
        ignore=_class(ignore_class),
        segments=validation.boolean("segments", segments),
        drop=validation.boolean("drop_remainder", drop_remainder),
    )
    if isinstance(sequences, tf.data.Dataset):
        _check_spec(sequences)
        return packer.rows_of(sequences)
    documents = _documents(sequences, packer)
    spec = tf.TensorSpec([None], tf.int32)
    rows = packer.rows_of(tf.data.Dataset.from_generator(lambda: documents, output_signature=spec))
    found = list(rows.as_numpy_iterator())
    if not found:  # no row is full
        empty = tf.nest.map_structure(lambda x: np.zeros((0, *x.shape)), rows.element_spec)
        return tf.nest.map_structure(
            lambda x, spec: x.astype(spec.dtype.as_numpy_dtype), empty, rows.element_spec
        )
    return tf.nest.map_structure(lambda *each: np.stack(each), *found)


def attention_mask(segment_ids: Any, causal: bool = True) -> Any:
    """Which positions of packed rows may see which, for `attention_mask` of Keras' attention.

    A position sees those of its own document, and, where `causal`, not those behind it. Padding
    sees padding: attention to nothing would be NaN in some implementations, and nothing reads it.

    Args:
        segment_ids: `[batch, length]`, of `pack(segments=True)`; an array or a tensor.
        causal: Whether positions behind a token are hidden from it.

    Returns:
        A boolean tensor `[batch, length, length]`: `[i, j]` says whether `i` sees `j`.

    Raises:
        ValueError: `segment_ids` has another rank.

    Example:

    ```python
    import keras_kd as kd

    mask = kd.language.attention_mask([[1, 1, 2]])
    assert mask.numpy().tolist() == [
        [[True, False, False], [True, True, False], [False, False, True]]
    ]
    ```
    """
    ids = tf.convert_to_tensor(segment_ids)
    if ids.shape.rank != 2:
        raise invalid("segment_ids", "[batch, length]", f"shape {ids.shape}")
    validation.boolean("causal", causal)
    same = ids[:, :, None] == ids[:, None, :]
    if not causal:
        return same
    places = tf.range(tf.shape(ids)[1])
    return same & (places[:, None] >= places[None, :])


def _class(value: Any) -> int | None:
    if value is not None and not (validation.is_integer(value) and value < 0):
        raise invalid(
            "ignore_class", "a negative integer, which is the id of no token, or None", repr(value)
        )
    return value


def _check_spec(dataset: tf.data.Dataset) -> None:
    spec = dataset.element_spec
    is_ids = isinstance(spec, tf.TensorSpec) and spec.shape.rank == 1 and spec.dtype.is_integer
    if not is_ids:
        raise invalid(
            "sequences",
            "a dataset of documents, integers [tokens] each: unbatch it, and take out padding in "
            "its map (tf.boolean_mask)",
            f"a dataset of {spec}",
        )


def _documents(sequences: Any, packer: "_Packer") -> list[np.ndarray]:
    if isinstance(sequences, (str, bytes, dict)) or not isinstance(sequences, Iterable):
        raise invalid("sequences", "a list of lists of token ids", repr(sequences))
    documents = []
    for number, each in enumerate(sequences):
        ids = np.asarray(each)
        ids = ids.astype("int32") if ids.shape == (0,) else ids
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise invalid(
                f"sequences[{number}]",
                "a list of token ids, integers [tokens]",
                f"shape {ids.shape}, {ids.dtype}",
            )
        if not packer.split and len(ids) + (packer.end is not None) > packer.length:
            raise ValueError(
                f"Document {number} has {len(ids)} tokens{' and an end' * (packer.end is not None)}"
                f", and a row {packer.length}. With split=True it is cut; or pass a larger length."
            )
        documents.append(ids.astype("int32"))
    if not documents:
        raise invalid("sequences", "at least one document", "none")
    return documents


class _Packer:
    """The packing of a dataset of documents."""

    def __init__(
        self,
        length: int,
        split: bool,
        end: int | None,
        pad: int,
        ignore: int | None,
        segments: bool,
        drop: bool,
    ) -> None:
        self.length, self.split, self.end, self._pad = length, split, end, pad
        self._ignore, self._segments, self._drop = ignore, segments, drop

    def rows_of(self, documents: tf.data.Dataset) -> tf.data.Dataset:
        # Tokens that wait for their row: ids, labels (-1: none), and 1 where a document begins.
        waiting = tf.zeros([0, 3], tf.int32)
        marked = documents.map(lambda ids: (tf.cast(ids, tf.int32), False))
        end = tf.data.Dataset.from_tensors((tf.zeros([0], tf.int32), True))
        marked = marked.concatenate(end)
        filled = marked.scan(waiting, self._add)
        return filled.unbatch().map(self._row)

    def _add(self, waiting: Any, element: Any) -> tuple[Any, Any]:
        """The tokens that wait after a document, and the rows `[rows, length, 3]` it filled."""
        ids, is_end = element
        tokens = tf.concat([waiting, self._tokens(ids)], axis=0)
        length = self.length
        if self.split:
            whole = tf.shape(tokens)[0] // length * length
        else:
            fits = tf.debugging.assert_less_equal(
                tf.shape(tokens)[0] - tf.shape(waiting)[0],
                length,
                f"A document is longer than a row of {length} tokens. Pass split=True, or a larger "
                "length.",
            )
            with tf.control_dependencies([fits]):
                is_full = tf.shape(tokens)[0] > length
            whole = tf.where(is_full, tf.shape(waiting)[0], 0)
        if not self._drop:
            whole = tf.where(is_end, tf.shape(tokens)[0], whole)
        elif not self.split:
            whole = tf.where(is_end & (tf.shape(tokens)[0] == length), length, whole)
        full, rest = tokens[:whole], tokens[whole:]
        rows = -(-tf.shape(full)[0] // length)
        missing = rows * length - tf.shape(full)[0]
        padding = tf.tile([[-1, -1, 0]], [missing, 1])
        return rest, tf.reshape(tf.concat([full, padding], axis=0), [rows, length, 3])

    def _tokens(self, ids: Any) -> Any:
        if self.end is not None:
            # An empty document, and the mark behind the last one, get no end.
            ids = tf.cond(
                tf.size(ids) > 0, lambda: tf.concat([ids, [self.end]], axis=0), lambda: ids
            )
        labels = tf.concat([ids[1:], [-1]], axis=0)[: tf.size(ids)]
        starts = tf.cast(tf.equal(tf.range(tf.size(ids)), 0), tf.int32)
        return tf.stack([ids, labels, starts], axis=1)

    def _row(self, tokens: Any) -> tuple:
        tokens = tf.ensure_shape(tokens, [self.length, 3])
        ids, labels, starts = tokens[:, 0], tokens[:, 1], tokens[:, 2]
        mask = tf.cast(ids >= 0, tf.int32)
        x = {IDS: tf.where(ids >= 0, ids, self._pad), MASK: mask}
        if self._segments:
            places = tf.range(self.length)
            starts = tf.where(places == 0, 1, starts)  # of a document that was cut, too
            numbers = tf.cumsum(starts)
            begins = tf.boolean_mask(places, starts > 0)
            x["segment_ids"] = numbers * mask
            x["positions"] = (places - tf.gather(begins, numbers - 1)) * mask
        has_label = labels >= 0
        if self._ignore is not None:
            return x, tf.where(has_label, labels, self._ignore)
        return x, tf.where(has_label, labels, self._pad), tf.cast(has_label, tf.float32)
