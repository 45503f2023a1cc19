"""A service on loopback whose answers a test chooses; contract suites use it, too."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Call:
    """A request as a service gets it. Names of headers are in lower case; `host` has no port."""

    method: str
    host: str
    port: int
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """An answer. Its body is sent as JSON; bytes are sent unchanged, such as a proxy's page."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Answer(0)  # the connection is broken off

Service = Callable[[Call], Answer]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            # So the handshake is made at the first read, in the connection's own thread.
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing for a client that goes away in the middle: some tests do that."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serve(service: Service, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve on a free port of loopback, HTTP/1.1 with keep-alive; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body leave in one piece

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            url = urlsplit(self.path)
            host, _, port = self.headers.get("host", "").lower().partition(":")
            call = Call(
                self.command,
                host,
                int(port or 443),
                unquote(url.path),
                dict(parse_qsl(url.query, keep_blank_values=True)),
                {name.lower(): value for name, value in self.headers.items()},
                body,
            )
            answer = service(call)
            if not answer.status:
                self.close_connection = True
                return
            if isinstance(answer.body, bytes):
                content, kind = answer.body, "text/html"
            else:
                content = b"" if answer.body is None else json.dumps(answer.body).encode()
                kind = "application/json; charset=utf-8"
            self.send_response(answer.status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base's names

        def log_message(self, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    server.tls = tls
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.daemon = True
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
