"""Configurations with comments that `keras-kd init` writes."""

import importlib.resources
import os
import pathlib

from keras_kd._utils import files, validation

KINDS = ("image", "text", "table")


def text(kind: str) -> str:
    """The text of a configuration.

    Args:
        kind: `"image"`, `"text"` or `"table"`.
    """
    validation.one_of("kind", kind, KINDS)
    found = importlib.resources.files(__package__).joinpath("templates")
    return "".join(
        found.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in (kind, "common")
    )


def write(kind: str, path: str | os.PathLike) -> pathlib.Path:
    """Writes a configuration, over no other file.

    Args:
        kind: See `text`.
        path: Where it is written.

    Returns:
        The path.

    Raises:
        ValueError: There is such a file, or it cannot be written.
    """
    found = pathlib.Path(validation.path("--out", path))
    if found.exists():
        raise ValueError(
            f"--out: {str(found)!r} exists, and is not written over. Name another file."
        )
    files.check_writable(found, "--out")
    with files.replace_atomically(found) as partial:
        partial.write_text(text(kind), encoding="utf-8")
    return found
