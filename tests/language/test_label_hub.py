"""`label` with KerasHub's own classes: texts, samplers, seeds, resuming, context; models stay."""

import keras_hub
import pytest

import keras_kd as kd
from tests.language import hub
from tests.language.test_label import contents, texts

PROMPTS = ["abc", "defgh", "a", "hh", "cab", "babab", "f"]


@pytest.fixture(scope="module")
def model():
    return hub.causal()


@pytest.fixture(scope="module")
def translator():
    return hub.translator()


def label(folder, model, prompts=PROMPTS, **options):
    options = {"batch_size": 2, "max_length": 12, "verbose": 0, **options}
    return kd.language.label(model, prompts, folder, **options)


def generated(model, prompts, sampler="greedy", **options):
    """By KerasHub alone, one prompt after the other."""
    model.compile(sampler=sampler, jit_compile=False)
    return [model.generate([each], **options)[0] for each in prompts]


def test_greedy_texts_are_those_of_generate(model, tmp_path):
    expected = generated(model, PROMPTS, max_length=12, strip_prompt=True)
    found = label(tmp_path / "labels", model)
    assert texts(found) == expected
    assert len(set(expected)) > 3


def test_the_model_is_as_before(model, tmp_path):
    model.compile(sampler="top_p", jit_compile=False)
    model.generate("ab", max_length=6)
    before = model.sampler, model.generate_function, model.optimizer
    label(tmp_path / "labels", model, PROMPTS[:2])
    assert (model.sampler, model.generate_function, model.optimizer) == before
    with pytest.raises(ZeroDivisionError):
        label(tmp_path / "other", model, keep=lambda prompt, text, reference: 1 / 0)
    assert (model.sampler, model.generate_function, model.optimizer) == before


def test_draws_depend_on_the_seed_and_the_batch_alone(model, tmp_path):
    prompts = ["ab"] * 8
    sampler = keras_hub.samplers.RandomSampler(temperature=2.0)
    one = label(tmp_path / "one", model, prompts, sampler=sampler, seed=3)
    sampler = keras_hub.samplers.RandomSampler(temperature=2.0, seed=99)
    same = label(tmp_path / "same", model, prompts, sampler=sampler, seed=3)
    other = label(tmp_path / "other", model, prompts, sampler="random", seed=4)
    assert contents(one) == contents(same)
    assert texts(one) != texts(other)
    batches = [tuple(texts(one)[i : i + 2]) for i in range(0, 8, 2)]
    assert len(set(batches)) > 1


def test_a_sampled_run_that_ended_continues_to_the_same_bytes(model, tmp_path):
    options = {"sampler": "random", "seed": 5, "prompts_per_shard": 2}
    seen = []

    def keep(prompt, text, reference):
        seen.append(prompt)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return True

    options["keep"] = {"all": lambda prompt, text, reference: True}
    whole = contents(label(tmp_path / "whole", model, **options))
    with pytest.raises(KeyboardInterrupt):
        label(tmp_path / "parts", model, **{**options, "keep": {"all": keep}})
    label(tmp_path / "parts", model, **options)
    assert contents(tmp_path / "parts") == whole


def test_another_model_in_the_same_folder(model, tmp_path):
    label(tmp_path / "labels", model, PROMPTS[:2])
    with pytest.raises(kd.CacheError, match="labels of another kind. teacher: '"):
        label(tmp_path / "labels", hub.causal(seed=2), PROMPTS[:2])
    with pytest.raises(kd.CacheError, match=r"max_length: 12 there, 14 now"):
        label(tmp_path / "labels", model, PROMPTS[:2], max_length=14)
    with pytest.raises(kd.CacheError, match=r"sampler: 'GreedySampler' there, 'BeamSampler' now"):
        label(tmp_path / "labels", model, PROMPTS[:2], sampler="beam")


def test_encoder_and_decoder(translator, tmp_path):
    translator.compile(sampler="greedy", jit_compile=False)
    expected = [translator.generate([each], max_length=9)[0] for each in PROMPTS[:3]]
    assert texts(label(tmp_path / "labels", translator, PROMPTS[:3], max_length=9)) == expected
    # Start, 22 letters and end are 24 tokens.
    label(tmp_path / "fits", translator, ["c" * 22], max_length=9)
    with pytest.raises(ValueError, match=r"Prompt 1 has 23 tokens, and the encoder's sequence_len"):
        label(tmp_path / "long", translator, ["a", "c" * 23], max_length=9)


def test_prompts_longer_than_the_context(model, tmp_path):
    # A start token, 10 letters, and one place for the text.
    label(tmp_path / "fits", model, ["c" * 10])
    with pytest.raises(ValueError, match=r"Prompt 1 has 11 tokens, and max_length=12 of prompt"):
        label(tmp_path / "long", model, ["a", "c" * 11])
    with pytest.raises(ValueError, match=r"Prompt 300 has 30 tokens, and max_length=12"):
        label(tmp_path / "long", model, lambda: iter([*["a"] * 300, "c" * 30]))
    with pytest.raises(
        ValueError, match=r"max_length is 25, and the model .* has positions for 24"
    ):
        label(tmp_path / "long", model, max_length=25)
    long = hub.causal(sequence_length=hub.LENGTH + 1)
    with pytest.raises(ValueError, match=r"the preprocessor's sequence_length is 25"):
        label(tmp_path / "long", long, max_length=None)
    assert not (tmp_path / "long").exists()


def test_models_that_cannot_write(model, tmp_path):
    with pytest.raises(ValueError, match=r"has no preprocessor \(preprocessor=None\)"):
        label(tmp_path / "x", hub.causal(preprocessor=False))
    with pytest.raises(ValueError, match="`teacher`. Expected a model with `generate`"):
        label(tmp_path / "x", model.backbone)
    with pytest.raises(ValueError, match="`sampler`. Expected a sampler of KerasHub or its name"):
        label(tmp_path / "x", model, sampler="greedier")
    with pytest.raises(ValueError, match="`sampler`. Expected a sampler of KerasHub, its name"):
        label(tmp_path / "x", model, sampler=3)
    with pytest.raises(ValueError, match="`prompts`. Expected strings for a model of KerasHub"):
        label(tmp_path / "x", model, [1])
    assert not (tmp_path / "x").exists()
