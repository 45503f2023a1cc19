"""Serves docs/ on loopback, at the address that the published repository will have."""

from __future__ import annotations

import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trustme

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
URLS = dict(
    re.findall(r'^(\w+) = "(https://.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
)
HOST, PATH = urlsplit(URLS["Documentation"])[1:3]


class _Docs(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(PATH))

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
