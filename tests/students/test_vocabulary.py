"""Maps of ids between the vocabularies of a teacher and a student, and their tokenizers."""

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.students import networks

VocabularyMap = kd.students.VocabularyMap
KEPT, SIZE = [0, 1, 4, 7, 8], 10
IDS = np.array([[7, 4, 0], [8, 1, 0]], "int32")
NEW = np.array([[3, 2, 0], [4, 1, 0]], "int32")


def small(**options):
    return VocabularyMap(KEPT, SIZE, **options)


def test_ids_there_and_back():
    words = small()
    assert len(words) == 5
    for dtype in ("int32", "int64", "uint8"):
        found = words.encode(IDS.astype(dtype))
        np.testing.assert_array_equal(found, NEW)
        assert found.dtype == dtype
        assert words.decode(found).dtype == dtype
        np.testing.assert_array_equal(words.decode(found), IDS)
    assert words.encode(7) == 3


def test_tensors_in_graphs_and_datasets():
    words = small()
    for run in (
        words.encode,
        tf.function(words.encode),
        tf.function(words.encode, jit_compile=True),
    ):
        found = run(tf.constant(IDS))
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, NEW)
    np.testing.assert_array_equal(tf.function(words.decode)(tf.constant(NEW)), IDS)
    data = tf.data.Dataset.from_tensor_slices({"token_ids": IDS, "padding_mask": IDS}).batch(2)
    (batch,) = data.map(words.encode_inputs)
    np.testing.assert_array_equal(batch["token_ids"], NEW)
    np.testing.assert_array_equal(batch["padding_mask"], IDS)
    np.testing.assert_array_equal(words.teacher_preprocess(batch)["token_ids"], IDS)
    np.testing.assert_array_equal(words.encode_inputs(IDS), NEW)


def test_labels_that_count_nowhere_stay():
    labels = np.array([7, -100, 4])
    for each in (labels, tf.constant(labels)):
        np.testing.assert_array_equal(small().encode(each), [3, -100, 2])
        np.testing.assert_array_equal(small().decode(small().encode(each)), labels)


def test_other_words_become_the_unknown_one():
    words = small(unknown_id=4)
    for each in (np.array([3, 7]), tf.constant([3, 7])):
        np.testing.assert_array_equal(words.encode(each), [2, 3])


def test_other_words_and_other_ids_are_errors():
    words = small()
    with pytest.raises(
        ValueError, match=r"5 words lack the teacher's ids \[3\], 1 in all.*unknown"
    ):
        words.encode(np.array([3, 7]))
    for ids in ([11], [-2]):
        with pytest.raises(ValueError, match=r"`ids` has ids .* has 10 words, 0 to 9"):
            words.encode(np.array(ids))
        with pytest.raises(tf.errors.InvalidArgumentError, match="ids must be from 0 to 9"):
            words.encode(tf.constant(ids))
    with pytest.raises(tf.errors.InvalidArgumentError, match="5 words lack"):
        list(tf.data.Dataset.from_tensors(np.array([3])).map(words.encode))
    with pytest.raises(ValueError, match="ids of the student, from 0 to 4"):
        words.decode(np.array([5]))
    with pytest.raises(ValueError, match="entries named ...token_ids"):
        words.encode_inputs({"ids": IDS})


def test_columns_of_logits():
    logits = np.random.default_rng(0).normal(size=(2, 3, SIZE)).astype("float32")
    for each in (logits, tf.constant(logits)):
        np.testing.assert_array_equal(small().columns(each), logits[..., KEPT])
    with pytest.raises(ValueError, match=r"have 9 columns, but the teacher's vocabulary has 10"):
        small().columns(logits[..., :9])


