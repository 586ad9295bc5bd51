"""Addresses of servers: `http://host:port`, `grpc://host:port`, and the same with TLS."""

import dataclasses
import urllib.parse
from typing import Any

from keras_kd._utils import validation

_HTTP, _GRPC = ("http", "https"), ("grpc", "grpcs")
_EXPECTED = "an address such as 'http://host:8080' or 'grpc://host:8081', or a list of them"


@dataclasses.dataclass(frozen=True)
class Address:
    """The address of a server.

    Args:
        url: As the user wrote it, without a slash at the end.
        scheme: `"http"`, `"https"`, `"grpc"` or `"grpcs"`.
        host: Its name or number.
        port: Its port.
        path: What stands before the protocol's own paths, for HTTP.
    """

    url: str
    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def is_http(self) -> bool:
        """Whether it speaks HTTP, else gRPC."""
        return self.scheme in _HTTP

    @property
    def has_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("https", "grpcs")

    @property
    def target(self) -> str:
        """`host:port`, as gRPC takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(urls: Any) -> list[Address]:
    """The addresses of one URL or of a list of them.

    Raises:
        ValueError: One is not such a URL, or there twice.
    """
    listed = [urls] if isinstance(urls, str) else urls
    if not isinstance(listed, (list, tuple)) or not listed:
        raise validation.invalid("urls", _EXPECTED, repr(urls))
    found = [_parse(url) for url in listed]
    targets = [(each.is_http, each.target, each.path) for each in found]
    twice = sorted(
        {a.url for a, target in zip(found, targets, strict=True) if targets.count(target) > 1}
    )
    if twice:
        raise validation.invalid("urls", f"different addresses; {twice} are one", repr(urls))
    return found


def _parse(url: Any) -> Address:
    if not isinstance(url, str):
        raise validation.invalid("urls", _EXPECTED, repr(url))
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise validation.invalid("urls", f"{_EXPECTED} ({error})", repr(url)) from error
    if parts.scheme not in _HTTP + _GRPC or not parts.hostname:
        raise validation.invalid("urls", _EXPECTED, repr(url))
    if parts.username or parts.query or parts.fragment:
        raise validation.invalid("urls", f"{_EXPECTED}, without names, '?' and '#'", repr(url))
    path = parts.path.rstrip("/")
    if parts.scheme in _GRPC and (path or port is None):
        raise validation.invalid("urls", "of gRPC only host and port: grpc://host:8081", repr(url))
    port = port or (443 if parts.scheme == "https" else 80)
    return Address(url.rstrip("/"), parts.scheme, parts.hostname, port, path)
