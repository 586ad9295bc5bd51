"""What a distiller trains with, as a flat dict that experiment trackers take."""

import math
from typing import Any

import keras

from keras_kd import version

Setting = bool | int | float | str

# Uninformative: names that Keras counts up, and where a class lives.
_LEFT_OUT = {"name", "trainable", "module", "registered_name", "build_config", "shared_object_id"}


def settings_of(distiller: Any, models: dict[str, Any]) -> dict[str, Setting]:
    """The settings of a distiller: see `Distiller.settings`.

    Args:
        distiller: A `Distiller` or a `MutualDistiller`.
        models: Its models by their roles.
    """
    found: dict[str, Setting] = {
        "distiller": type(distiller).__name__,
        "alpha": distiller.alpha,
        "beta": distiller.beta,
    }
    for role, model in models.items():
        found |= _of_model(role, model)
    for name, loss in distiller.losses_by_name.items():
        place = f"losses/{name}"
        found |= {place: type(loss).__name__, **_flat(place, loss.get_config())}
    if distiller.compiled:
        found |= _flat("", distiller.get_compile_config())
    return found | {f"versions/{name}": each for name, each in version.installed().items()}


def _of_model(role: str, model: Any) -> dict[str, Setting]:
    found: dict[str, Setting] = {role: type(model).__name__}
    found[f"{role}/name"] = str(getattr(model, "name", getattr(model, "__name__", "")))
    if isinstance(model, keras.Model) and model.built:
        found[f"{role}/parameters"] = model.count_params()
        trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        found[f"{role}/trainable_parameters"] = trained
        found[f"{role}/dtype"] = model.dtype_policy.name
    return found


def _flat(place: str, value: Any) -> dict[str, Setting]:
    """A structure of what `get_config` returns, with the places in it as keys, `a/b`."""
    if value is None:
        return {}
    if isinstance(value, (bool, int, float, str)):
        return {place: value}
    if isinstance(value, dict) and "class_name" in value:
        return _of_object(place, value["class_name"], value.get("config"))
    if isinstance(value, dict):
        named = {key: each for key, each in value.items() if key not in _LEFT_OUT}
    elif isinstance(value, (list, tuple)):
        if all(isinstance(each, (bool, int, float, str)) for each in value):
            return {place: ", ".join(map(str, value))}
        named = dict(enumerate(value))
    else:
        return {place: str(value)}
    found: dict[str, Setting] = {}
    for key, each in named.items():
        found |= _flat(f"{place}/{key}" if place else str(key), each)
    return found


def _of_object(place: str, class_name: str, config: Any) -> dict[str, Setting]:
    if isinstance(config, str):  # a function
        return {place: config}
    if isinstance(config, dict) and set(config) == {"name"}:  # a dtype policy
        return {place: config["name"]}
    return {place: class_name, **_flat(place, config)}
