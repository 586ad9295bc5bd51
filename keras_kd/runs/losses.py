"""The distillation losses of a run, by the names of their classes."""

import inspect
from typing import Any

from keras_kd import callbacks, losses
from keras_kd.runs import schema
from keras_kd.runs.reading import Configuration, closest

# Set by keys of their own.
_OWN = {"weight": "weight", "name": "name"}
_NAMES = [name for name in losses.__all__ if name != "DistillationLoss"]


def check(config: Configuration) -> None:
    """Makes all losses once; no model is needed for that.

    Raises:
        ValueError: There is no such loss, it has no such argument, or a key goes to none of them.
    """
    build(config, gives_logits=True)
    given = [_parameters(loss) for loss in _listed(config)]
    if config.values.temperature is not None and not any("temperature" in each for each in given):
        raise config.error(
            "temperature",
            "none of the losses has a temperature. Leave it out, or add the loss SoftTargets.",
        )
    is_known = any("teacher_from_logits" in each for each in given)
    if config.values.teacher.from_logits is not None and not is_known:
        raise config.error(
            "teacher.from_logits",
            "none of the losses asks whether the teacher returns logits. Leave it out.",
        )


def build(config: Configuration, gives_logits: bool) -> list[Any]:
    """New losses.

    Args:
        config: The configuration.
        gives_logits: Whether the student returns logits.
    """
    made = []
    for i, loss in enumerate(_listed(config)):
        key = f"losses.{i}"
        _check_loss(config, key, loss)
        parameters = _parameters(loss)
        given = dict(loss.arguments)
        temperature = config.values.temperature
        if temperature is not None and "temperature" in parameters:
            if "temperature" in given:
                raise config.error(
                    f"{key}.arguments.temperature",
                    "the key `temperature` sets it too. Leave one of them out.",
                )
            given["temperature"] = temperature.start
        if "from_logits" in parameters and not gives_logits:
            given.setdefault("from_logits", False)
        if "teacher_from_logits" in parameters and config.values.teacher.from_logits is not None:
            given.setdefault("teacher_from_logits", config.values.teacher.from_logits)
        try:
            made.append(getattr(losses, loss.name)(**given, weight=loss.weight))
        except (TypeError, ValueError) as error:
            raise config.error(f"{key}.arguments", f"{loss.name}: {error}") from error
    return made


def schedules(config: Configuration) -> list[Any]:
    """The callback of the temperature, where it changes."""
    temperature = config.values.temperature
    if temperature is None or temperature.end is None:
        return []
    return [callbacks.TemperatureSchedule(temperature.start, temperature.end, temperature.schedule)]


def taps(config: Configuration) -> list[Any] | None:
    """The teacher's layers that the losses read, for a cache."""
    found: list = []
    for loss in _listed(config):
        layers = loss.arguments.get("teacher_layer")
        found += layers if isinstance(layers, list) else [] if layers is None else [layers]
    return list(dict.fromkeys(found)) or None


def _listed(config):
    return config.values.losses or [schema.Loss(name="SoftTargets")]


def _check_loss(config, key, loss):
    if loss.name not in _NAMES:
        raise config.error(
            f"{key}.name",
            f"kd.losses has no {loss.name!r}. It has {', '.join(_NAMES)}."
            f"{closest(loss.name, _NAMES)}",
        )
    parameters = _parameters(loss)
    for name in loss.arguments:
        if name in _OWN:
            raise config.error(
                f"{key}.arguments.{name}",
                f"it is a key of the loss itself: write `{name}:` beside `arguments:`.",
            )
        if name not in parameters:
            raise config.error(
                f"{key}.arguments.{name}",
                f"{loss.name} has no such argument. Allowed: "
                f"{', '.join(parameters)}.{closest(name, parameters)}",
            )


def _parameters(loss):
    kind = getattr(losses, loss.name)
    found = inspect.signature(kind.__init__).parameters.values()
    fixed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    hidden = {"self", *_OWN}
    return [each.name for each in found if each.kind not in fixed and each.name not in hidden]
