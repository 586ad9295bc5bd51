"""What the axes of a model's weights are: hidden channels, heads, intermediate units, words.

No table lists the weights of a backbone: two small models of the same class, whose sizes all
differ, tell them. An axis is of hidden channels if it has the hidden width of the one and of the
other; a size that is the same in both belongs to nothing that is narrowed.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd.models import paths
from keras_kd.students.channels import narrow_size
from keras_kd.students.hub import depths
from keras_kd.students.hub.families import Family, backbone_of, config_of, family_of, stacks_of

# The roles of an axis.
HIDDEN, INTERMEDIATE, HALF, WORDS = "hidden", "intermediate", "half_intermediate", "words"
HEADS, KV_HEADS, HEAD_DIM, FLAT_HEADS = "heads", "kv_heads", "head_dim", "heads*head_dim"
VOCABULARY = "vocabulary_size"
# The first part of the paths of layers in the backbone, whatever its name is.
BACKBONE = "backbone"


class Sizes(NamedTuple):
    """The sizes that a backbone's configuration names.

    Attributes:
        hidden: Width of the residual stream.
        intermediate: Units between the layers of a feed-forward network.
        heads: Of queries.
        kv_heads: Of keys and values.
        head_dim: Channels of a head.
        words: Of the vocabulary.
    """

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    words: int

    def of_roles(self, family: Family) -> dict[str, int]:
        """`{role: size}` of the axes that weights of such a backbone can have."""
        roles = {
            HIDDEN: self.hidden,
            INTERMEDIATE: self.intermediate,
            HEADS: self.heads,
            HEAD_DIM: self.head_dim,
            WORDS: self.words,
        }
        if family.kv_heads is not None:
            roles[KV_HEADS] = self.kv_heads
        if family.halves:
            roles[HALF] = self.intermediate // 2
        if family.head_dim is not None:
            roles[FLAT_HEADS] = self.heads * self.head_dim
        return roles


def sizes_of(config: dict[str, Any], family: Family) -> Sizes:
    """The `Sizes` of a configuration."""
    heads, hidden = config[family.heads], config["hidden_dim"]
    own = config.get(family.head_dim) if family.head_dim else None
    return Sizes(
        hidden,
        config["intermediate_dim"],
        heads,
        config[family.kv_heads] if family.kv_heads else heads,
        own or hidden // heads,
        config[VOCABULARY],
    )


def sizes_of_model(model: Any) -> Sizes:
    """The `Sizes` of a backbone or a task."""
    backbone = backbone_of(model)
    family = family_of(backbone)
    return sizes_of(config_of(backbone, family), family)


def with_sizes(config: dict[str, Any], family: Family, sizes: Sizes) -> dict[str, Any]:
    """A configuration with other sizes."""
    changed = {
        "hidden_dim": sizes.hidden,
        "intermediate_dim": sizes.intermediate,
        family.heads: sizes.heads,
        VOCABULARY: sizes.words,
    }
    if family.kv_heads is not None:
        changed[family.kv_heads] = sizes.kv_heads
    if family.head_dim is not None:
        changed[family.head_dim] = sizes.head_dim
    return {**config, **changed}


def narrowed(sizes: Sizes, family: Family, width: float) -> Sizes:
    """The sizes of a student: heads keep their channels, and groups of heads their share.

    Where a head is `hidden / heads` wide, the hidden width follows from the heads that stay; else
    it is `width` of the teacher's.
    """
    if width == 1:
        return sizes
    if family.kv_heads is None:
        heads = kv_heads = narrow_size(sizes.heads, width)
    else:
        kv_heads = narrow_size(sizes.kv_heads, width)
        group = sizes.heads // sizes.kv_heads
        wanted = narrow_size(sizes.heads, width)
        heads = kv_heads * min(group, math.ceil(wanted / kv_heads))
    hidden = heads * sizes.head_dim if family.head_dim is None else narrow_size(sizes.hidden, width)
    parts = 2 if family.halves else 1
    intermediate = parts * narrow_size(sizes.intermediate // parts, width)
    return sizes._replace(hidden=hidden, intermediate=intermediate, heads=heads, kv_heads=kv_heads)


# All sizes, their halves and products differ, from each other and from model to model; the width of
# a head is even, as rotary embeddings need it.
_PROBES = (
    Sizes(hidden=138, intermediate=194, heads=6, kv_heads=2, head_dim=14, words=211),
    Sizes(hidden=226, intermediate=262, heads=10, kv_heads=5, head_dim=22, words=307),
)


class WeightKey(NamedTuple):
    """Where a weight is, in a way that is the same in models of other depths.

    Attributes:
        stack: Name of the stack, or `""` outside of blocks.
        block: The number of the block, or -1.
        path: Of its layer, in the block or in the model.
        number: Among the layer's own weights.
    """

    stack: str
    block: int
    path: str
    number: int

    def moved(self, blocks: dict[str, list[int]]) -> "WeightKey":
        """The key of the same weight in the teacher's block that became this one."""
        return self._replace(block=blocks[self.stack][self.block]) if self.stack else self

    @property
    def place(self) -> tuple[str, int]:
        """The block, without the layer in it."""
        return self.stack, self.block

    @property
    def line(self) -> tuple[str, int, str]:
        """What has a line in a plan: a block, or a layer directly in the backbone or the task."""
        if self.stack:
            return self.stack, self.block, ""
        parts = self.path.split("/")
        return "", -1, "/".join(parts[: 2 if parts[0] == BACKBONE else 1])


