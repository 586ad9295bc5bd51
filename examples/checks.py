"""What the examples with larger models check of packages and arguments before any work."""

import importlib.util


def check_packages(needed):
    """Raises `ImportError` for a missing package of `{package: what to install}`."""
    for package, install in needed.items():
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"{package} is missing: pip install {install}")


def checked_layers(layers, depth=None):
    """The numbers of the layers that a student keeps, in a list; of a model of that `depth`."""
    layers = list(layers)
    is_rising = bool(layers) and layers == sorted(set(layers)) and layers[0] >= 0
    if not is_rising or (depth is not None and layers[-1] >= depth):
        end = "" if depth is None else f" to {depth - 1}"
        raise ValueError(f"`layers` must be rising numbers from 0{end}, received {layers}")
    return layers


def check_rates(given):
    """Raises `ValueError` unless learning rate and temperature are above 0."""
    if not given["learning_rate"] > 0 or not given["temperature"] > 0:
        raise ValueError(
            "`learning_rate` and `temperature` must be above 0, received "
            f"{given['learning_rate']} and {given['temperature']}"
        )
