"""The version of the package, for `setup.py` without an import, and those of TensorFlow."""

import re
import warnings

__version__ = "0.1.0"

# The versions of TensorFlow that are tested, as pyproject.toml has them in its extras.
TENSORFLOW_FROM, TENSORFLOW_BELOW = (2, 18), (2, 22)
_INSTALL = "pip install 'tensorflow-cpu>=2.18,<2.22'"


def installed() -> dict[str, str]:
    """The versions of what computes here, by package."""
    import platform

    import keras
    import numpy
    import tensorflow

    return {
        "keras_kd": __version__,
        "tensorflow": tensorflow.__version__,
        "keras": keras.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def differences(theirs: dict[str, str]) -> list[str]:
    """What another process has in other versions than this one, in words.

    Args:
        theirs: `installed()` of that process.
    """
    return [
        f"{name} {theirs.get(name)} there, {own} here"
        for name, own in installed().items()
        if theirs.get(name) != own
    ]


def check_tensorflow(found: str | None) -> None:
    """Refuses a TensorFlow that is too old, and warns of one that is newer than the tested ones.

    Args:
        found: `tensorflow.__version__`, such as `"2.21.0"` or `"2.22.0-dev20260101"`; `None`
            where the package has no version.

    Raises:
        ImportError: It is older than 2.18, whose C interface lacks what the operations call, or it
            has no version.
    """
    if found is None:
        raise ImportError(
            "The package tensorflow that was found holds no TensorFlow: it is a folder of that "
            f"name on the path, or what an uninstallation left. Remedy: {_INSTALL}."
        )
    parts = re.match(r"(\d+)\.(\d+)", found)
    if parts is None:  # a build of someone's own, which knows what it does
        return
    major_and_minor = int(parts[1]), int(parts[2])
    expected = "TensorFlow 2.18 or newer, below 2.22"
    if major_and_minor < TENSORFLOW_FROM:
        raise ImportError(
            f"keras_kd {__version__} expected {expected}. Received: tensorflow {found}. "
            f"Remedy: {_INSTALL} (or tensorflow, in the same versions)."
        )
    if major_and_minor >= TENSORFLOW_BELOW:
        warnings.warn(
            f"keras_kd {__version__} is tested with {expected}. Received: tensorflow {found}, "
            f"which may work. If it does not: {_INSTALL}, or a newer keras_kd.",
            UserWarning,
            stacklevel=3,
        )