def test_the_words_in_use():
    mask = (IDS != 0).astype("int32")
    data = {"token_ids": IDS, "padding_mask": mask, "labels": np.array([[9]])}
    for each in (
        data,
        (data, np.array([3])),
        [IDS, IDS],
        tf.data.Dataset.from_tensor_slices({"token_ids": IDS, "padding_mask": mask}).batch(1),
    ):
        assert VocabularyMap.of(each, SIZE).kept.tolist() == [0, 1, 4, 7, 8]
    labelled = data, np.array([3, -100])
    assert 3 in VocabularyMap.of(labelled, SIZE, labels=True).kept
    of_two = VocabularyMap.of([IDS, [7, 8]], SIZE, keep=[5], unknown_id=2, min_count=2)
    assert of_two.kept.tolist() == [0, 2, 5, 7, 8]
    assert of_two.unknown_id == 2
    # Padding counts nowhere; without a mask its ids are words like others.
    assert VocabularyMap.of(data, SIZE, padding_id=None).kept.tolist() == [1, 4, 7, 8]


def test_words_of_another_tokenizer_are_errors():
    with pytest.raises(ValueError, match=r"`data` has ids from 0 to 12, .* has 10 words"):
        VocabularyMap.of(np.array([0, 12]), SIZE)
    with pytest.raises(ValueError, match=r"`keep` has ids from 10 to 10"):
        VocabularyMap.of(IDS, SIZE, keep=[10])
    with pytest.raises(ValueError, match="integers: ids of the teacher's words"):
        VocabularyMap.of(IDS * 0.5, SIZE)
    with pytest.raises(ValueError, match="data with ids"):
        VocabularyMap.of(np.zeros((0, 3), "int32"), SIZE)
    with pytest.raises(ValueError, match=r"entries named ...token_ids. Received: data=\['x'\]"):
        VocabularyMap.of({"x": IDS}, SIZE)
    endless = tf.data.Dataset.from_tensors(IDS).repeat()
    with pytest.raises(ValueError, match="`data` never ends"):
        VocabularyMap.of(endless, SIZE)
    with pytest.raises(ValueError, match="different ids, one at least"):
        VocabularyMap([1, 1], SIZE)
    with pytest.raises(ValueError, match="`unknown_id` is 2, but the 5 ids"):
        small(unknown_id=2)


def test_padding_keeps_its_number():
    with pytest.raises(
        ValueError, match=r"Padding has the id 1 in the teacher's .* would have 0 .*keep=\[0\]"
    ):
        VocabularyMap([1, 4], SIZE, padding_id=1)
    assert VocabularyMap([0, 1, 4], SIZE, padding_id=1).encode(1) == 1
    with pytest.raises(ValueError, match="`padding_id` is 0, but the 2 ids"):
        VocabularyMap([1, 4], SIZE)
    data = {"token_ids": IDS, "padding_mask": (IDS != 0).astype("int32")}
    with pytest.raises(ValueError, match=r"fills 'token_ids' up with the ids \[0\].*padding_id=1"):
        VocabularyMap.of(data, SIZE, padding_id=1)


def test_a_file_of_a_map(tmp_path):
    words = small(unknown_id=4)
    words.save(tmp_path / "words.json")
    loaded = VocabularyMap.load(tmp_path / "words.json")
    assert loaded == words
    assert hash(loaded) == hash(words)
    assert loaded != small()
    assert repr(loaded) == "VocabularyMap(5 of 10 words)"
    with pytest.raises(ValueError, match="read-only"):
        loaded.kept[0] = 3
    (tmp_path / "other.json").write_text("[1]")
    for name in ("other.json", "none.json"):
        with pytest.raises(ValueError, match=r"a file that VocabularyMap.save wrote"):
            VocabularyMap.load(tmp_path / name)


def test_a_list_of_words(tmp_path):
    source, target = tmp_path / "vocab.txt", tmp_path / "small.txt"
    source.write_text("".join(f"word{i}\n" for i in range(SIZE)))
    small().trim_tokenizer(source, target)
    assert target.read_text().splitlines() == [f"word{i}" for i in KEPT]
    source.write_text("".join(f"word{i}\n" for i in range(8)))
    with pytest.raises(ValueError, match=r"keeps id 8, but .*vocab.txt' has 8 words"):
        small().trim_tokenizer(source, target)