class Weight(NamedTuple):
    """A weight, and the layer that holds it."""

    layer: Any
    variable: Any


def weights_of(model: Any, family: Family) -> dict[WeightKey, Weight]:
    """All weights of a model by their `WeightKey`s, without adapters and random seeds."""
    found: dict[WeightKey, Weight] = {}
    seen: set[int] = set()

    def add(stack: str, block: int, path: str, layer: Any) -> None:
        own = paths.own_weights(layer) if getattr(layer, "weights", None) else []
        kept = [weight for weight in own if not _is_of_adapter(weight)]
        for number, weight in enumerate(kept):
            if id(weight) not in seen:
                seen.add(id(weight))
                found[WeightKey(stack, block, path, number)] = Weight(layer, weight)

    for stack, blocks in stacks_of(backbone_of(model), family).items():
        for i, block in enumerate(blocks):
            add(stack, i, "", block)
            for path, _, layer in paths.walk(block):
                add(stack, i, path, layer)
    for path, layer in _outside(model):
        add("", -1, path, layer)
    return found


def _outside(model):
    """Layers by paths that do not depend on the name of the backbone."""
    backbone = backbone_of(model)
    if model is not backbone:
        of_backbone = paths.path_of(model, backbone)
        for path, _, layer in paths.walk(model):
            if layer is not backbone and not path.startswith(of_backbone + "/"):
                yield path, layer
    for path, _, layer in paths.walk(backbone):
        yield f"{BACKBONE}/{path}", layer


def _is_of_adapter(weight):
    return "lora" in weight.name or weight.name == "seed_generator_state"


def value_of(weight: Weight) -> np.ndarray:
    """A weight's value; with the adapter of its layer, where that has one (LoRA)."""
    layer, variable = weight
    if getattr(layer, "lora_enabled", False) and variable.name in ("kernel", "embeddings"):
        return keras.ops.convert_to_numpy(getattr(layer, variable.name))
    return keras.ops.convert_to_numpy(variable)


def rebuilt(
    model: Any,
    config: dict[str, Any],
    counts: dict[str, int],
    family: Family,
    with_preprocessor: bool = False,
    name: str | None = None,
) -> Any:
    """A model of the same class around a new backbone.

    Args:
        model: A backbone or a task.
        config: The new backbone's configuration.
        counts: `{stack: number of blocks}`.
        family: The backbone's `Family`.
        with_preprocessor: Whether a task gets the preprocessor of the model.
        name: Of the new model; default: the name of the model.
    """
    backbone = backbone_of(model)
    if model is backbone and name is not None:
        config = {**config, "name": name}
    own_keys = {key for _, key in family.stacks.values()}
    if len(own_keys) < len(set(counts.values())):
        if paths.is_counted(backbone) and config["name"] == backbone.name:
            # Keras counts up a name of the new class, so that paths lead through attributes.
            config = {key: value for key, value in config.items() if key != "name"}
        new = depths.with_depths(type(backbone), config, counts)
    else:
        keys = {key: counts[stack] for stack, (_, key) in family.stacks.items()}
        new = type(backbone).from_config({**config, **keys})
    if model is backbone:
        return new
    own = {**model.get_config(), "name": name or model.name}
    if "preprocessor" in own:  # a task of KerasHub, which also takes the objects themselves
        own["preprocessor"] = model.preprocessor if with_preprocessor else None
        own["backbone"] = new
    else:
        own["backbone"] = keras.saving.serialize_keras_object(new)
    if "trainable" in own:
        own["trainable"] = True
    return type(model).from_config(own)


def roles_of(
    model: Any, config: dict[str, Any], counts: dict[str, int], family: Family
) -> dict[WeightKey, tuple]:
    """The role of each axis of each weight of a model, `None` where it has none.

    Args:
        model: A backbone or a task.
        config: Of its backbone.
        counts: `{stack: number of blocks}`.
        family: Of its backbone.
    """
    # The first block may have weights that others lack; those behind it have the same ones.
    counts = {stack: min(count, 2) for stack, count in counts.items()}
    one, two = (_roles_by_size(model, config, counts, family, sizes) for sizes in _PROBES)
    both = {
        key: tuple(a if a == b else None for a, b in zip(axes, two[key], strict=True))
        for key, axes in one.items()
    }
    known = weights_of(model, family)
    return {key: both[key._replace(block=min(key.block, 1))] for key in known}


def _roles_by_size(model, config, counts, family, sizes):
    if family.head_dim is None:
        sizes = sizes._replace(hidden=sizes.heads * sizes.head_dim)
    probe = rebuilt(model, with_sizes(config, family, sizes), counts, family)
    by_size = {size: role for role, size in sizes.of_roles(family).items()}
    return {
        key: tuple(by_size.get(size) for size in weight.variable.shape)
        for key, weight in weights_of(probe, family).items()
    }
