"""`Client`: a model behind one server, whatever protocol it speaks."""

import abc
from typing import Any

import numpy as np

from keras_kd.teachers.served.description import Answer, ModelDescription


class Client(abc.ABC):
    """What a protocol defines: how a model is described and asked.

    Args:
        connection: An `HttpConnection` or a `GrpcConnection`.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @abc.abstractmethod
    def describe(self, timeout: float) -> ModelDescription:
        """What the server says of the model."""

    @abc.abstractmethod
    def predict(
        self,
        arrays: dict[str, np.ndarray],
        description: ModelDescription,
        names: list[str],
        timeout: float,
    ) -> Answer:
        """The model's outputs for a batch.

        Args:
            arrays: The inputs by name, in the types of the description.
            description: Of the model.
            names: The outputs that are wanted; more may come.
            timeout: In seconds.
        """

    @property
    def connections(self) -> int:
        """A number that changes when the server may be another process than before."""
        return self._connection.made

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()
