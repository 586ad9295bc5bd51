"""Fresh copies of what may serve only one training: optimizers, metrics, losses, models."""

import tempfile
from typing import Any

import keras

from keras_kd.models import paths

# They hold a vocabulary, which is not a weight.
_LOOKUPS = (
    keras.layers.TextVectorization,
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
)
_STRIDE = 1_000_003  # far from the seeds that a user counts up from layer to layer


def of_config(value: Any) -> Any:
    """A copy made from the configuration, without the state; names and functions as they are."""
    if isinstance(value, (keras.optimizers.Optimizer, keras.metrics.Metric, keras.layers.Layer)):
        return type(value).from_config(value.get_config())
    return value


def copies_of(spec: Any) -> Any:
    """Copies of what a structure of lists, tuples and dicts holds; it may hold `None`."""
    return keras.tree.map_structure(of_config, spec)


def clone_optimizer(spec: Any) -> keras.optimizers.Optimizer:
    """A new optimizer, from its name, its configuration or another one."""
    return of_config(keras.optimizers.get(spec))


def clone_model(template: keras.Model, number: int) -> keras.Model:
    """A model of the same architecture with initial weights of its own.

    Initializers without a seed draw one; those with a seed get another for each number but 0.

    Args:
        template: A built `keras.Model`; it is not changed. Its weights are not copied, except those
            that layers have adapted to data: means and variances, vocabularies.
        number: An integer, at least 0.
    """

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(_reseeded(layer.get_config(), number))

    if isinstance(template, keras.Sequential) or hasattr(template, "operations"):
        copy = keras.models.clone_model(template, clone_function=copied, recursive=True)
    else:
        copy = copied(template)
    if not copy.built:
        copy.build_from_config(template.get_build_config())
    _copy_adapted(copy, template)
    return copy


def with_weights(template: keras.Model) -> keras.Model:
    """A model with the same architecture, layer names and weights, which shares nothing with it.

    Raises:
        ValueError: Keras cannot clone it, or it has no weights yet.
    """
    if not template.built:
        raise ValueError(
            f"Model {template.name!r} has no weights yet, so it cannot be copied. Call it on a "
            "batch first, or give it an Input."
        )
    try:
        copy = keras.models.clone_model(template)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Model {template.name!r}, a {type(template).__name__}, cannot be copied: {error} Give "
            "the class a get_config from which it can be made again."
        ) from error
    if not copy.built:
        copy.build_from_config(template.get_build_config() or {})
    give_weights(copy, template)
    _copy_names(copy, template)
    return copy


def _copy_names(model: keras.Model, other: keras.Model) -> None:
    """Gives layers the names of those of another model, where Keras has counted up new ones.

    It does so for layers inside of layers, and for those whose configuration has no name.
    """
    pairs = zip(paths.walk(model), paths.walk(other), strict=True)
    renamed = {id(a): (a, b.name) for (*_, a), (*_, b) in pairs if a.name != b.name and a is not b}
    for layer, name in renamed.values():
        layer.name = name
    if renamed and hasattr(other, "output_names") and hasattr(model, "output_names"):
        model.output_names = list(other.output_names)


def give_weights(model: keras.Model, other: keras.Model) -> None:
    """Copies the weights of a model of the same architecture, and what its layers adapted to."""
    model.set_weights(other.get_weights())
    _copy_adapted(model, other)


def _copy_adapted(model: keras.Model, other: keras.Model) -> None:
    pairs = zip(paths.walk(model), paths.walk(other), strict=True)
    for layer, adapted in {id(a): (a, b) for (*_, a), (*_, b) in pairs}.values():
        if isinstance(adapted, keras.layers.Normalization) and adapted.built:
            layer.set_weights(adapted.get_weights())
            layer.finalize_state()  # it computes with values that it derives from its weights
        elif isinstance(adapted, _LOOKUPS) and adapted.get_vocabulary(include_special_tokens=False):
            if adapted.get_config()["output_mode"] == "tf_idf":  # Keras cannot load it again
                raise ValueError(
                    f"Layer {adapted.name!r} counts words by tf-idf, and Keras gives a copy no "
                    "such weights. Prepare the text outside of the model, in the dataset."
                )
            with tempfile.TemporaryDirectory(prefix="keras_kd") as folder:
                adapted.save_assets(folder)
                layer.load_assets(folder)


def _reseeded(config: Any, number: int) -> Any:
    """A layer's configuration with other seeds in its initializers."""
    if isinstance(config, (list, tuple)):
        return type(config)(_reseeded(each, number) for each in config)
    if not isinstance(config, dict):
        return config
    config = {key: _reseeded(value, number) for key, value in config.items()}
    seed = config["config"].get("seed") if config.get("module") == "keras.initializers" else None
    if isinstance(seed, int):
        config["config"]["seed"] = (seed + _STRIDE * number) % 2**31
    return config
