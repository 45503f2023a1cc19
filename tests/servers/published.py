"""docs/ at the address at which the repository will be published, on loopback."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trustme

HOST = "raw.githubusercontent.com"
DOCS = Path(__file__).parents[2] / "docs"


class _Docs(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/mlauth/mlauth/main/docs"))

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def published(authority: trustme.CA) -> Iterator[int]:
    """Serve over TLS as `HOST`; yield the port.

    Args:
        authority: what signs the certificate.
    """
    handler = partial(_Docs, directory=str(DOCS))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
