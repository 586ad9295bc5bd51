"""`VocabularyMap`: the words that a student knows, by the ids of its teacher."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, files, validation
from keras_kd._utils.validation import invalid
from keras_kd.students import tokenizers

_IDS = "token_ids"


class VocabularyMap:
    """The ids of a teacher's vocabulary that a student keeps, and their new numbers.

    The words keep their order: the student's id of a word is the number of kept words before it. It
    does not change. `VocabularyMap.of` makes one of the data in use.

    Args:
        kept: The teacher's ids that stay, each once.
        size: The teacher's vocabulary size.
        unknown_id: The teacher's id of the word that stands for all others; `None`: other words
            are an error.
        padding_id: The id that fills up sequences, whose number must not change; `None`: there is
            none.

    Attributes:
        kept: The ids, ascending; an array `[words]` that cannot be written to.
        size: The teacher's vocabulary size.
        unknown_id: As given.
        padding_id: As given.

    Raises:
        ValueError: An id is no id of the teacher's, `unknown_id` or `padding_id` is not kept, or
            padding would get another number: the message names both.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    words = kd.students.VocabularyMap([0, 1, 7, 4], size=9, unknown_id=1)
    assert words.kept.tolist() == [0, 1, 4, 7]
    assert words.encode(np.array([7, 4, 8, 0])).tolist() == [3, 2, 1, 0]
    assert words.decode(np.array([3, 2, 1, 0])).tolist() == [7, 4, 1, 0]
    ```
    """

    def __init__(
        self, kept: Any, size: int, unknown_id: int | None = None, padding_id: int | None = 0
    ) -> None:
        self.size = validation.integer("size", size, 1)
        ids = _checked_ids("kept", kept, self.size)
        if len(np.unique(ids)) != len(ids) or not len(ids):
            raise invalid("kept", "different ids, one at least", validation.briefly(kept))
        self.kept = np.sort(ids)
        self.kept.setflags(write=False)
        self.unknown_id = validation.integer("unknown_id", unknown_id, 0, optional=True)
        self.padding_id = validation.integer("padding_id", padding_id, 0, optional=True)
        for name in ("unknown_id", "padding_id"):
            number = getattr(self, name)
            if number is not None and number not in self.kept:
                raise ValueError(
                    f"`{name}` is {number}, but the {len(self.kept)} ids that stay of {self.size} "
                    f"do not contain it. Add it to them, or pass {name}=None."
                )
        self._new = np.full(self.size, -1, "int64")
        self._new[self.kept] = np.arange(len(self.kept))
        self._check_padding()

    def _check_padding(self):
        if self.padding_id is None or self._new[self.padding_id] == self.padding_id:
            return
        missing = sorted(set(range(self.padding_id)) - set(self.kept.tolist()))
        raise ValueError(
            f"Padding has the id {self.padding_id} in the teacher's vocabulary, and would have "
            f"{int(self._new[self.padding_id])} in the student's, since words before it are left "
            f"out: {missing[:10]}. Keep them (keep={missing[:10]}), or pass padding_id=None if "
            "nothing reads that id."
        )

    @classmethod
    def of(
        cls,
        data: Any,
        size: int,
        keep: Any = (),
        unknown_id: int | None = None,
        padding_id: int | None = 0,
        min_count: int = 1,
        labels: bool = False,
        tokenizer: Any = None,
    ) -> "VocabularyMap":
        """The map of the words that data uses.

        Args:
            data: Ids of the teacher's tokenizer: an integer array, a dict whose entries named
                `...token_ids` hold them, a tuple `(inputs, labels, ...)`, a batched
                `tf.data.Dataset` of such, or a list of several.
            size: The teacher's vocabulary size.
            keep: Other ids to keep, such as those of special words.
            unknown_id: See `VocabularyMap`; it is kept.
            padding_id: See `VocabularyMap`; it is kept.
            min_count: How often data has to use a word.
            labels: Whether labels hold ids too, as those of a language model do.
            tokenizer: Path of the teacher's `tokenizer.json`: what it needs stays too (special
                words, the parts of BPE's words), so that `trim_tokenizer` can write the student's.

        Raises:
            ValueError: Data has ids that the teacher does not, or other ids than `padding_id` where
                a `...padding_mask` is 0.
        """
        size = validation.integer("size", size, 1)
        min_count = validation.integer("min_count", min_count, 1)
        validation.boolean("labels", labels)
        counts = np.zeros(size, "int64")
        for ids in _ids_in(data, labels, padding_id):
            counts += np.bincount(_checked_ids("data", ids, size), minlength=size)
        if not counts.any():
            raise invalid("data", "data with ids", "none")
        special = [each for each in (unknown_id, padding_id) if each is not None]
        used = np.flatnonzero(counts >= min_count)
        others = [_checked_ids("keep", keep, size), _checked_ids("unknown_id", special, size)]
        kept = np.unique(np.concatenate([used, *others]))
        if tokenizer is not None:
            kept = tokenizers.needed_ids(tokenizers.read_tokenizer("tokenizer", tokenizer), kept)
        return cls(kept, size, unknown_id, padding_id)

    def __len__(self) -> int:
        return len(self.kept)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, VocabularyMap) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((self.size, self.kept.tobytes()))

    def __repr__(self) -> str:
        return f"VocabularyMap({len(self)} of {self.size} words)"

    # Ids.

    def encode(self, ids: Any, ignore: int = -100) -> Any:
        """The student's ids of the teacher's.

        Args:
            ids: Integers of any shape: an array, or a tensor, inside of `tf.data` and graphs too.
            ignore: A label that counts nowhere, and stays.

        Returns:
            What `ids` is, of the same shape and type. Words that are left out become
            `unknown_id`'s new number.

        Raises:
            ValueError: An id is none of the teacher's, or left out while there is no `unknown_id`;
                of tensors in a graph `tf.errors.InvalidArgumentError`.
        """
        if tf.is_tensor(ids):
            return self._encode_tensor(ids, ignore)
        ids = np.asarray(ids)
        counts = ids != ignore
        new = self._filled[_checked_ids("ids", ids[counts], self.size)]
        if (new < 0).any():
            lost = np.unique(ids[counts][new < 0])
            raise ValueError(self._lost(f"{lost[:10].tolist()}, {len(lost)} in all"))
        found = ids.copy()
        found[counts] = new
        return found

    def _encode_tensor(self, ids, ignore):
        counts = ids != ignore
        inside = tf.where(counts, ids, tf.cast(self.kept[0], ids.dtype))
        is_id = (inside >= 0) & (inside < self.size)
        new = tf.gather(tf.constant(self._filled, ids.dtype), tf.where(is_id, inside, 0))
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(is_id),
                [
                    f"ids must be from 0 to {self.size - 1}, the teacher's vocabulary. Received:",
                    ids,
                ],
            ),
            tf.debugging.Assert(tf.reduce_all(new >= 0), [self._lost("some of"), ids]),
        ]
        with tf.control_dependencies([each for each in checks if each is not None]):
            return tf.where(counts, new, ids)

    @property
    def _filled(self):
        if self.unknown_id is None:
            return self._new
        return np.where(self._new < 0, self._new[self.unknown_id], self._new)

    def _lost(self, which):
        return (
            f"The student's {len(self)} words lack the teacher's ids {which}. Make the map of all "
            "data in use, or give it an unknown_id, which then stands for them."
        )

    def decode(self, ids: Any) -> Any:
        """The teacher's ids of the student's; labels below 0 stay.

        Args:
            ids: See `encode`.
        """
        if tf.is_tensor(ids):
            old = tf.gather(tf.constant(self.kept, ids.dtype), tf.maximum(ids, 0))
            return tf.where(ids < 0, ids, old)
        ids = np.asarray(ids)
        if ids.size and ids.max() >= len(self):
            expected = f"ids of the student, from 0 to {len(self) - 1}"
            raise invalid("ids", expected, f"up to {int(ids.max())}")
        return np.where(ids < 0, ids, self.kept[np.maximum(ids, 0)]).astype(ids.dtype)

    # Batches and logits.

    def encode_inputs(self, inputs: Any) -> Any:
        """Inputs with the student's ids: an array of ids, or a dict with `...token_ids`.

        Args:
            inputs: Those of the teacher; other entries stay.
        """
        return _in_inputs(self.encode, inputs)

    @property
    def teacher_preprocess(self) -> "TeacherIds":
        """What `Distiller(teacher_preprocess=...)` takes where data has the student's ids."""
        return TeacherIds(self)

    def columns(self, logits: Any) -> Any:
        """A teacher's logits of the words that the student knows.

        Softmax of them is the teacher's distribution among those words.

        Args:
            logits: `[..., size]`, an array or a tensor, symbolic ones too.

        Returns:
            `[..., words]`.
        """
        if logits.shape[-1] != self.size:
            raise ValueError(
                f"`logits` have {logits.shape[-1]} columns, but the teacher's vocabulary has "
                f"{self.size} words. The student's has {len(self)}."
            )
        if isinstance(logits, np.ndarray):
            return logits[..., self.kept]
        return keras.ops.take(logits, self.kept, axis=-1)

    # Tokenizers and files.

    def trim_tokenizer(self, source: Any, path: Any) -> None:
        """Writes the student's tokenizer: of `tokenizer.json` or of a list of words, `vocab.txt`.

        WordPiece, WordLevel and BPE give the student's ids of every text that the teacher's
        tokenizer writes with words that stay; others become shorter pieces, or the unknown word.

        Args:
            source: Path of the teacher's file.
            path: Of the new file.

        Raises:
            ValueError: The file is another model's, special words or parts of words are missing, or
                its type (Unigram) cannot be trimmed exactly.
        """
        tokenizers.write_trimmed(source, path, self.kept)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "kept": self.kept.tolist(),
            "size": self.size,
            "unknown_id": self.unknown_id,
            "padding_id": self.padding_id,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VocabularyMap":
        """A map with these arguments."""
        return cls(**config)

    def save(self, path: Any) -> None:
        """Writes a JSON file.

        Args:
            path: Of the file.
        """
        with files.replace_atomically(validation.path("path", path)) as partial:
            partial.write_text(json.dumps(self.get_config()))

    @classmethod
    def load(cls, path: Any) -> "VocabularyMap":
        """A map that `save` wrote.

        Args:
            path: Of the file.
        """
        validation.existing_file("path", path, "a file that VocabularyMap.save wrote")
        try:
            return cls.from_config(json.loads(pathlib.Path(path).read_text()))
        except (TypeError, json.JSONDecodeError) as error:
            expected = "a file that VocabularyMap.save wrote"
            raise invalid("path", expected, f"{str(path)!r}: {error}") from error

    def check_size(self, size: int, whose: str) -> None:
        """Raises unless the map belongs to a vocabulary of this size.

        Args:
            size: Of the vocabulary.
            whose: In words, for the message.
        """
        if size != self.size:
            raise ValueError(
                f"`vocabulary` is a map of {self.size} words, but {whose} has {size}. Make it with "
                f"size={size}, of ids of that model's tokenizer."
            )


@keras.saving.register_keras_serializable(package="keras_kd")
class TeacherIds:
    """A function of a batch's inputs: the teacher's ids in place of the student's.

    Args:
        words: A `VocabularyMap`.
    """

    def __init__(self, words: VocabularyMap) -> None:
        self.words = words

    def __call__(self, inputs: Any) -> Any:
        return _in_inputs(self.words.decode, inputs)

    def get_config(self) -> dict[str, Any]:
        """The configuration of the map."""
        return {"words": self.words.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TeacherIds":
        """The function with a map of this configuration."""
        return cls(VocabularyMap.from_config(config["words"]))


def _in_inputs(function, inputs):
    if not isinstance(inputs, dict):
        return function(inputs)
    if not any(name.endswith(_IDS) for name in inputs):
        raise invalid("inputs", f"a dict with entries named ...{_IDS}", sorted(inputs))
    return {
        name: function(value) if name.endswith(_IDS) else value for name, value in inputs.items()
    }


def _checked_ids(name, ids, size):
    """A flat array of ids below a size."""
    found = np.asarray(list(ids) if isinstance(ids, (set, frozenset, range)) else ids)
    if found.size == 0:
        return np.zeros(0, "int64")
    if found.dtype.kind not in "iu":
        raise invalid(name, "integers: ids of the teacher's words", validation.briefly(ids))
    if found.min() < 0 or found.max() >= size:
        raise ValueError(
            f"`{name}` has ids from {int(found.min())} to {int(found.max())}, but the teacher's "
            f"vocabulary has {size} words, 0 to {size - 1}: they are another tokenizer's."
        )
    return found.reshape(-1).astype("int64")


def _ids_in(data: Any, labels: bool, padding_id: int | None) -> Iterator[np.ndarray]:
    """The arrays of ids in data; positions that are padding, and labels below 0, do not count."""
    if isinstance(data, tf.data.Dataset):
        if batches.never_ends(data):
            raise ValueError("`data` never ends. Limit it: .take(number_of_batches).")
        for batch in data.as_numpy_iterator():
            yield from _ids_in(batch, labels, padding_id)
    elif isinstance(data, list) and any(not validation.is_integer(each) for each in data):
        for each in data:
            yield from _ids_in(each, labels, padding_id)
    elif isinstance(data, tuple):
        if not 1 <= len(data) <= 3:
            raise invalid("data", "tuples (inputs, labels, sample_weight)", f"{len(data)} parts")
        yield from _ids_in(data[0], labels, padding_id)
        if labels and len(data) > 1:
            found = np.asarray(data[1])
            yield found[found >= 0]
    elif isinstance(data, dict):
        named = [name for name in data if name.endswith(_IDS)]
        if not named:
            raise invalid("data", f"dicts with entries named ...{_IDS}", sorted(data))
        for name in named:
            yield _without_padding(data, name, padding_id)
    else:
        yield np.asarray(data)


def _without_padding(data, name, padding_id):
    ids, mask = np.asarray(data[name]), data.get(name.replace(_IDS, "padding_mask"))
    if mask is None:
        return ids
    padded = np.unique(ids[np.asarray(mask) == 0])
    if padding_id is not None and len(padded) and padded.tolist() != [padding_id]:
        raise ValueError(
            f"`data` fills {name!r} up with the ids {padded[:10].tolist()}, where the padding mask "
            f"is 0, but padding_id={padding_id}. Pass the one that is used, or None."
        )
    return ids[np.asarray(mask) != 0]
