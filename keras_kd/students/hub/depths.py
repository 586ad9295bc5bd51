"""Backbones whose encoder and decoder have different depths, which KerasHub's own cannot have.

The configuration of a Whisper, a BART or a T5 has one number of layers for both. A student with all
of the encoder and two layers of the decoder is a class derived from the backbone's own, with
`encoder_layers` and `decoder_layers` in its configuration. Tasks take it, and files hold it; who
loads one imports keras_kd before.
"""

import functools
from typing import Any

import keras

from keras_kd.students.hub import families

_PACKAGE = "keras_kd"
_KEYS = {"encoder": "encoder_layers", "decoder": "decoder_layers"}
# Of the blocks' calls: what a block that is left out would have passed on.
_HIDDEN, _ALSO = "decoder_sequence", "position_bias"


def with_depths(kind: type, config: dict[str, Any], counts: dict[str, int]) -> Any:
    """A backbone with its own number of blocks in each stack.

    Args:
        kind: The class of a backbone with an encoder and a decoder.
        config: Its configuration; how many layers it names does not count.
        counts: `{"encoder": ..., "decoder": ...}`.
    """
    config = {key: value for key, value in config.items() if key != "num_layers"}
    return _derived(_base_of(kind))(
        **{_KEYS[name]: count for name, count in counts.items()},
        **{key: value for key, value in config.items() if key not in _KEYS.values()},
    )


def _base_of(kind):
    return kind.__mro__[1] if hasattr(kind, "depth_keys") else kind


@functools.cache
def _derived(base: type) -> type:
    """The class, derived from that of a backbone with equal depths."""

    class WithDepths(base):
        depth_keys = _KEYS

        def __init__(self, encoder_layers, decoder_layers, dtype=None, **kwargs):
            names = {key: kwargs.pop(key) for key in ("name", "trainable") if key in kwargs}
            whole = base(num_layers=max(encoder_layers, decoder_layers), dtype=dtype, **kwargs)
            counts = {"encoder": encoder_layers, "decoder": decoder_layers}
            lists = {name: getattr(whole, f"{name}_transformer_layers") for name in counts}
            kept = {name: list(lists[name])[:count] for name, count in counts.items()}
            left_out = {id(x) for name in counts for x in list(lists[name])[counts[name] :]}
            cut = _without(whole, left_out)
            stacks = {f"{name}_transformer_layers": blocks for name, blocks in kept.items()}
            for key, value in {**_own_attributes(whole, cut), **stacks}.items():
                setattr(self, key, value)
            self.token_embedding = whole.token_embedding
            families.hub().models.Backbone.__init__(
                self, inputs=cut.input, outputs=cut.output, dtype=dtype, **names
            )
            # What `generate` makes its cache for.
            self.num_layers = decoder_layers
            self.encoder_layers, self.decoder_layers = encoder_layers, decoder_layers

        def get_config(self):
            config = super().get_config()
            del config["num_layers"]
            return {
                **config,
                "encoder_layers": self.encoder_layers,
                "decoder_layers": self.decoder_layers,
            }

    WithDepths.__name__ = WithDepths.__qualname__ = _name(base.__name__)
    WithDepths.__module__ = __name__
    return keras.saving.register_keras_serializable(_PACKAGE, WithDepths.__name__)(WithDepths)


def _name(of_base):
    return f"{of_base}WithDepths"


def _without(model, left_out):
    """A functional model of the same layers, in which some blocks pass their inputs on."""

    def call(layer, *args, **kwargs):
        if id(layer) not in left_out:
            return layer(*args, **kwargs)
        hidden = args[0] if args else kwargs[_HIDDEN]
        return (hidden, kwargs[_ALSO]) if _ALSO in kwargs else hidden

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def _own_attributes(model, functional):
    """The attributes that a backbone's class has set, without those that Keras sets."""
    of_keras = vars(functional)
    return {
        key: value
        for key, value in vars(model).items()
        if not key.startswith("_") and key not in of_keras
    }


class _Registered:
    """Stands for a derived class in a file until KerasHub is imported; see `_derived`."""

    base = ""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The backbone."""
        import keras_hub

        return _derived(getattr(keras_hub.models, cls.base)).from_config(config)


def _register() -> None:
    for base, family in families.FAMILIES.items():
        if set(family.stacks) == set(_KEYS):
            stub = type(_name(base), (_Registered,), {"base": base})
            keras.saving.get_custom_objects()[f"{_PACKAGE}>{_name(base)}"] = stub


_register()
