"""Generated text that is measured: of a function, or as it is."""

import keras
import numpy as np

from keras_kd.measurement.subjects import base


class FunctionSubject(base.Subject):
    """A function from a batch of inputs to outputs or strings.

    Args:
        function: The function.
        name: A name; default: the function's.
    """

    kind = "function"

    def __init__(self, function, name=None):
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def predict(self, inputs):
        return {"output": self.function(inputs)}


class TextsSubject(base.Subject):
    """Strings that were generated before, one for each row of the data in its order.

    Args:
        texts: A list of strings.
        name: A name.
    """

    kind = "texts"

    def __init__(self, texts, name=None):
        self.texts, self.name = list(texts), name or "texts"
        self.rows_given, self._used = len(self.texts), 0

    def predict(self, inputs):
        start = self._used
        self._used += len(keras.tree.flatten(inputs)[0])
        return {"output": self.texts[start : self._used]}


class Decoded(base.Subject):
    """A subject of which a function makes strings.

    Args:
        subject: A `Subject`.
        decode: From the outputs of a batch, an array, to a list of strings.
    """

    def __init__(self, subject, decode):
        self.subject, self.decode = subject, decode
        self.kind, self.name = subject.kind, subject.name

    def predict(self, inputs):
        return {name: self._decoded(x) for name, x in self.subject.predict(inputs).items()}

    def _decoded(self, outputs):
        found = self.decode(outputs)
        if not isinstance(found, (list, tuple, np.ndarray)) or len(found) != len(outputs):
            raise ValueError(
                f"`decode` must return a list with a string for each of {len(outputs)} rows. "
                f"Received: {found!r}"
            )
        return found

    def size(self, inputs):
        return self.subject.size(inputs)

    def timed(self, inputs):
        return self.subject.timed(inputs)
