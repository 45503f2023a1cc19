"""A CONNECT proxy on loopback that leads host names of the internet to ports of this machine.

Through it, a client seems to reach `acme.vault.azure.net`. This needs no hosts file and no patched
resolver, and works in every child process with the variable `HTTPS_PROXY` alone.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """A CONNECT (or a request in clear, which is refused), and how it was answered."""

    host: str
    port: int
    status: int


class ConnectProxy:
    """Connects to the port of the first pattern that fits the host; any other host gets 502.

    Attributes:
        url: for `HTTPS_PROXY`.
        asked: every request, in order.
    """

    def __init__(self, ports: dict[str, int], exists: Callable[[str], bool]) -> None:
        """Start.

        Args:
            ports: patterns such as `*.vault.azure.net`, and the ports of loopback they lead to.
            exists: says whether the name of a host resolves. If it does not, the proxy answers as
                after a failed look-up: 503 with `X-Squid-Error: ERR_DNS_FAIL 0`. Behind a proxy, a
                client sees no more of a vault that does not exist.
        """
        self.asked: list[Asked] = []
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                method, target = self.rfile.readline(4096).decode().split()[:2]
                while self.rfile.readline(4096).strip():
                    pass
                url = urlsplit(target if method != "CONNECT" else f"//{target}")
                host = url.hostname or ""
                port = next((p for name, p in ports.items() if fnmatchcase(host, name)), None)
                far = None
                if method != "CONNECT" or port is None:
                    status, head = 502, "502 Bad Gateway"
                elif not exists(host):
                    status, head = 503, "503 Service Unavailable\r\nX-Squid-Error: ERR_DNS_FAIL 0"
                else:
                    try:
                        far = socket.create_connection(("127.0.0.1", port))
                        status, head = 200, "200 Connection established"
                    except ConnectionRefusedError:
                        status, head = 503, "503 Service Unavailable\r\nX-Squid-Error: ERR_CONN 111"
                proxy.asked.append(Asked(host, url.port or 0, status))
                if far is None:
                    self.wfile.write(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode())
                    return
                with far:
                    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.wfile.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
                    _pump(self.connection, far)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing for a client that goes away in the middle: some tests do that."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _pump(near: socket.socket, far: socket.socket) -> None:
    """Carry bytes both ways until one side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(65536)
                if not data:
                    return
                key.data.sendall(data)


@contextlib.contextmanager
def connect_proxy(ports: dict[str, int], exists: Callable[[str], bool]) -> Iterator[ConnectProxy]:
    started = ConnectProxy(ports, exists)
    try:
        yield started
    finally:
        started.close()
