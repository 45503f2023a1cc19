"""JSON services on loopback, and what can go wrong with one on purpose."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What came, and how it was answered; status 0 is no answer. Never a header or a body."""

    method: str
    host: str
    path: str
    status: int


@dataclass(frozen=True)
class Call:
    """A request as a service gets it: names of headers in lower case, host without a port."""

    method: str
    host: str
    port: int
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """JSON, or bytes as they are (a proxy's page)."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def seen(self, call: Call) -> Request:
        return Request(call.method, call.host, call.path, self.status)


NO_ANSWER = Answer(0)  # the connection is broken off

Service = Callable[[Call], Answer]


@dataclass(frozen=True)
class Fault:
    """An answer of `status`, or with None the right one; either after `wait` seconds.

    With `done`, these pass when what was asked for is done, and only its answer is missing. With a
    `method`, it waits for a request of that one.
    """

    status: int | None = None
    retry_after: int | None = None
    wait: float = 0.0
    answer: Answer | None = None
    done: bool = False
    method: str = ""

    def pass_time(self) -> None:
        """Wait, in a daemon thread: one that hangs ends with us."""
        if self.wait:
            threading.Event().wait(self.wait)


class Faults:
    """What goes wrong with the next requests, in order; each fault is used up by one."""

    def __init__(self) -> None:
        self._next: deque[Fault] = deque()

    def throttle(self, n: int = 1, retry_after: int | None = 1) -> None:
        """Answer 429 to the next n, with `Retry-After` in seconds unless it is None."""
        self._next.extend([Fault(429, retry_after)] * n)

    def fail(self, status: int, n: int = 1) -> None:
        """Answer the next n with a status, such as 500 or 503."""
        self._next.extend([Fault(status)] * n)

    def late(self, seconds: float, n: int = 1) -> None:
        """Answer the next n rightly, after so many seconds."""
        self._next.extend([Fault(wait=seconds)] * n)

    def done_late(self, seconds: float, n: int = 1, *, method: str = "") -> None:
        """Do what the next n ask for at once, and answer after so many seconds."""
        self._next.extend([Fault(wait=seconds, done=True, method=method)] * n)

    def hang(self, n: int = 1, *, method: str = "") -> None:
        """Take the next n, and never answer."""
        self._next.extend([Fault(0, wait=600, method=method)] * n)

    def say(self, answer: Answer, n: int = 1) -> None:
        """Give the next n an answer that is not the service's."""
        self._next.extend([Fault(answer.status, answer=answer)] * n)

    def clear(self) -> None:
        """Let nothing more go wrong."""
        self._next.clear()

    def pop(self, method: str = "") -> Fault:
        """Wait as the next fault says, and return it; one that changes nothing if there is none."""
        try:
            if self._next[0].method not in ("", method):
                return Fault()
            fault = self._next.popleft()
        except IndexError:
            return Fault()
        if not fault.done:
            fault.pass_time()
        return fault


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            # The handshake comes with the first read, in the connection's own thread.
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes away in the middle: some tests are about that."""
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

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - its names

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
