"""What a distiller trains with, as a flat dict that experiment trackers take."""

import math
from typing import Any

import keras

from keras_kd import version
from keras_kd.losses import CurriculumTemperature, base
from keras_kd.teachers import self_distillation

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
        found |= _of_object(f"losses/{name}", type(loss).__name__, loss.get_config())
    if distiller.compiled:
        found |= _flat("", distiller.get_compile_config())
    return found | {f"versions/{name}": each for name, each in version.installed().items()}


def _of_model(role: str, model: Any) -> dict[str, Setting]:
    found: dict[str, Setting] = {f"{role}/class": type(model).__name__}
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
    # Not at `place` itself: MLflow and file stores keep `place/...` in a folder of that name.
    return {f"{place}/class": class_name, **_flat(place, config)}


def numbers_of(distiller: Any) -> dict[str, float]:
    """The numbers that may change during `fit`, by the names that schedules give them in `logs`.

    Args:
        distiller: A `Distiller` or a `MutualDistiller`.
    """
    found = {"alpha": distiller.alpha, "beta": distiller.beta}
    numbers = {name: _live(loss) for name, loss in distiller.losses_by_name.items()}
    found |= {f"{name}_weight": each.pop("weight") for name, each in numbers.items()}
    with_temperature = [each for each in numbers.values() if "temperature" in each]
    if len(with_temperature) == 1:
        found["temperature"] = with_temperature[0].pop("temperature")
    for name, each in numbers.items():
        found |= {f"{name}.{number}": value for number, value in each.items()}
    teacher = getattr(distiller, "teacher", None)
    if isinstance(teacher, self_distillation.EMA):
        found["ema_decay"] = teacher.decay
    return found | distiller.learning_rates()


def _live(loss: Any) -> dict[str, float]:
    """`{name: value}` of what a loss got by `add_scalar`, and a temperature that it learns."""
    # `LossWeightSchedule` finds them by these names, too.
    found = {
        name.removesuffix("_variable"): base.read_number(variable)
        for name, variable in vars(loss).items()
        if name.endswith("_variable") and isinstance(variable, keras.Variable)
    }
    if isinstance(loss, CurriculumTemperature) and not loss.per_row and loss.built:
        found["learned_temperature"] = loss.learned_temperature
    return found


def learning_rate(optimizer: keras.Optimizer) -> float:
    """The learning rate of an optimizer's next step."""
    return float(optimizer.learning_rate.numpy())
