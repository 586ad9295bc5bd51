"""Tokenizers with fewer words: `tokenizer.json` files of `tokenizers`, and lists `vocab.txt`.

WordPiece takes the longest piece that it knows, so without other pieces it makes the same of a text
whose pieces have all stayed. BPE does so if the pieces of its pieces stay, which `needed_ids` adds.
Unigram weighs an unknown character by the rarest piece: without that one it may choose otherwise.
"""

import itertools
import json
import os
import pathlib
from typing import Any

import numpy as np

from keras_kd._utils import files, validation
from keras_kd._utils.validation import invalid

_KINDS = ("WordPiece", "WordLevel", "BPE")
# Settings of BPE that change how a word begins.
_UNKNOWN_TO_US = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")


def read_tokenizer(name: str, path: Any) -> dict[str, Any]:
    """A `tokenizer.json` of a kind that can be trimmed.

    Args:
        name: The argument that holds the path.
        path: Of the file.

    Raises:
        ValueError: There is no such file, or its words cannot be left out.
    """
    validation.existing_file(name, path, "a tokenizer.json file, or a vocab.txt")
    try:
        spec = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        kind = spec["model"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        expected = "a tokenizer.json as the package `tokenizers` writes it"
        raise invalid(name, expected, f"{os.fspath(path)!r}: {error!r}") from error
    if kind not in _KINDS:
        raise ValueError(
            f"A tokenizer of type {kind!r} cannot be trimmed exactly; of these types it can: "
            f"{_KINDS}. Keep the tokenizer, and map its ids: dataset.map with "
            "VocabularyMap.encode_inputs."
        )
    changed = [key for key in _UNKNOWN_TO_US if spec["model"].get(key)]
    if kind == "BPE" and changed:
        raise ValueError(
            f"A BPE tokenizer with {changed} cannot be trimmed: keras_kd does not know its merges. "
            "Keep the tokenizer, and map its ids: dataset.map with VocabularyMap.encode_inputs."
        )
    return spec


def needed_ids(spec: dict[str, Any], ids: Any) -> np.ndarray:
    """The ids that a tokenizer needs to make some of them: special words, and parts of words.

    Args:
        spec: A tokenizer.
        ids: Those that are to be made.

    Returns:
        An ascending array, with `ids`.
    """
    needed = {int(each) for each in ids}
    needed |= {word["id"] for word in spec.get("added_tokens") or []}
    vocabulary = spec["model"]["vocab"]
    unknown = spec["model"].get("unk_token")
    if unknown in vocabulary:
        needed.add(vocabulary[unknown])
    if spec["model"]["type"] == "BPE":
        ranks = {pair: i for i, pair in enumerate(_merges(spec))}
        words = {number: word for word, number in vocabulary.items()}
        # Single characters too: any text can then be written.
        needed |= {number for word, number in vocabulary.items() if len(word) == 1}
        for number in [each for each in needed if each in words]:
            parts = _parts(words[number], ranks)
            needed |= {vocabulary[part] for part in parts if part in vocabulary}
    return np.array(sorted(needed), "int64")


def _merges(spec):
    """The pairs that BPE joins, in order; older files have texts."""
    return [
        tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair)
        for pair in spec["model"]["merges"]
    ]


def _parts(word, ranks):
    """All that BPE makes on the way to a word: it joins the pair of the lowest rank first."""
    parts, found = list(word), set(word)
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined, i = [], 0
        while i < len(parts):
            is_pair = tuple(parts[i : i + 2]) == best
            joined.append("".join(best) if is_pair else parts[i])
            i += 2 if is_pair else 1
        parts = joined
        found |= set(parts)
    return found


def trimmed_tokenizer(spec: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """A tokenizer of the words with some ids, which get the numbers of their places.

    Args:
        spec: A tokenizer.
        kept: Ascending ids of those that stay.

    Raises:
        ValueError: The tokenizer would lack special words, or parts of words that stay.
    """
    new = {int(old): i for i, old in enumerate(kept)}
    words = {**spec["model"]["vocab"], **{x["content"]: x["id"] for x in _added(spec)}}
    by_id = {number: word for word, number in words.items()}
    without_word = [old for old in new if old not in by_id]
    if without_word:
        raise ValueError(
            f"The map keeps the ids {without_word[:5]}, of which the tokenizer, with "
            f"{len(words)} words, makes none: it belongs to another model."
        )
    missing = [int(each) for each in needed_ids(spec, kept) if int(each) not in new]
    if missing:
        raise ValueError(
            f"The tokenizer needs words that the map has left out: "
            f"{[by_id[each] for each in missing[:10]]} (ids {missing[:10]}), special ones or parts "
            "of others. Make the map with tokenizer=, which keeps them."
        )
    model = dict(spec["model"])
    model["vocab"] = {word: new[number] for word, number in model["vocab"].items() if number in new}
    if model["type"] == "BPE":
        model["merges"] = [
            list(pair)
            for pair in _merges(spec)
            if all(part in model["vocab"] for part in (*pair, "".join(pair)))
        ]
    added = [{**word, "id": new[word["id"]]} for word in _added(spec)]
    padding = spec.get("padding")
    if padding:
        padding = {**padding, "pad_id": new[padding["pad_id"]]}
    return {
        **spec,
        "added_tokens": added,
        "padding": padding,
        "post_processor": _processor(spec.get("post_processor"), new),
        "model": model,
    }


def _added(spec):
    return spec.get("added_tokens") or []


def _processor(value, new):
    """What adds special words, with the new ids of those."""
    if not isinstance(value, dict):
        return value
    changed = dict(value)
    for key in ("sep", "cls"):  # of BERT and RoBERTa
        if isinstance(value.get(key), list):
            word, number = value[key]
            changed[key] = [word, new[number]]
    if isinstance(value.get("special_tokens"), dict):
        changed["special_tokens"] = {
            key: {**word, "ids": [new[number] for number in word["ids"]]}
            for key, word in value["special_tokens"].items()
        }
    if isinstance(value.get("processors"), list):
        changed["processors"] = [_processor(each, new) for each in value["processors"]]
    return changed


def write_trimmed(source: Any, path: Any, kept: np.ndarray) -> None:
    """Writes a `tokenizer.json`, or a `vocab.txt` (one word a line), of the words that stay.

    Args:
        source: The teacher's file.
        path: Of the new file, of the same kind.
        kept: Ascending ids of the words that stay.
    """
    target = validation.path("path", path)
    if str(source).endswith(".txt"):
        validation.existing_file("source", source, "a tokenizer.json file, or a vocab.txt")
        words = pathlib.Path(source).read_text(encoding="utf-8").split("\n")
        words = words[:-1] if words[-1] == "" else words
        if int(kept[-1]) >= len(words):
            raise ValueError(
                f"The map keeps id {int(kept[-1])}, but {os.fspath(source)!r} has {len(words)} "
                f"words (ids 0 to {len(words) - 1}): it belongs to another model."
            )
        text = "".join(f"{words[number]}\n" for number in kept)
    else:
        spec = trimmed_tokenizer(read_tokenizer("source", source), kept)
        text = json.dumps(spec, ensure_ascii=False, indent=2)
    with files.replace_atomically(target) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
