"""gRPC to one server: calls by path, with messages that `messages` made."""

from typing import Any

from keras_kd._utils import validation
from keras_kd.teachers.served import errors
from keras_kd.teachers.served.addresses import Address

# Batches are larger than gRPC's default of 4 MB; a channel whose server is gone would wait up to
# two minutes before it connects again, while the circuit here decides when to.
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)
# Codes with which a server refuses a request, whoever asks and how often.
_REFUSALS = (
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
)


class GrpcConnection:
    """A channel to one server, which threads share.

    Args:
        address: The server's.

    Attributes:
        made: How many connections gRPC has reported lost so far: it connects again by itself, which
            may lead to another process.

    Raises:
        ImportError: grpcio is missing.
    """

    def __init__(self, address: Address) -> None:
        self._grpc = validation.needs("grpc", "Served over gRPC", "served")
        if address.has_tls:
            credentials = self._grpc.ssl_channel_credentials()
            self._channel = self._grpc.secure_channel(address.target, credentials, _OPTIONS)
        else:
            self._channel = self._grpc.insecure_channel(address.target, _OPTIONS)
        self.made, self._is_ready = 0, False
        self._channel.subscribe(self._changed)

    def _changed(self, state: Any) -> None:
        was, self._is_ready = self._is_ready, state is self._grpc.ChannelConnectivity.READY
        self.made += was and not self._is_ready

    def call(self, path: str, request: Any, answer: type, timeout: float) -> Any:
        """What the server answers.

        Args:
            path: `/package.Service/Method`.
            request: A message.
            answer: The type of the answer.
            timeout: In seconds.
        """
        method = self._channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,  # type: ignore[attr-defined]
        )
        try:
            return method(request, timeout=timeout)
        except self._grpc.RpcError as error:
            code = error.code().name
            said = f"gRPC {code}: {errors.first_line(error.details() or '')}"
            if code == "DEADLINE_EXCEEDED":
                said = f"no answer within {timeout:.3g} s (`timeout`)"
            is_refusal = code in _REFUSALS
            raise (errors.Rejected if is_refusal else errors.Unavailable)(said) from error

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
