"""Every argument of `TokenKD` counts, is saved, or is refused."""

import inspect

import pytest

import keras_kd as kd

# Another value of each; what it does is seen in `test_token_kd`.
OTHERS = {
    "temperature": 3.0,
    "divergence": "reverse_kl",
    "mixing_weight": 0.3,
    "ignore_class": 0,
    "vocabulary": "common",
    "memory_mb": 8.0,
    "student_head": "head",
    "teacher_head": "head",
    "weight": 2.0,
    "name": "tokens",
    "mask_input": "padding_mask",
}
ALSO = {"mixing_weight": {"divergence": "jsd"}}


def test_every_argument_is_here():
    arguments = inspect.signature(kd.losses.TokenKD.__init__).parameters
    assert set(OTHERS) == set(arguments) - {"self", "kwargs"}


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_saved(name):
    loss = kd.losses.TokenKD(**{name: OTHERS[name], **ALSO.get(name, {})})
    config = loss.get_config()
    assert config[name] == OTHERS[name]
    assert kd.losses.TokenKD().get_config()[name] != OTHERS[name]
    assert kd.losses.TokenKD.from_config(config).get_config() == config


@pytest.mark.parametrize("name", OTHERS)
def test_a_value_of_no_type_is_refused(name):
    with pytest.raises((TypeError, ValueError), match=name):
        kd.losses.TokenKD(**{name: object(), **ALSO.get(name, {})})


def test_an_unknown_argument_is_an_error():
    with pytest.raises((TypeError, ValueError), match="unheard_of"):
        kd.losses.TokenKD(unheard_of=1)
