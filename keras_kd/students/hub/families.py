"""What the configurations of KerasHub's backbones name: blocks, widths, heads, the vocabulary.

One `Family` for each group of backbones whose configurations use the same names; a new one needs an
entry in `FAMILIES`, and nothing else.
"""

import dataclasses
import sys
from typing import Any

import keras

from keras_kd.models import paths

# The stack of a model of one kind of blocks.
ONLY = "blocks"


@dataclasses.dataclass(frozen=True)
class Family:
    """The names that a backbone's configuration uses.

    Attributes:
        stacks: `{name: (attribute that lists the blocks, key of their number)}`.
        heads: The key of the number of (query) heads.
        kv_heads: The key of the number of heads of keys and values, or `None`: as many.
        head_dim: The key of the width of a head, or `None`: `hidden_dim // heads`.
        halves: Whether each of two gates has half of `intermediate_dim`.
        forgotten: Arguments of the backbone that its configuration leaves out.
        alternates: Attributes of blocks whose values change from block to block by their numbers,
            such as windows of attention; blocks differ in nothing else but their weights.
        shares_heads: Whether all blocks of a stack read one tensor with an axis of heads.
        refused: `{key: value}`: all that is supported, where the configuration has the key.
        pads: The inputs that tell of padding, by stack.
    """

    stacks: dict[str, tuple[str, str]]
    heads: str = "num_heads"
    kv_heads: str | None = None
    head_dim: str | None = None
    halves: bool = False
    forgotten: tuple[str, ...] = ()
    alternates: tuple[str, ...] = ()
    shares_heads: bool = False
    refused: dict[str, Any] = dataclasses.field(default_factory=dict)
    pads: dict[str, str] = dataclasses.field(
        default_factory=lambda: {
            ONLY: "padding_mask",
            "encoder": "encoder_padding_mask",
            "decoder": "decoder_padding_mask",
        }
    )


_ONE = {ONLY: ("transformer_layers", "num_layers")}
_TWO = {
    "encoder": ("encoder_transformer_layers", "num_layers"),
    "decoder": ("decoder_transformer_layers", "num_layers"),
}
_GROUPED = {"heads": "num_query_heads", "kv_heads": "num_key_value_heads"}
_PLAIN = Family(_ONE)

# By the class of the backbone or one that it is derived from.
FAMILIES = {
    "BertBackbone": _PLAIN,
    "DistilBertBackbone": _PLAIN,
    "RobertaBackbone": _PLAIN,
    "GPT2Backbone": _PLAIN,
    "OPTBackbone": _PLAIN,
    "LlamaBackbone": Family(_ONE, **_GROUPED, forgotten=("tie_word_embeddings",)),
    "MistralBackbone": Family(_ONE, **_GROUPED, head_dim="head_dim"),
    "QwenBackbone": Family(_ONE, **_GROUPED),
    "Qwen3Backbone": Family(_ONE, **_GROUPED, head_dim="head_dim"),
    "GemmaBackbone": Family(
        _ONE,
        **_GROUPED,
        head_dim="head_dim",
        halves=True,
        alternates=("use_sliding_window_attention",),
    ),
    "Gemma3Backbone": Family(
        _ONE,
        **_GROUPED,
        head_dim="head_dim",
        alternates=("use_sliding_window_attention", "rope_wavelength"),
        refused={"vision_encoder": None, "is_embedding_model": False},
    ),
    "BartBackbone": Family(_TWO),
    "WhisperBackbone": Family(_TWO),
    "T5Backbone": Family(_TWO, head_dim="key_value_dim", shares_heads=True),
}


def hub() -> Any:
    """KerasHub, if anything has imported it; a model of it is there only then."""
    return sys.modules.get("keras_hub")


def is_hub(model: Any) -> bool:
    """Whether it is a backbone of KerasHub, or a task around one."""
    return backbone_of(model) is not None


def backbone_of(model: Any) -> Any:
    """The backbone of a task, a backbone itself, else `None`.

    A task is a `keras_hub.models.Task`, or a model of the user whose configuration, as theirs, is a
    `"backbone"` and the arguments of its class.
    """
    package = hub()
    if package is None or not isinstance(model, keras.Model):
        return None
    if isinstance(model, package.models.Backbone):
        return model
    inner = getattr(model, "backbone", None)
    is_task = isinstance(inner, package.models.Backbone) and "backbone" in model.get_config()
    return inner if is_task else None


def family_of(backbone: Any) -> Family:
    """The `Family` of a backbone.

    Raises:
        ValueError: The backbone is of none, or has what keras_kd does not know.
    """
    names = [kind.__name__ for kind in type(backbone).__mro__]
    known = [FAMILIES[name] for name in names if name in FAMILIES]
    if not known:
        raise ValueError(
            f"keras_kd does not know the configuration of {type(backbone).__name__}, the backbone "
            f"of {backbone.name!r}. Known are {sorted(FAMILIES)}, and classes derived from them. "
            "Make the student by its class and a smaller configuration, or, where its layers are "
            "Keras' own, shrink keras.Model(model.inputs, model.outputs)."
        )
    config = backbone.get_config()
    for key, value in known[0].refused.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"A {type(backbone).__name__} with {key}={config[key]!r} cannot be shrunk: "
                f"keras_kd knows the one with {key}={value!r} alone."
            )
    # A student with two depths has keys of its own for them.
    own = getattr(backbone, "depth_keys", None)
    if own is None:
        return known[0]
    stacks = {name: (attribute, own[name]) for name, (attribute, _) in known[0].stacks.items()}
    return dataclasses.replace(known[0], stacks=stacks)


def config_of(backbone: Any, family: Family) -> dict[str, Any]:
    """All arguments of a backbone, its heads' width included; everything in it is trainable."""
    config = {**backbone.get_config(), "trainable": True}
    for key in family.forgotten:
        config.setdefault(key, getattr(backbone, key))
    if family.head_dim is not None and config.get(family.head_dim) is None:
        config[family.head_dim] = config["hidden_dim"] // config[family.heads]
    return config


def stacks_of(backbone: Any, family: Family) -> dict[str, list]:
    """`{name: blocks}` of a backbone."""
    return {
        name: list(getattr(backbone, attribute)) for name, (attribute, _) in family.stacks.items()
    }


def kinds_of(blocks: Any, family: Family) -> list[dict[str, Any]]:
    """What alternates in blocks: equal where they compute the same, but for their weights."""
    return [{key: getattr(block, key) for key in family.alternates} for block in blocks]


def check_not_quantized(model: Any) -> None:
    """Raises for a model whose weights are no longer those of its configuration."""
    for path, _, layer in paths.walk(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            raise ValueError(
                f"Layer {path!r} of model {model.name!r} is quantized ({mode}): its channels "
                "cannot be chosen any more. Shrink the model first, and quantize the student."
            )