TEXTS = ["the cat sat on the mat", "other cats sat with that hat", "then the bat chatted"]


def trained(kind, path):
    """A tokenizer of three sentences, in a file."""
    tokenizers = extras.require("tokenizers")
    pre, special = tokenizers.pre_tokenizers, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "bpe":
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=320, special_tokens=special, initial_alphabet=pre.ByteLevel.alphabet()
        )
    elif kind == "unigram":
        made = tokenizers.Tokenizer(tokenizers.models.Unigram())
        trainer = tokenizers.trainers.UnigramTrainer(vocab_size=40, special_tokens=special)
    else:
        made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        made.pre_tokenizer = pre.Whitespace()
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=80, special_tokens=special)
    made.train_from_iterator(TEXTS * 4, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_padding(pad_id=0, pad_token="[PAD]")
    made.save(str(path))
    return made


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_trimmed_tokenizer_gives_the_students_ids(kind, tmp_path):
    tokenizers = extras.require("tokenizers")
    source, target = tmp_path / "tokenizer.json", tmp_path / "small.json"
    teacher = trained(kind, source)
    ids = [np.array(teacher.encode(text).ids) for text in TEXTS[:2]]
    size = teacher.get_vocab_size()
    words = VocabularyMap.of(ids, size, unknown_id=1, tokenizer=source)
    assert len(words) < size
    words.trim_tokenizer(source, target)
    student = tokenizers.Tokenizer.from_file(str(target))
    assert student.get_vocab_size() == len(words)
    for text, old in zip(TEXTS[:2], ids, strict=True):
        np.testing.assert_array_equal(student.encode(text).ids, words.encode(old))
    batch = student.encode_batch(TEXTS[:2])
    assert len({len(row.ids) for row in batch}) == 1
    # What is not in use becomes shorter pieces, or the unknown word.
    other = student.encode(TEXTS[2])
    if kind == "bpe":
        assert "".join(other.tokens[1:-1]).replace("Ġ", " ") == TEXTS[2]
        assert len(other.ids) > len(teacher.encode(TEXTS[2]).ids)
    else:
        assert "[UNK]" in other.tokens


def test_a_tokenizer_that_would_lack_words(tmp_path):
    source, target = tmp_path / "tokenizer.json", tmp_path / "small.json"
    teacher = trained("bpe", source)
    size = teacher.get_vocab_size()
    used = np.array(teacher.encode(TEXTS[0]).ids)
    with pytest.raises(ValueError, match=r"needs words that the map has left out.*tokenizer="):
        VocabularyMap.of(used, size).trim_tokenizer(source, target)
    with pytest.raises(ValueError, match=r"of which the tokenizer, .*, makes none"):
        VocabularyMap.of([used, [size + 3]], size + 9).trim_tokenizer(source, target)
    assert not target.exists()


def test_tokenizers_that_cannot_be_trimmed(tmp_path):
    source = tmp_path / "tokenizer.json"
    trained("unigram", source)
    with pytest.raises(ValueError, match=r"'Unigram' cannot be trimmed exactly.*encode_inputs"):
        small().trim_tokenizer(source, tmp_path / "small.json")
    spec = {"model": {"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}}
    source.write_text(json.dumps(spec))
    with pytest.raises(ValueError, match=r"A BPE tokenizer with \['end_of_word_suffix'\]"):
        VocabularyMap.of(IDS, SIZE, tokenizer=source)
    source.write_text("{}")
    with pytest.raises(ValueError, match="a tokenizer.json as the package"):
        small().trim_tokenizer(source, tmp_path / "small.json")
    with pytest.raises(ValueError, match=r"a tokenizer.json file, or a vocab.txt. Received"):
        small().trim_tokenizer(tmp_path / "none.json", tmp_path / "small.json")


def test_plain_models_have_no_vocabulary_of_their_own():
    with pytest.raises(ValueError, match="trim_vocabulary works for the backbones and tasks"):
        kd.students.trim_vocabulary(networks.mlp(depth=2), IDS)
