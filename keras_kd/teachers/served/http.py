"""HTTP to one server: JSON, a time limit for all of an answer, and errors that say what came."""

import json
import time
import weakref
from typing import Any

from keras_kd._utils import validation
from keras_kd.teachers.served import errors
from keras_kd.teachers.served.addresses import Address

# Statuses below 500 that a later try may not get: timeout, too early, too many requests.
_PASSING = (408, 425, 429)
_CHUNK = 1 << 20


class HttpConnection:
    """Connections to one server, which threads share.

    Args:
        address: The server's.
        connections: How many are kept open.

    Attributes:
        made: How many connections were made so far: a new one may lead to another process.

    Raises:
        ImportError: urllib3 is missing.
    """

    def __init__(self, address: Address, connections: int) -> None:
        self._urllib3 = validation.needs("urllib3", "Served over HTTP", "served")
        self._address = address
        kind = (
            self._urllib3.HTTPSConnectionPool
            if address.has_tls
            else self._urllib3.HTTPConnectionPool
        )
        self._pool = kind(address.host, address.port, maxsize=connections, block=False)
        self.made = 0
        self._pool.ConnectionCls = self._counting(kind.ConnectionCls)

    def _counting(self, kind: Any) -> type:
        """A class of connections that are counted when they are made."""
        owner = weakref.ref(self)  # the pool must not keep its owner alive

        class Counted(kind):
            def connect(self) -> None:
                super().connect()
                if (connection := owner()) is not None:
                    connection.made += 1

        return Counted

    def get(self, path: str, timeout: float) -> dict[str, Any]:
        """What the server answers to `GET path`, a JSON object."""
        answer, _ = self._ask("GET", path, None, {}, timeout)
        return answer

    def post(self, path: str, content: dict[str, Any], timeout: float) -> dict[str, Any]:
        """What the server answers to a JSON object."""
        body = json.dumps(content).encode()
        return self._ask("POST", path, body, {"Content-Type": "application/json"}, timeout)[0]

    def post_bytes(
        self, path: str, body: bytes, headers: dict[str, str], timeout: float, header_of_length: str
    ) -> tuple[dict[str, Any], bytes]:
        """`(JSON, bytes behind it)`: what the server answers to such a body.

        Args:
            path: The path.
            body: The request.
            headers: Its headers.
            timeout: In seconds.
            header_of_length: The answer's header that tells how many of its bytes are JSON.
        """
        return self._ask("POST", path, body, headers, timeout, header_of_length)

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def _ask(self, method, path, body, headers, timeout, header_of_length=None):
        end = time.monotonic() + timeout
        response: Any = None
        try:
            response = self._pool.urlopen(
                method,
                f"{self._address.path}{path}",
                body=body,
                headers={"Accept-Encoding": "identity", **headers},
                retries=False,
                redirect=False,
                timeout=self._urllib3.Timeout(total=timeout),
                preload_content=False,
            )
            content = _read(response, end, timeout)
            response.release_conn()
        except self._urllib3.exceptions.HTTPError as error:
            raise errors.Unavailable(_reason(self._urllib3.exceptions, error, timeout)) from error
        except errors.Unavailable:
            response.close()  # the rest of the answer would be taken for the next one
            raise
        kind = response.headers.get("Content-Type", "no type")
        if response.status != 200:
            raise _refusal(response.status, kind, content)
        length = response.headers.get(header_of_length) if header_of_length else None
        head = len(content) if length is None else int(length)
        return _parsed(content[:head], kind), content[head:]


def _read(response, end, timeout):
    """The body; raises where it takes longer than allowed, however steadily it trickles."""
    parts: list[bytes] = []
    while True:
        part = response.read1(_CHUNK)
        if not part:
            return b"".join(parts)
        parts.append(part)
        if time.monotonic() > end:
            raise errors.Unavailable(f"no whole answer within {timeout:.3g} s (`timeout`)")


def _reason(exceptions, error, timeout):
    # First, because in some versions of urllib3 it is a kind of the next one.
    if isinstance(error, exceptions.NewConnectionError):
        return f"no connection: {errors.first_line(str(error).rpartition(': ')[2])}"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"no connection within {timeout:.3g} s (`timeout`)"
    if isinstance(error, exceptions.TimeoutError):
        return f"no answer within {timeout:.3g} s (`timeout`)"
    # Of a length that was announced the pool tells with the cause inside.
    if any(isinstance(each, exceptions.IncompleteRead) for each in (error, *error.args)):
        return "the connection was closed in the middle of the answer"
    return f"the connection broke: {errors.first_line(str(error))}"


def _refusal(status, kind, content):
    said = f"HTTP {status}: {_message(kind, content)}"
    is_passing = status >= 500 or status in _PASSING or status < 400
    return errors.Unavailable(said) if is_passing else errors.Rejected(said)


def _message(kind, content):
    """What a server says of an error: the `error` of its JSON, or its first line."""
    try:
        found = json.loads(content)
    except ValueError:
        return f"{errors.first_line(content)!r} ({kind})"
    found = found.get("error", found) if isinstance(found, dict) else found
    return errors.first_line(str(found))


def _parsed(content, kind):
    try:
        found = json.loads(content)
    except ValueError as error:
        raise errors.Unavailable(
            f"the answer is not JSON but {kind}, {errors.first_line(content)!r}: a proxy or "
            "another program answers at this address"
        ) from error
    if not isinstance(found, dict):
        raise errors.Unavailable(f"the answer is not a JSON object but {type(found).__name__}")
    return found
