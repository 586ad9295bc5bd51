"""Versions of what workers and driver must have in common."""

import platform

import keras
import tensorflow as tf

from keras_kd.version import __version__


def of_this_process() -> dict[str, str]:
    """`{name: version}`."""
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "keras_kd": __version__,
    }


def differences(theirs: dict[str, str]) -> list[str]:
    """What another process has in other versions than this one, in words."""
    ours = of_this_process()
    return [
        f"{name} {theirs.get(name)} (here {version})"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
