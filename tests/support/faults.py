"""A server on loopback that fails as services and networks do."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Reply = Callable[[socket.socket, "FaultyServer"], None]


class FaultyServer:
    """Answers each connection with the next reply; the last one is repeated.

    Attributes:
        url: of this server.
        requests: what was received, raw.
    """

    def __init__(self, *replies: Reply, tls: ssl.SSLContext | None = None) -> None:
        self._replies = list(replies)
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
            threading.Thread(target=self._answer, args=(connection, reply), daemon=True).start()

    def _answer(self, connection: socket.socket, reply: Reply) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            connection.settimeout(10)
            self.requests.append(_whole(connection))
            reply(connection, self)
        except OSError:
            pass  # the client went away, as some of these replies make it
        finally:
            connection.close()

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # closing alone leaves it open while it waits
        self._socket.close()


def _whole(connection: socket.socket) -> bytes:
    """Read a request with its body: a server that closes before would reset its own answer."""
    request = connection.recv(65536)
    head, blank, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    while blank and length and len(body) < int(length[1]):
        received = connection.recv(65536)
        if not received:
            break
        body += received
    return head + blank + body


@contextmanager
def faulty(*replies: Reply, tls: ssl.SSLContext | None = None) -> Iterator[FaultyServer]:
    server = FaultyServer(*replies, tls=tls)
    try:
        yield server
    finally:
        server.close()


def answer(
    status: int, body: bytes = b"{}", *, content_type: str = "application/json", **headers: str
) -> Reply:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {content_type}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    return lambda connection, _: connection.sendall(head + body)


def silent(connection: socket.socket, server: FaultyServer) -> None:
    """Accept, and say nothing."""
    server.closing.wait(60)


def reset(connection: socket.socket, server: FaultyServer) -> None:
    """Break off in the middle of the answer."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def drip(connection: socket.socket, server: FaultyServer) -> None:
    """Send a byte at a time, each soon enough for a read's own time limit."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000:
        if server.closing.wait(0.05):
            return
        connection.sendall(bytes([byte]))


def endless(connection: socket.socket, server: FaultyServer) -> None:
    """Send 50 MB."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n")
    for _ in range(800):
        connection.sendall(b" " * 65536)
