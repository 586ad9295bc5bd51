"""A real S3 server on loopback, and a proxy before it that fails now and then, as stores do."""

import contextlib
import http.client
import http.server
import random
import socket
import struct
import threading
import time

from tests import extras

# What a proxy does to a request, in equal shares.
FAULTS = ("500 before", "500 after", "silence", "a part", "a broken connection")


@contextlib.contextmanager
def s3_server():
    """Yields the port of a server that has a bucket `bucket`."""
    server = extras.require("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("PUT", "/bucket")
        assert connection.getresponse().status == 200
        connection.close()
        yield port
    finally:
        server.stop()


def options_of(port, timeout=60):
    """The storage options of a `UPath` for the server at a port."""
    return {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "key": "key",
        "secret": "secret",
        "use_listings_cache": False,
        "skip_instance_cache": True,
        "config_kwargs": {"read_timeout": timeout, "connect_timeout": timeout},
    }


class FaultyProxy:
    """Passes requests on to a server, and spoils a share of them.

    Args:
        port: Of the server.
        share: Of the requests that are spoilt, drawn from a seeded generator.
        seed: Its seed.
        silence: Seconds without an answer, longer than the client waits.

    Attributes:
        port: Of the proxy.
        requests: How many there were.
        spoilt: `{fault: how often}`.
    """

    def __init__(self, port, share, seed=0, silence=3.0):
        self._target, self.share, self._silence = port, share, silence
        self._random, self._guard = random.Random(seed), threading.Lock()
        self.requests, self.spoilt = 0, dict.fromkeys(FAULTS, 0)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

        for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
            setattr(Handler, f"do_{method}", lambda request: self.handle(request))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def _draw(self):
        with self._guard:
            self.requests += 1
            if self._random.random() >= self.share:
                return None
            fault = self._random.choice(FAULTS)
            self.spoilt[fault] += 1
            return fault

    def handle(self, request):
        fault = self._draw()
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        if fault == "a broken connection":
            return self._break(request)
        if fault == "silence":
            time.sleep(self._silence)
            return self._break(request)
        if fault == "500 before":
            return self._answer(request, 500, {}, b"<Error><Code>InternalError</Code></Error>")
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        connection.request(request.command, request.path, body, dict(request.headers))
        found = connection.getresponse()
        status, headers, data = found.status, dict(found.getheaders()), found.read()
        connection.close()
        if fault == "500 after":  # it was done, but the client hears otherwise
            return self._answer(request, 500, {}, b"<Error><Code>InternalError</Code></Error>")
        return self._answer(request, status, headers, data, is_cut=fault == "a part")

    def _answer(self, request, status, headers, data, is_cut=False):
        is_head = request.command == "HEAD"
        if is_cut and not data:
            return self._break(request)
        request.send_response_only(status)
        dropped = {"transfer-encoding", "connection", "content-length"}
        for name, value in headers.items():
            if name.lower() not in dropped:
                request.send_header(name, value)
        length = headers.get("Content-Length", len(data)) if is_head else len(data)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        if not is_head:
            request.wfile.write(data[: len(data) // 2] if is_cut else data)
        if is_cut:
            self._break(request)
        return None

    def _break(self, request):
        """Ends the connection by a reset, as a machine that goes away does."""
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            request.wfile.flush()
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.close_connection = True
