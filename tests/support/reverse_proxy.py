"""A reverse proxy on loopback that counts requests, and fails those that a test picks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

JSON = {"content-type": "application/json"}
Replaced = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
_HOP = {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """A request. Its `agent` (the User-Agent) says if mlauth or ZenML's client sent it."""

    method: str
    path: str
    agent: str


class Proxy:
    """Forwards to a server.

    Attributes:
        url: of the proxy.
        requests: the requests, in order.
        fails: chooses requests that get a 503 and are not forwarded.
        replaces: gives an answer in place of the server's: status, body, and headers if it is no
            JSON; status 0 breaks the connection off.
        stands_in: the same as `replaces`, but the request is not forwarded.
    """

    def __init__(self, target: str) -> None:
        self.requests: list[Request] = []
        self.fails: Callable[[Request], bool] = lambda request: False
        self.replaces: Callable[[Request], Replaced | None] = lambda request: None
        self.stands_in: Callable[[Request], Replaced | None] = lambda request: None
        client = httpx.Client(base_url=target, timeout=60, trust_env=False)
        # One client for all: a login's cookie must not come with somebody else's request.
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0]
                request = Request(self.command, path, self.headers.get("user-agent", ""))
                proxy.requests.append(request)
                if proxy.fails(request):
                    self.answer(503, JSON, b'{"detail": "busy"}')
                    return
                stands_in = proxy.stands_in(request)
                if stands_in:
                    self.replace(stands_in)
                    return
                kept = {
                    name: value for name, value in self.headers.items() if name.lower() not in _HOP
                }
                answer = client.request(self.command, self.path, content=body, headers=kept)
                replaced = proxy.replaces(request)
                if replaced:
                    self.replace(replaced)
                else:
                    self.answer(answer.status_code, dict(answer.headers), answer.content)

            def replace(self, replaced: Replaced) -> None:
                status, content, headers = (*replaced, JSON)[:3]
                if status:
                    self.answer(status, headers, content, hop=True)
                else:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = forward  # noqa: N815 - http.server's names

            def answer(
                self, status: int, headers: dict[str, str], body: bytes, *, hop: bool = False
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if hop or name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._client = client
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    started = Proxy(target)
    try:
        yield started
    finally:
        started.close()
