"""A managed process that answers HTTP on loopback, and a client for it."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import psutil
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from tests.support.environment import LOOPBACK
from tests.support.managed import ManagedProcess
from tests.support.processes import ServerError, tree

_PORT_ATTEMPTS = 5


def free_port() -> int:
    """Return a free port of loopback; somebody else may take it before it is used."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class HTTPServer(ManagedProcess):
    """A process that answers HTTP on a free port of loopback.

    With `port`, it is one that another process has started there, and is only asked.
    """

    health = "/health"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        super().__init__(folder, env=env, python=python)
        self._port = port
        self._attempts = 0

    @property
    def port(self) -> int:
        """The port; known once the server is ready.

        Raises:
            ServerError: the server was never launched.
        """
        if not self._port:
            raise ServerError(f"{self.title} has no port before it is launched")
        return self._port

    @property
    def _origin(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def launch(self) -> None:
        """Start the server and return at once; does nothing when it is running.

        Raises:
            ServerError: it cannot be started.
        """
        if self._process is None:
            self._port = free_port()
        super().launch()

    def _try_again(self) -> bool:
        taken = "already in use" in " ".join(self._log_of_this_start().split())
        self._attempts += 1
        return taken and self._attempts < _PORT_ATTEMPTS

    def _is_ready(self) -> bool:
        with http_client(self._origin, timeout=2.0) as client:
            return client.get(self.health).status_code == 200 and self._owns_port()

    def _owns_port(self) -> bool:
        """Say whether our process answers, and not another one that took the port before."""
        if self._process is None:
            return False
        for process in tree(self._process):
            try:
                connections = process.net_connections(kind="tcp")
            except psutil.AccessDenied:
                return True  # this system does not say; the port was free a moment ago
            except psutil.Error:
                continue
            for connection in connections:
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port:
                    return True
        return False

    def __repr__(self) -> str:
        where = self._origin if self._port else "not launched"
        return f"<{type(self).__name__} {where} in {self.folder}>"


def _unverified_context() -> ssl.SSLContext:
    """TLS without verification, for launchers alone.

    The peer is a process of ours on loopback (`_owns_port` has looked), and tests give servers
    certificates that are expired or for another host on purpose.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_UNVERIFIED = _unverified_context()


def http_client(base_url: str, *, timeout: float = 120.0) -> httpx.Client:
    """A client for a server of ours: no proxy, no netrc, no redirect."""
    return httpx.Client(base_url=base_url, timeout=timeout, trust_env=False, verify=_UNVERIFIED)


def url_part(text: str) -> str:
    """A name or an id as one part of a URL's path."""
    return quote(text, safe="")


def ask(title: str, client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """The JSON that a server answers.

    Raises:
        ServerError: no answer, or a status of 400 and more. The server's own words are quoted only
            where they cannot repeat the request, which may hold a password.
    """
    what = f"{method} {client.base_url}".rstrip("/") + path.partition("?")[0]
    try:
        # 503: Prefect's SQLite database was locked for too long, and nothing was done.
        response = Retrying(
            retry=retry_if_result(lambda answer: answer.status_code == 503),
            stop=stop_after_attempt(8),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(client.request, method, path, **options)
    except httpx.HTTPError as error:
        raise ServerError(f"{title} gave no answer to {what}: {type(error).__name__}") from None
    if not response.is_success:
        said = "" if response.status_code == 422 else ": " + " ".join(response.text.split())[:300]
        raise ServerError(f"{title} answered {response.status_code} to {what}{said}")
    return response.json() if response.content else None
