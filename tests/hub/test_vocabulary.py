"""KerasHub's models without the words that are not in use."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.hub import models
from tests.hub.cases import spread
from tests.hub.test_shrink import BATCHES, BUILDERS, backbone_of, outputs

KINDS = ["bart", "bert", "bert_masked_lm", "gemma", "gpt2", "llama3", "whisper"]


def few_words(kind):
    """Batches that use a part of the vocabulary."""
    x = BATCHES[kind]()
    return {name: v // 3 if name.endswith("token_ids") else v for name, v in x.items()}


def trim(teacher, data, **options):
    return kd.students.trim_vocabulary(teacher, data, print_fn=None, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_columns_of_the_teachers(kind, tmp_path):
    teacher, x = spread(BUILDERS[kind](layers=1)), few_words(kind)
    student, words = trim(teacher, x)
    assert type(student) is type(teacher)
    assert backbone_of(student).vocabulary_size == len(words) < 40
    before, after = outputs(teacher, x), outputs(student, words.encode_inputs(x))
    for one, other in zip(before, after, strict=True):
        is_logits = one.shape[-1] == models.TOKENS
        expected = one[..., words.kept] if is_logits else one
        np.testing.assert_allclose(other, expected, rtol=1e-5, atol=1e-5)
    assert (before[0].shape != after[0].shape) == (kind not in ("bert", "whisper"))
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    for one, other in zip(outputs(loaded, words.encode_inputs(x)), after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_of_tied_and_untied_heads():
    x = few_words("gpt2")
    for build, count in ((models.gpt2, 1), (models.llama3, 2)):
        student, words = trim(spread(build(layers=1)), x)
        large = [w.shape for w in student.weights if len(words) in w.shape]
        assert len(large) == count


def test_a_trimmed_student_of_a_trimmed_teacher_learns():
    """Both take the student's ids: nothing has to be mapped in the distiller."""
    teacher, x = spread(models.gpt2(layers=2)), few_words("gpt2")
    teacher, words = trim(teacher, x)
    student = kd.students.shrink(teacher, layers=[1], width=0.5, print_fn=None)
    x = words.encode_inputs(x)
    hints = kd.pair_layers(teacher, student, print_fn=None).hints()
    distiller = kd.Distiller(
        teacher, student, [kd.losses.SoftTargets(2.0), *hints], alpha=0, mask_input="padding_mask"
    )
    distiller.compile(keras.optimizers.Adam(0.01))
    history = distiller.fit(x, epochs=5, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_a_teacher_that_keeps_its_words():
    """Its ids are mapped, and its logits are cut to the student's words."""
    teacher, x = spread(models.gpt2(layers=1)), few_words("gpt2")
    student, words = trim(spread(models.gpt2(layers=1, width=8), 1), x)
    x = words.encode_inputs(x)
    cut = keras.Model(teacher.input, words.columns(teacher.output))
    distiller = kd.Distiller(
        cut,
        student,
        alpha=0.0,
        beta=1.0,
        mask_input="padding_mask",
        teacher_preprocess=words.teacher_preprocess,
    )
    distiller.compile()
    before = distiller.evaluate(x, with_teacher=True, verbose=0, return_dict=True)["loss"]
    trimmed, _ = trim(teacher, words.teacher_preprocess(x))
    other = kd.Distiller(trimmed, student, alpha=0.0, beta=1.0, mask_input="padding_mask")
    other.compile()
    expected = other.evaluate(x, with_teacher=True, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(before, expected, rtol=1e-5)
    config = keras.saving.serialize_keras_object(words.teacher_preprocess)
    assert keras.saving.deserialize_keras_object(config).words == words


def test_vocabularies_of_other_models_and_lost_padding():
    teacher, x = models.gpt2(layers=1), few_words("gpt2")
    with pytest.raises(ValueError, match="`data` has ids from 0 to 100, .* has 100 words, 0 to 99"):
        trim(teacher, np.arange(101))
    with pytest.raises(ValueError, match=r"Padding has the id 3 .* would have 0"):
        trim(teacher, np.array([7]), padding_id=3)
    with pytest.raises(ValueError, match="a list of ids. Received: keep=3"):
        trim(teacher, x, keep=3)


def test_the_preprocessor_is_left_out_and_its_special_words_stay():
    class Tokenizer:
        special_token_ids = (0, 90, 95)

    class Preprocessor(keras.layers.Layer):
        tokenizer = Tokenizer()

    teacher = spread(models.gpt2(layers=1))
    teacher.preprocessor = Preprocessor(name="preprocessor")
    lines = []
    student, words = kd.students.trim_vocabulary(teacher, few_words("gpt2"), print_fn=lines.append)
    assert student.preprocessor is None
    assert {0, 90, 95} <= set(words.kept.tolist())
    assert lines[-1].startswith("preprocessor: left out, since its tokenizer makes the teacher's")
