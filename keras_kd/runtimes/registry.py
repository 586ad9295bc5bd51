"""Which class opens a model file: runtimes are registered by the extension of their files.

`keras_kd.measure`, `keras_kd.report` and the teachers of files ask here. A runtime of your own is
one subclass of `ModelFile` and one call of `register`.
"""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.runtimes.base import ModelFile

_EXTENSION = re.compile(r"\.[A-Za-z0-9_]+")
# Models that Keras opens itself.
_OF_KERAS = (".keras", ".h5", ".hdf5")
_RUNTIMES: dict[str, type[ModelFile]] = {}


def register(extension: str, runtime: type[ModelFile]) -> type[ModelFile]:
    """Registers the class that opens files of an extension.

    From then on `keras_kd.measure` and `keras_kd.report` take such files, and `open_file` opens
    them. A class that was registered for the extension before is replaced.

    Args:
        extension: The extension with its dot, such as `".npz"`.
        runtime: A subclass of `ModelFile`, called as `runtime(path, threads, **options)`.

    Returns:
        `runtime`.

    Raises:
        ValueError: It is not an extension, or one of Keras' own, or `runtime` is not such a class.

    Example:

    ```python
    from keras_kd import runtimes

    class OwnFile(runtimes.TFLiteFile):
        runtime = "own-build"

    runtimes.register(".tflite", OwnFile)  # in place of the one that comes with keras_kd
    runtimes.register(".tflite", runtimes.TFLiteFile)
    ```
    """
    is_extension = isinstance(extension, str) and _EXTENSION.fullmatch(extension) is not None
    if not is_extension or extension in _OF_KERAS:
        expected = f"a file extension such as '.npz', none of {_OF_KERAS}, which Keras opens"
        raise invalid("extension", expected, repr(extension))
    if not (isinstance(runtime, type) and issubclass(runtime, ModelFile)):
        raise invalid("runtime", "a subclass of keras_kd.runtimes.ModelFile", repr(runtime))
    _RUNTIMES[extension] = runtime
    return runtime


def open_file(path: str | os.PathLike, threads: int = 1, **options: Any) -> ModelFile:
    """Opens a model file with the runtime of its extension.

    Args:
        path: The file.
        threads: Threads of the runtime.
        **options: Further arguments of the runtime's class, such as `outputs`, `constants` or
            `channels_first`.

    Returns:
        A `ModelFile`.

    Raises:
        ImportError: The runtime's package is missing.
        ValueError: No runtime is registered for the extension, or the runtime cannot open it.

    Example:

    ```python
    def logits(path, images):  # path: a .tflite or .onnx file
        from keras_kd import runtimes

        return runtimes.open_file(path).run(images)[0]
    ```
    """
    found = validation.path("path", path, f"a {listed_extensions()} file")
    return runtime_of(pathlib.Path(found).suffix, found)(found, threads, **options)


def runtime_of(extension: str, path: str | None = None) -> Callable[..., ModelFile]:
    """The class that is registered for an extension.

    Args:
        extension: The extension with its dot.
        path: The file, for the message.

    Raises:
        ValueError: There is none.
    """
    if extension not in _RUNTIMES:
        received = extension if path is None else path
        raise ValueError(
            f"Expected a {listed_extensions()} file. Received: {received!r}. Runtimes of your own "
            "are registered with keras_kd.runtimes.register."
        )
    return _RUNTIMES[extension]


def extensions() -> tuple[str, ...]:
    """The registered extensions, in the order of their registration."""
    return tuple(_RUNTIMES)


def listed_extensions(*more: str) -> str:
    """The extensions for a message: `".tflite, .onnx or .keras"`."""
    *first, last = (*_RUNTIMES, *more)
    return f"{', '.join(first)} or {last}" if first else last


def extension_in(name: str, default: str) -> str:
    """The registered extension that a name mentions, or the default.

    Args:
        name: What the user calls a file, such as `"onnx int8"`.
        default: Where it mentions none, such as `"int8"`.
    """
    mentioned = [each for each in _RUNTIMES if each[1:].lower() in name.lower()]
    return max(mentioned, key=len, default=default)
