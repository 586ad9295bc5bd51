"""The example of a small Whisper runs, on tones, and on speech where there is a synthesizer."""

import importlib
import importlib.util
import json
import re

import keras
import numpy as np
import pytest

from tests import example_runs, extras, fresh_process
from tests.example_runs import printed

pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]
NEEDED = "keras_hub", "jiwer", "sklearn", "scipy", "matplotlib", "mlxtend"
# `make speech` brings the synthesizer, which no extra has.
VOICES = ["tones", *["espeak"] * (importlib.util.find_spec("espeakng_loader") is not None)]


@pytest.fixture
def modules(monkeypatch):
    extras.require_in_a_process(*NEEDED)
    monkeypatch.syspath_prepend(example_runs.EXAMPLES)
    names = "speech", "small_whisper", "distil_whisper"
    return {name: importlib.import_module(name) for name in names}


def test_a_student_learns_from_pseudo_labels(tmp_path):
    extras.require_in_a_process(*NEEDED)
    small = ["--train-samples", 64, "--unlabeled-samples", 40, "--test-samples", 10, "--width", 8]
    # A teacher that has learned nothing: all of its texts are kept.
    once = ["--teacher-epochs", 1, "--epochs", 1, "--seeds", 1, "--limit", 100]
    text = printed("distil_whisper.py", "--voice", "tones", *small, *once, "--output", tmp_path)
    figures = r"^(\w[\w-]+) +([\d.]+) +([\d.]+) +([\d,]+) +([\d,]+) +[\d.]+$"
    rows = re.findall(figures, text, re.MULTILINE)
    names = ["teacher", "untrained", "transcripts", "pseudo-labels", "distil-whisper"]
    assert [row[0] for row in rows] == names
    sizes = [tuple(int(each.replace(",", "")) for each in row[3:]) for row in rows]
    # The same encoder stays; two of four blocks of the decoder do not.
    assert sizes[0][0] - sizes[0][1] == sizes[1][0] - sizes[1][1]
    assert sizes[0] > sizes[1] == sizes[4]
    assert "kept 40 of 40 labels" in text
    assert re.search(r"against pseudo-labels: [+-][\d.]+ \(by seed", text)
    (folder,) = tmp_path.glob("labels-*")
    assert json.loads((folder / "manifest.json").read_text())["kept"] == 40
    assert (tmp_path / "student-0.keras").exists()


def test_tones_of_letters(modules):
    speech = modules["speech"]
    texts, mels = speech.make(12, "tones", seed=3)
    assert mels.shape == (12, speech.FRAMES, speech.MELS)
    assert mels.dtype == "float32"
    np.testing.assert_allclose(mels.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(mels.std(axis=(1, 2)), 1, rtol=1e-5)
    assert {len(text.split()) for text in texts} == {3, 4}
    assert len(set(texts)) == 12
    again, same = speech.make(12, "tones", seed=3)
    assert again == texts
    np.testing.assert_array_equal(same, mels)
    assert not set(texts) & set(speech.draw_sentences(50, seed=3, without=texts))
    pairs = [speech.formants(letter) for letter in speech.LETTERS]
    assert len(set(pairs)) == 26
    # The loudest band of a sine is the one that holds its frequency.
    sine = np.sin(2 * np.pi * 1000 * np.arange(speech.SAMPLES) / speech.RATE)[None]
    band = speech.log_mels(sine.astype("float32"))[0, 75].argmax()
    found = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 8000)), speech.MELS + 2)
    assert found[band] < 2595 * np.log10(1 + 1000 / 700) < found[band + 2]


def test_noise_is_as_loud_as_it_should_be(modules):
    speech = modules["speech"]
    sound = np.sin(np.arange(8000) / 5).astype("float32")
    for decibels in (0.0, 20.0):
        noisy = speech.with_noise(sound, (decibels, decibels), np.random.default_rng(0))
        hiss = noisy[12_000:]  # the sound begins in the first tenth of a second
        found = 10 * np.log10(np.mean(sound**2) / np.mean(hiss**2))
        assert abs(found - decibels) < 1.5


@pytest.mark.parametrize("voice", VOICES)
def test_speakers_differ_and_fit(voice, modules):
    speech = modules["speech"]
    speak = speech.Espeak() if voice == "espeak" else speech.tones
    sounds = [speak("seven zero five", np.random.default_rng(seed)) for seed in range(4)]
    assert all(0.3 * speech.RATE < len(each) <= speech.SAMPLES for each in sounds)
    assert all(0.05 < np.abs(each).max() <= 1.1 for each in sounds)
    assert len({len(each) for each in sounds}) > 1
    for seed in range(8):
        long = speak("seven zero seven zero seven", np.random.default_rng(seed))
        assert len(long) <= speech.SAMPLES


def test_tokens_and_texts(modules):
    small, speech = modules["small_whisper"], modules["speech"]
    texts = ["one two three", "go", "stop go left right"]
    x, y = small.inputs_of(texts, np.zeros((3, speech.FRAMES, speech.MELS), "float32"))
    assert [small.text_of(row) for row in y] == texts
    assert (x["decoder_token_ids"][:, 0] == small.START).all()
    np.testing.assert_array_equal(x["decoder_token_ids"][0, 1:4], y[0, :3])
    assert x["decoder_padding_mask"].sum(axis=1).tolist() == [4, 2, 5]  # words and the end
    assert small.text_of(np.array([4, small.PAD, 5])) == "one"


def test_greedy_decoding_equals_a_loop_over_whole_models(modules):
    """Sentence by sentence, through the model with its encoder, and without places ahead."""
    from keras_kd import recipes

    small, speech = modules["small_whisper"], modules["speech"]
    keras.utils.set_random_seed(0)
    teacher = small.make_teacher(16)
    student = small.shrunk(teacher, [0, 3])
    recipe = recipes.distil_whisper(teacher, student)
    _, mels = speech.make(6, "tones")
    # With a tied head untrained models repeat one word; with these numbers they say several.
    rng = np.random.default_rng(1)
    for model in (teacher, student):
        norm = model.backbone.decoder_layer_norm
        for weight in (model.backbone.token_embedding.embeddings, norm.gamma):
            weight.assign(rng.normal(size=weight.shape))
    x, _ = small.inputs_of([""] * 6, mels)
    encoded = recipe.encode(x)
    said = set()
    for whole, decoder in (
        (teacher, recipe.stages[0].teacher),
        (student, recipe.stages[0].student),
    ):
        found = small.Transcriber(decoder)(encoded)
        assert found == [naive(small, whole, each) for each in mels]
        said |= set(" ".join(found).split())
    assert len(said) > 2


def naive(small, model, mels):
    ids = [small.START]
    while len(ids) <= small.LENGTH:
        x = {
            "encoder_features": mels[None],
            "decoder_token_ids": np.array([ids], "int32"),
            "decoder_padding_mask": np.ones((1, len(ids)), "int32"),
        }
        ids.append(int(np.argmax(model(x)[0, -1])))
        if ids[-1] <= small.END:
            break
    return small.text_of(np.array(ids[1:]))


def test_wrong_transcripts_are_as_many_as_asked_for(modules):
    texts = [f"{number}" for number in range(50)]
    found = modules["distil_whisper"].with_wrong(texts, 0.2)
    assert sum(one != other for one, other in zip(found, texts, strict=True)) == 10
    assert sorted(found) == sorted(texts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--layers", 2, 1], "--layers must be rising numbers from 0 to 3, received [2, 1]"),
        (["--layers", 4], "--layers must be rising numbers from 0 to 3, received [4]"),
        (["--voice", "mine"], "invalid choice: 'mine'"),
        (["--wrong", 1], "--wrong must be at least 0 and below 1"),
        (["--width", 10], "--width must be a multiple of 4, at least 8, received 10"),
        (["--temperature", 0], "--learning-rate and --temperature must be above 0"),
        (["--seeds", 0], "--seeds must be at least 1"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(wrong, message, tmp_path):
    extras.require_in_a_process(*NEEDED)
    command = [example_runs.EXAMPLES / "distil_whisper.py", "--voice", "tones"]
    command = list(map(str, [*command, "--output", tmp_path / "o", *wrong]))
    done = fresh_process.run_preloaded(command, check=False, warnings="default")
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "o").exists()


def test_a_missing_package_is_named(modules, monkeypatch):
    speech, example = modules["speech"], modules["distil_whisper"]
    monkeypatch.setattr(speech, "PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match="no_such_package is missing.*pip install --no-deps"):
        speech.check("espeak")
    speech.check("tones")
    monkeypatch.setitem(example.NEEDED, "no_such_package", "it")
    with pytest.raises(ImportError, match="no_such_package is missing: pip install it"):
        example.distil_whisper()


def test_a_teacher_that_has_learned_nothing_is_named(modules, tmp_path):
    """All of its pseudo-labels are dropped: there is nothing to learn from."""
    example, small = modules["distil_whisper"], modules["small_whisper"]
    teacher = small.make_teacher(8)
    recipe = example.kd.recipes.distil_whisper(teacher, small.shrunk(teacher, [0]))
    args = example.types.SimpleNamespace(output=tmp_path, limit=0.0)
    unlabeled = modules["speech"].make(8, "tones")
    with pytest.raises(ValueError, match="`limit` 0.0 drops all 8 pseudo-labels.*teacher_epochs"):
        example.of_students(args, recipe, unlabeled)
